"""A sweep's directory, and what is known of its trials.

outputs/sweeps/NAME/
    sweep.yaml     the sweep as it is run: file, name and overrides
    study.db       the Optuna study, the one durable record
    trials/007/    trial.json (what it tries), event log, config, hypotheses, checkpoints, trial.log
    base/          the base's own scores, and in shared/ its texts for all trials
    sweep.log      what Ray, Optuna and MLflow had to say
    lock           who runs it
    ray.session    where Ray keeps its logs, by which its processes are found again
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import ConfigError
from conf.files import Holder, holder_of, locked_directory, write_json, write_text
from conf.reading import flatten
from conf.writing import to_yaml
from sweeps.spec.sweep_file import SweepFile, load_sweep
from sweeps.trial_state import TrialState

SWEEPS = Path("outputs/sweeps")

_MAY_CHANGE = (
    *("trials", "replicates", "budget", "goal"),
    *("resources", "concurrency", "trial_timeout_s", "keep_checkpoints"),
)
"""What another start of the same sweep may change: it does not change what a trial means."""


@dataclass(frozen=True)
class SweepDirectory:
    """The places of one sweep; nothing is made before `create`."""

    root: Path

    @classmethod
    def of(cls, name: str) -> SweepDirectory:
        """The directory of a sweep in the working directory."""
        return cls(Path.cwd() / SWEEPS / name)

    @property
    def study(self) -> Path:
        """The Optuna study's sqlite file."""
        return self.root / "study.db"

    @property
    def sweep_yaml(self) -> Path:
        """The sweep as it is run."""
        return self.root / "sweep.yaml"

    @property
    def log(self) -> Path:
        """Everything that does not belong on the console."""
        return self.root / "sweep.log"

    @property
    def base(self) -> Path:
        """Output of the base's evaluation."""
        return self.root / "base"

    @property
    def shared(self) -> Path:
        """What the base says before training, decoded once for all trials."""
        return self.base / "shared"

    @property
    def ray(self) -> Path:
        """Ray Tune's own files, of no use after the run."""
        return self.root / "ray"

    def trial(self, number: int) -> Path:
        """A trial's directory."""
        return self.root / "trials" / f"{number:03d}"

    def refuse_changes(self, sweep: SweepFile) -> None:
        """Check that the directory, if there is one, belongs to the same sweep.

        Raises:
            ConfigError: It holds a sweep that differs in more than how much there is to do and
                with what; the message says in what.
        """
        if self.sweep_yaml.exists():
            stored, _ = load_sweep(self.sweep_yaml)
            _refuse_changes(sweep, stored, self.root)

    def create(self, sweep: SweepFile) -> None:
        """Make the directory that of this sweep."""
        write_text(self.sweep_yaml, sweep_text(sweep))

    def base_metrics(self) -> dict[str, float]:
        """The base's scores as metrics such as `valid/cer`; empty until they are there."""
        path = self.base / "scores.json"
        if not path.exists():
            return {}
        try:
            scores = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # its writer was killed
            return {}
        return {
            f"{split}/{name}": float(value)
            for split, values in scores.items()
            for name, value in values.items()
            if isinstance(value, int | float)
        }

    def write_trial(self, state: TrialState, overrides: Mapping[str, Any]) -> None:
        """Tell the worker what a trial tries."""
        work = {
            "number": state.number,
            "stage": state.stage,
            "baseline": state.baseline,
            "overrides": dict(overrides),
        }
        write_json(self.trial(state.number) / "trial.json", work)

    def drop_ray_files(self) -> None:
        """Delete what Ray Tune wrote for itself."""
        shutil.rmtree(self.ray, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the sweep for this process; a directory that no sweep came of is removed again.

        Raises:
            UserError: Another process runs it; the message names its pid and since when.
        """
        with locked_directory(self.root, "this sweep is being run by", self.sweep_yaml.name):
            yield

    def holder(self) -> Holder | None:
        """Who runs the sweep now; None if nobody does."""
        return holder_of(self.root / "lock")

    def starter(self) -> Holder | None:
        """Who starts the sweep for the first time; None once Ray and MLflow are there."""
        return None if self.sweep_yaml.exists() else self.holder()


def sweep_text(sweep: SweepFile) -> str:
    """A sweep as YAML that reads back as the same sweep."""
    return to_yaml(_plain(sweep.model_dump(exclude_unset=True)))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def _refuse_changes(sweep: SweepFile, stored: SweepFile, root: Path) -> None:
    new, old = (flatten(_plain(s.model_dump(exclude=set(_MAY_CHANGE)))) for s in (sweep, stored))
    problems = [
        f"{key}: got {new.get(key, 'nothing')}, expected {old.get(key, 'nothing')} as in {root}; "
        "give the changed sweep another --name"
        for key in dict.fromkeys([*old, *new])
        if new.get(key) != old.get(key)
    ]
    if problems:
        raise ConfigError(problems)
