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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from conf.files import file_sha256, link
from conf.load import Config
from sweeps.directory import SweepDirectory
from sweeps.search import study as record
from sweeps.spec.sweep_file import SweepFile
from sweeps.trial_state import ANSWERED_FROM, TrialState
from trainer.data.sets import read_data
from trainer.finetune.extend import Finished, identity, read_finished
from trainer.finetune.record import log_config
from trainer.finetune.run_directory import CHECKPOINTS, EPOCHS, HYPOTHESES, read_result
from trainer.tracking.event_log import EventLog, read_events

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
    own = {**log_config(config, log), ANSWERED_FROM: label}
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


@dataclass(frozen=True)
class Twin:
    """A completed trial that was trained and differs in its number of epochs alone.

    Attributes:
        label: Its number; of another sweep's trial with that sweep's name before it.
        directory: Of its files.
        epochs: That it was trained for.
    """

    label: str
    directory: Path
    epochs: int

    @property
    def is_of_this_sweep(self) -> bool:
        """Whether it is one of the sweep that asks."""
        return self.label.isdecimal()


class Twins:
    """Finds twins of a sweep's trials.

    Args:
        directory: The sweep's directory.
        sweep: The sweep.
    """

    def __init__(self, directory: SweepDirectory, sweep: SweepFile) -> None:
        self._directory = directory
        self._sweep = sweep
        self._contents: tuple[str, str] | None = None

    def of(self, trials: Sequence[FrozenTrial], number: int, config: Config) -> list[Twin]:
        """Name a trial's twins, those of its own sweep first.

        Args:
            trials: The sweep's, by number.
            number: Of the trial; only earlier ones count, so that the record alone decides.
            config: Its own, with its places.
        """
        twin = trials[number].user_attrs[record.TRIES].get("twin")
        if twin is None:
            return []
        found = [
            Twin(str(other.number), self._directory.trial(other.number), _epochs(other))
            for other in _completed(trials[:number], twin)
        ]
        return [*found, *self._of_the_warm_start(twin, config)]

    def longest(
        self, trials: Sequence[FrozenTrial], number: int, config: Config
    ) -> tuple[Twin, Finished] | None:
        """Find the twin of the most epochs that a trial can go on from."""
        shorter = [twin for twin in self.of(trials, number, config) if twin.epochs < config[EPOCHS]]
        for twin in sorted(shorter, key=lambda twin: -twin.epochs):
            finished = read_finished(twin.directory)
            # Another device, or data that was changed in its place, and it is not the same.
            if finished is not None and finished.identity == self._identity(config):
                return twin, finished
        return None

    def _of_the_warm_start(self, twin: str, config: Config) -> Iterator[Twin]:
        wish = self._sweep.warm_start
        if wish is None:
            return
        directory = SweepDirectory.of(wish.sweep)
        study = record.load_study(directory.study, wish.sweep) if directory.study.exists() else None
        for other in _completed(() if study is None else study.get_trials(deepcopy=False), twin):
            place = directory.trial(other.number)
            result = read_result(place)
            if result is not None and result["identity"] == self._identity(config):
                yield Twin(f"{wish.sweep}/{other.number}", place, _epochs(other))

    def _identity(self, config: Config) -> str:
        """What a trial's points hold for; data and weights are read once."""
        if self._contents is None:
            self._contents = read_data(config).sha256, file_sha256(Path(config["init_param"]))
        data, weights = self._contents
        return identity(config, data, weights)


def must_wait(trials: Sequence[FrozenTrial], number: int) -> bool:
    """Whether an earlier, shorter twin is under way, which the trial can soon go on from."""
    tries = trials[number].user_attrs[record.TRIES]
    return tries.get("twin") is not None and any(
        other.state == OptunaState.RUNNING
        and other.user_attrs[record.TRIES].get("twin") == tries["twin"]
        and _epochs(other) < tries["epochs"]
        for other in trials[:number]
    )


def awaited(
    states: Iterable[TrialState], to_come: Iterable[tuple[str, Mapping[str, object]]]
) -> set[int]:
    """Name the completed trials that one which is still to come will go on from.

    Args:
        states: All trials on record.
        to_come: Stage and values of trials that are not over.
    """
    finished: dict[str, list[TrialState]] = {}
    for state in states:
        if state.outcome == "completed" and ANSWERED_FROM not in state.notes:
            finished.setdefault(_apart_from_epochs(state.stage, state.values), []).append(state)
    found = set()
    for stage, values in to_come:
        epochs = values.get(EPOCHS)
        others = finished.get(_apart_from_epochs(stage, values), [])
        shorter = [s for s in others if isinstance(epochs, int) and s.epochs < epochs]
        if shorter:
            found.add(max(shorter, key=lambda state: (state.epochs, -state.number)).number)
    return found


def _apart_from_epochs(stage: str, values: Mapping[str, object]) -> str:
    rest = sorted((key, value) for key, value in values.items() if key != EPOCHS)
    numbers = ((k, float(v)) if type(v) is int else (k, v) for k, v in rest)  # 1 is 1.0
    return repr((stage, *numbers))


def _completed(trials: Iterable[FrozenTrial], twin: str) -> Iterator[FrozenTrial]:
    for trial in trials:
        if (
            trial.state == OptunaState.COMPLETE
            and trial.user_attrs.get(ANSWERED_FROM) is None
            and trial.user_attrs[record.TRIES].get("twin") == twin
        ):
            yield trial


def _epochs(trial: FrozenTrial) -> int:
    found: int = trial.user_attrs[record.TRIES]["epochs"]
    return found
