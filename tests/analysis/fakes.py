"""Runs of a sweep as the store would give them, without a store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conf.errors import DataError
from trainer.tracking.mlflow_store import MetricPoint, StoredRun

START_MS = 1_760_000_000_000
SPEAKERS = ("ann", "bob", "cem", "dee", "eve", "fay")
CRITICAL = {
    "8k": "audio_encoder_conf.freeze,optim_conf.lr,train_conf.use_deepspeed",
    "s1": "audio_encoder_conf.freeze,ctc_decoder_conf.freeze,frontend_conf.fs,optim_conf.lr,"
    "train_conf.use_deepspeed",
    "s3": "ctc_decoder_conf.freeze,llm_conf.use_lora,optim_conf.lr,train_conf.use_deepspeed",
}


def stored_trial(
    number: int,
    stage: str,
    lr: float,
    outcome: str,
    errors: tuple[int, int, int] | None = None,
    *,
    epochs: int = 6,
    epochs_run: int | None = None,
    baseline: bool = False,
    tags: Mapping[str, str] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> StoredRun:
    """A child run of 1,000 reference characters; its test set is one point worse."""
    known: dict[str, float] = {}
    if errors is not None:
        names = ("valid/substitutions", "valid/deletions", "valid/insertions")
        cer = sum(errors) / 1000
        known = dict(zip(names, map(float, errors), strict=True)) | {
            "epoch": float(epochs if epochs_run is None else epochs_run),
            "objective": cer,
            "valid/cer": cer,
            "valid/cer_ctc": cer / 2,
            "wideband/cer": 0.13 + lr,
        }
    if errors is not None and outcome == "completed":
        known["test/cer"] = known["objective"] + 0.01
    statuses = {"failed": "FAILED", "killed": "KILLED", "running": "RUNNING"}
    return StoredRun(
        run_id=f"run{number:02}",
        name=f"{stage} trial {number}",
        status=statuses.get(outcome, "FINISHED"),
        started_ms=START_MS,
        ended_ms=None if outcome == "running" else START_MS + 7_000 * (number + 5),
        tags={
            "kind": "trial",
            "trial": str(number),
            "stage": stage,
            "outcome": outcome,
            "baseline": "true" if baseline else "false",
            "delta.critical": CRITICAL[stage],
            **(tags or {}),
        },
        params={
            "optim_conf.lr": repr(lr),
            "optim_conf.weight_decay": "0.01",
            "train_conf.max_epoch": str(epochs),
        },
        metrics=known | dict(metrics or {}),
    )


def hypotheses(
    errors: Iterable[int], *, split: str = "valid", length: int = 10, **fields: Sequence[object]
) -> str:
    """Lines of an evaluation in which utterance i has so many substitutions."""
    lines = (
        {"key": f"{split}-{i}", "reference": "一" * length, "text": "", "ctc_text": ""}
        | {"substitutions": wrong, "deletions": 0, "insertions": 0, "reference_length": length}
        | {name: values[i] for name, values in fields.items()}
        for i, wrong in enumerate(errors)
    )
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


@dataclass
class FakeStore:
    """The reading side of `trainer.tracking.mlflow_store.Store`, over given runs."""

    parent: StoredRun
    trials: Sequence[StoredRun]
    artifacts: Mapping[tuple[str, str], str]
    histories: Mapping[tuple[str, str], Sequence[tuple[int, float]]] = field(default_factory=dict)
    """Steps and values by run and metric."""
    asked: list[str] = field(default_factory=list)
    """The runs that were asked for more than themselves, as often as they were."""
    uri: str = "sqlite:///nowhere.db"

    def sweep_names(self) -> Sequence[str]:
        return [self.parent.tags["sweep"]]

    def sweep_run(self, name: str) -> StoredRun | None:
        return self.parent if name == self.parent.tags["sweep"] else None

    def trial_runs(self, name: str) -> Sequence[StoredRun]:
        return self.trials if self.sweep_run(name) else []

    def history(self, run_id: str, metric: str) -> Sequence[MetricPoint]:
        self.asked.append(run_id)
        points = self.histories.get((run_id, metric), ())
        return [MetricPoint(step, value, START_MS + step) for step, value in points]

    def download(self, run_id: str, name: str, directory: Path) -> Path:
        self.asked.append(run_id)
        if (run_id, name) not in self.artifacts:
            raise DataError(f"MLflow run {run_id}: has no artifact {name}")
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.artifacts[run_id, name], encoding="utf-8")
        return path
