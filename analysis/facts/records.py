"""Typed records of a sweep and its trials, read through `trainer.tracking.mlflow_store`.

`load_sweep(name, store)` alone talks to a store; everything after it is pure.
MLflow keeps params and tags as text: this module is the one place that turns them into numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from conf.delta import RUN_KEYS
from conf.errors import DataError
from trainer.tracking.mlflow_store import MetricPoint, StoredRun

OUTCOMES = ("completed", "pruned", "failed", "killed", "running")
"""How a trial can stand, in the order in which tables list it."""

DEFAULT_OBJECTIVE = "valid/cer"

COMPARABLE: Mapping[str, str] = {
    "data.sha256": "other data",
    "scoring": "other text rules",
    "init.sha256": "other initial weights",
}
"""Tags that compared trials must share, and what is said of a trial that differs."""


class Source(Protocol):
    """What is asked of a `trainer.tracking.mlflow_store.Store`; tests give a fake."""

    uri: str

    def sweep_names(self) -> Sequence[str]:
        """All sweeps of the store."""

    def sweep_run(self, name: str) -> StoredRun | None:
        """The parent run of the newest sweep of this name."""

    def trial_runs(self, name: str) -> Sequence[StoredRun]:
        """The runs of that sweep's trials."""

    def download(self, run_id: str, name: str, directory: Path) -> Path:
        """Copy an artifact to a directory; DataError if there is none of this name."""

    def history(self, run_id: str, metric: str) -> Sequence[MetricPoint]:
        """A metric's values in the order of their steps."""

    def log_artifact(self, run_id: str, path: Path, name: str | None = None) -> None:
        """Log a file to a run."""

    def set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        """Set tags on a run."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial: what it was given, how it ended and what it measured. Rates are fractions."""

    trial: int
    run_id: str
    stage: str
    outcome: str
    reason: str = ""
    baseline: bool = False
    """The stage's default config, which the other trials of that stage are compared with."""
    directory: Path | None = None
    critical: tuple[str, ...] = ()
    """Dotted keys of the critical deltas: what the config changes that matters most."""
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The last logged value of each metric: for a completed trial that of the chosen checkpoint."""
    started_ms: int | None = None
    ended_ms: int | None = None
    comparable: Mapping[str, str] = field(default_factory=dict)
    """What trials must share to be compared, by tag: data, scoring and initial weights."""
    replicate_of: int | None = None
    """The trial that this one repeats with another seed."""
    answered_from: int | None = None
    """The longer trial whose curve answered this one, which was not trained itself; none where that
    is another sweep's, whose place this one takes."""
    known_from: str = ""
    """The trial that was trained in place of this one, or of its first epochs; `SWEEP/7` where it
    is another sweep's."""
    known_epochs: int | None = None
    """How many first epochs that were; None for all."""
    beyond: tuple[str, ...] = ()
    """Metrics whose bound it breaks."""

    @property
    def candidate(self) -> bool:
        """Whether it may be chosen: replicates measure noise, and answers have no checkpoints."""
        return self.replicate_of is None and self.answered_from is None and not self.beyond

    def metric(self, name: str) -> float | None:
        """The last value of a metric, or None where it was never logged or is not finite."""
        value = self.metrics.get(name)
        return value if value is not None and math.isfinite(value) else None

    def number(self, key: str) -> float | None:
        """A param as a number, or None where it is absent or says something else."""
        try:
            return float(self.params[key])
        except (KeyError, ValueError):
            return None

    @property
    def duration_s(self) -> float | None:
        """Wall time of the trial, None while it is under way."""
        if self.started_ms is None or self.ended_ms is None:
            return None
        return max(0, self.ended_ms - self.started_ms) / 1000


