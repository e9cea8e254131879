"""Epochs as fidelity: a trial that is the first part of another is answered from its course.

The learning rate of `warmuplr` does not depend on the number of epochs, nor does anything else that
happens in one. So a run of 20 epochs contains the run of 5 with the same other settings, and what
that one would have found can be read instead of trained again, where it is certain: the objective
is of the checkpoint that would be exported, which may be an average that only the shorter run would
have made.

    course = read_course(longer_trials_directory)
    found = answer(course, config_of_the_shorter)   # None: train it
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conf.delta import classify, deltas_json, deltas_markdown
from conf.files import link, write_text
from conf.load import Config
from sweeps.state import ANSWERED_FROM
from trainer.finetune.extend import CHECKPOINTS, HYPOTHESES
from trainer.tracking.mlflow_store import EventLog, read_events

_SCORES = ("valid/", "wideband/", "test/", "silence/", "objective")
CHOOSES = "valid/cer"  # what the trainer keeps the best checkpoint by


@dataclass(frozen=True)
class Epoch:
    """What a trial logged at an epoch's end."""

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Course:
    """A completed trial, as it logged itself."""

    directory: Path
    epochs: Mapping[int, Epoch]
    final: Mapping[str, float]
    """Last values: of the checkpoint that would be exported."""

    @property
    def chosen(self) -> str:
        """The name of that checkpoint."""
        return _tags(self.directory).get("checkpoint", "")


@dataclass(frozen=True)
class Answer:
    """What a shorter trial would have found.

    Attributes:
        metrics: Its last values.
        epoch: Whose checkpoint it would have chosen; None for the very one that the longer trial
            chose, whose texts are there.
    """

    metrics: Mapping[str, float]
    epoch: int | None

    def checkpoint(self, course: Course) -> Path:
        """The file of the checkpoint that it would have chosen, among those of the longer trial."""
        name = course.chosen if self.epoch is None else f"epoch-{self.epoch:03d}"
        return course.directory / CHECKPOINTS / f"{name}.safetensors"

    def objective(self, name: str) -> float | None:
        """The sweep's objective, as a trial would have told it."""
        return self.metrics.get("objective" if name == CHOOSES else name)


def read_course(directory: Path) -> Course | None:
    """Read a completed trial's event log; None if it does not hold a whole one."""
    steps: dict[int, dict[str, float]] = {}
    for event in read_events(directory):
        if "metrics" in event:  # what was logged within the epoch is not logged again at its end
            steps.setdefault(event["step"], {}).update(event["metrics"])
    epochs: dict[int, Epoch] = {}
    for step, metrics in sorted(steps.items()):
        if "epoch" in metrics:  # first at its end; the last one again beside the final values
            epochs.setdefault(int(metrics["epoch"]), Epoch(step, metrics))
    if not epochs or list(epochs) != list(range(len(epochs))):
        return None
    last = epochs[max(epochs)]
    final = steps.get(last.step + 1, {})
    return Course(directory, epochs, {**last.metrics, **final}) if "objective" in final else None


def answer(course: Course, config: Config) -> Answer | None:
    """Say what a trial of fewer epochs, or as many, would have found; None where only it can tell.

    Args:
        course: A completed trial that is equal but for its number of epochs.
        config: Of the shorter one.
    """
    epochs, last = config["train_conf.max_epoch"], max(course.epochs)
    if epochs > last:
        return None
    if epochs == last:
        return Answer(course.final, None)
    averaged = min(config["train_conf.avg_nbest_model"], config["train_conf.keep_nbest_models"])
    ranked = sorted((e.metrics[CHOOSES], number) for number, e in course.epochs.items() if number)
    shorter = course.epochs[epochs].metrics
    # Candidates are the best epoch and the average of the best ones; where those of the longer
    # trial lie within the shorter one, they are its own.
    if max(number for _, number in ranked[: max(1, averaged)]) <= epochs:
        return Answer({**shorter, **_scores(course.final)}, None)
    alone = averaged <= 1 or epochs == 1  # no average: it is the best epoch
    scored_at_the_end = ("finetune_conf.test_data_set_list", "finetune_conf.valid_subset")
    if not alone or any(config.get(key) is not None for key in scored_at_the_end):
        return None
    _, best = min(item for item in ranked if item[1] <= epochs)
    chosen = course.epochs[best].metrics
    return Answer({**shorter, **_scores(chosen), "objective": chosen[CHOOSES]}, best)


def write_answer(found: Answer, course: Course, config: Config, label: str) -> None:
    """Write what a trial would have logged to the directory that its config names.

    Where the checkpoint that it would have chosen is there it gets that, too.

    Args:
        found: What it would have found.
        course: The trial that knows.
        config: Of the shorter one, with its data and `output_dir`.
        label: What the trial that knows is called.
    """
    directory, epochs = Path(config["output_dir"]), config["train_conf.max_epoch"]
    log = EventLog(directory)
    deltas = classify(config)
    for name, text in {
        "config.yaml": config.to_yaml(),
        "deltas.json": deltas_json(deltas),
        "deltas.md": deltas_markdown(deltas),
    }.items():
        write_text(directory / name, text)
        log.log_artifact(directory / name, name)
    log.log_params(config.flat())
    changes = [delta.change for delta in deltas]
    own = {
        "config.sha256": config.fingerprint(),
        "delta.modified": str(changes.count("MODIFIED")),
        "delta.new": str(changes.count("NEW")),
        ANSWERED_FROM: label,
    }
    if found.epoch is not None:
        own["checkpoint"] = f"epoch-{found.epoch:03d}"
    log.set_tags({**_tags(course.directory), **own})
    for epoch in range(epochs + 1):
        log.log_metrics(course.epochs[epoch].metrics, step=course.epochs[epoch].step)
    log.log_metrics(found.metrics, step=course.epochs[epochs].step + 1)
    texts = course.directory / HYPOTHESES
    if found.epoch is None and texts.is_dir():
        shutil.copytree(texts, directory / HYPOTHESES, dirs_exist_ok=True)
        for path in sorted((directory / HYPOTHESES).glob("*.jsonl")):
            log.log_artifact(path, f"{HYPOTHESES}/{path.name}")
    if (checkpoint := found.checkpoint(course)).exists():
        link(checkpoint, directory / CHECKPOINTS / checkpoint.name)


def _scores(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith(_SCORES)}


def _tags(directory: Path) -> dict[str, str]:
    """What the longer trial said of itself."""
    tags: dict[str, str] = {}
    for event in read_events(directory):
        tags |= event.get("tags", {})
    return tags