@dataclass(frozen=True)
class SweepRecord:
    """A sweep: its parent run, what the untrained base scores, and its trials by number."""

    name: str
    run_id: str
    status: str
    objective: str
    """Name of the metric that the sweep lowers."""
    base: Mapping[str, float]
    """The base's own scores by metric name, such as valid/cer, before any training."""
    trials: tuple[TrialRecord, ...]
    directory: Path | None = None
    """The sweep's own files."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The sweep file's, by dotted key."""

    @property
    def by_number(self) -> dict[int, TrialRecord]:
        """The trials by their numbers."""
        return {trial.trial: trial for trial in self.trials}


def load_sweep(name: str, store: Source) -> SweepRecord:
    """Read a sweep and all its trials; of several sweeps of one name, the newest.

    Raises:
        DataError: The store holds no sweep of that name; the message lists those it holds.
    """
    parent = store.sweep_run(name)
    if parent is None:
        known = ", ".join(sorted(store.sweep_names())) or "none"
        raise DataError(f"--sweep: got {name!r}, expected a sweep of this MLflow store ({known})")
    return SweepRecord(
        name=name,
        run_id=parent.run_id,
        status=parent.status,
        objective=parent.tags.get("objective", DEFAULT_OBJECTIVE),
        base={
            name.removeprefix("base/"): value
            for name, value in parent.metrics.items()
            if name.startswith("base/") and math.isfinite(value)
        },
        trials=tuple(sorted(map(trial_record, store.trial_runs(name)), key=lambda t: t.trial)),
        directory=Path(parent.tags["sweep.dir"]) if "sweep.dir" in parent.tags else None,
        settings=dict(parent.params),
    )


def differing(trials: Sequence[TrialRecord]) -> dict[str, list[str | None]]:
    """The keys in which the configs of trials differ, and each trial's text of it.

    Paths and labels (`RUN_KEYS`) do not count; None stands for a key that a config lacks.
    """
    keys = dict.fromkeys(key for trial in trials for key in trial.params if key not in RUN_KEYS)
    texts = {key: [trial.params.get(key) for trial in trials] for key in keys}
    return {key: found for key, found in texts.items() if len(set(found)) > 1}


def trial_record(run: StoredRun) -> TrialRecord:
    """Turn one child run into a record."""
    tags = run.tags
    directory = tags.get("trial.dir")
    return TrialRecord(
        trial=int(tags["trial"]),
        run_id=run.run_id,
        stage=tags.get("stage", ""),
        outcome=_outcome(run),
        reason=" ".join(tags.get("outcome.reason", "").split()) or _remark(tags),
        baseline=tags.get("baseline", "") == "true",
        directory=Path(directory) if directory else None,
        critical=_names(tags.get("delta.critical", "")),
        params=dict(run.params),
        metrics=dict(run.metrics),
        started_ms=run.started_ms,
        ended_ms=run.ended_ms,
        comparable={tag: tags[tag] for tag in COMPARABLE if tag in tags},
        replicate_of=_trial_number(tags.get("replicate.of", "")),
        answered_from=_trial_number(tags.get("answered.from", "")),
        known_from=tags.get("went_on.from") or tags.get("answered.from", ""),
        known_epochs=_trial_number(tags.get("went_on.after", "")),
        beyond=_names(tags.get("beyond", "")),
    )


def _remark(tags: Mapping[str, str]) -> str:
    """What is special about a trial, for the column where others say why they failed."""
    if answered := tags.get("answered.from"):
        return f"answered from trial {answered}"
    if replicate := tags.get("replicate.of"):
        return f"trial {replicate} with another seed"
    if beyond := tags.get("beyond"):
        return f"beyond the bound on {beyond}"
    if source := tags.get("went_on.from"):
        return f"went on from trial {source} after {tags.get('went_on.after')} epochs"
    return ""


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _trial_number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _outcome(run: StoredRun) -> str:
    """The outcome's tag; without one (under way, or cut off before its verdict) MLflow's status."""
    by_status = {"FINISHED": "completed", "FAILED": "failed", "KILLED": "killed"}
    outcome = run.tags.get("outcome") or by_status.get(run.status, "running")
    return outcome if outcome in OUTCOMES else "failed"
