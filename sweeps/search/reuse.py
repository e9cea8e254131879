"""What other trials have trained already: a trial is answered by one of them, or goes on from it.

Trials are equivalent where they differ in their number of epochs alone: the learning rate of
`warmuplr` does not depend on it, nor does anything else that happens in an epoch. So a run of 20
epochs contains the run of 5 with the same other settings, and what that one would have found can be
read instead of trained again, where it is certain: the objective is of the checkpoint that would be
exported, which may be an average that only the shorter run would have made. And a run of 20 can go
on from where the run of 5 ended.

    curve = read_learning_curve(directory_of_the_longer_trial)
    found = answer(curve, config_of_the_shorter)    # None: train it
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
from trainer.finetune.extend import (
    extend_from,
    extended_from,
    has_begun,
    identity,
    read_finished,
)
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
class LearningCurve:
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
        curve: Of the trial that knows.
        metrics: The shorter one's last values.
        epoch: Whose checkpoint it would have chosen; None for the very one that the trial that
            knows chose, whose texts are there.
    """

    curve: LearningCurve
    metrics: Mapping[str, float]
    epoch: int | None

    @property
    def checkpoint(self) -> Path:
        """The file of the checkpoint that it would have chosen, among those of the longer trial."""
        name = self.curve.chosen if self.epoch is None else f"epoch-{self.epoch:03d}"
        return self.curve.directory / CHECKPOINTS / f"{name}.safetensors"

    def objective(self, name: str) -> float | None:
        """The sweep's objective, as a trial would have told it."""
        return self.metrics.get("objective" if name == CHOOSES else name)

    def values(self, name: str, epochs: int) -> list[float]:
        """A metric after each epoch, from 0 to the last."""
        before = [self.curve.epochs[epoch].metrics[name] for epoch in range(epochs)]
        return [*before, self.metrics[name]]


def read_learning_curve(directory: Path) -> LearningCurve | None:
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
    return (
        LearningCurve(directory, epochs, {**last.metrics, **final})
        if "objective" in final
        else None
    )


def answer(curve: LearningCurve, config: Config) -> Answer | None:
    """Say what a trial of fewer epochs, or as many, would have found; None where only it can tell.

    Args:
        curve: A completed trial that is equal but for its number of epochs.
        config: Of the shorter one.
    """
    epochs, last = config[EPOCHS], max(curve.epochs)
    if epochs > last:
        return None
    if epochs == last:
        return Answer(curve, curve.final, None)
    averaged = min(config["train_conf.avg_nbest_model"], config["train_conf.keep_nbest_models"])
    ranked = sorted((e.metrics[CHOOSES], number) for number, e in curve.epochs.items() if number)
    shorter = curve.epochs[epochs].metrics
    # Candidates are the best epoch and the average of the best ones; where those of the longer
    # trial lie within the shorter one, they are its own.
    if max(number for _, number in ranked[: max(1, averaged)]) <= epochs:
        return Answer(curve, {**shorter, **_scores(curve.final)}, None)
    alone = averaged <= 1 or epochs == 1  # no average: it is the best epoch
    scored_at_the_end = ("finetune_conf.test_data_set_list", "finetune_conf.valid_subset")
    if not alone or any(config.get(key) is not None for key in scored_at_the_end):
        return None
    _, best = min(item for item in ranked if item[1] <= epochs)
    chosen = curve.epochs[best].metrics
    return Answer(curve, {**shorter, **_scores(chosen), "objective": chosen[CHOOSES]}, best)


def write_answer(found: Answer, config: Config, label: str) -> None:
    """Write what a trial would have logged to the directory that its config names.

    Where the checkpoint that it would have chosen is there it gets that, too.

    Args:
        found: What it would have found.
        config: Of the shorter one, with its data and `output_dir`.
        label: What the trial that knows is called.
    """
    directory, epochs = Path(config["output_dir"]), config[EPOCHS]
    curve = found.curve
    log = EventLog(directory)
    own = {**log_config(config, log), ANSWERED_FROM: label}
    if found.epoch is not None:
        own["checkpoint"] = f"epoch-{found.epoch:03d}"
    log.set_tags({**_tags(curve.directory), **own})
    for epoch in range(epochs + 1):
        log.log_metrics(curve.epochs[epoch].metrics, step=curve.epochs[epoch].step)
    log.log_metrics(found.metrics, step=curve.epochs[epochs].step + 1)
    texts = curve.directory / HYPOTHESES
    if found.epoch is None and texts.is_dir():
        shutil.copytree(texts, directory / HYPOTHESES, dirs_exist_ok=True)
        for path in sorted((directory / HYPOTHESES).glob("*.jsonl")):
            log.log_artifact(path, f"{HYPOTHESES}/{path.name}")
    if (checkpoint := found.checkpoint).exists():
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
class EquivalentTrial:
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


class Reuse:
    """Finds what a sweep's trials can take from trials that are equivalent to them."""

    def __init__(self, directory: SweepDirectory, sweep: SweepFile) -> None:
        self._directory = directory
        self._sweep = sweep
        self._contents: tuple[str, str] | None = None

    def answer(
        self, trials: Sequence[FrozenTrial], number: int, config: Config
    ) -> tuple[str, Answer] | None:
        """Find what a trial would find, where an equivalent one makes it certain.

        Args:
            trials: The sweep's, by number.
            number: Of the trial; only earlier ones count, so that the record alone decides.
            config: Its own, with its places.

        Returns:
            The label of the trial that knows, and what the trial would find; None: train it.
        """
        for other in self._equivalent(trials, number, config):
            curve = read_learning_curve(other.directory)
            found = None if curve is None else answer(curve, config)
            if found is None or found.objective(self._sweep.objective) is None:
                continue
            if self._may_answer(other, found):
                return other.label, found
        return None

    def extend(
        self, trials: Sequence[FrozenTrial], number: int, config: Config
    ) -> tuple[str, int] | None:
        """Put a trial where a shorter one ended; its worker goes on from there.

        Args:
            trials: As in `answer`.
            number: As in `answer`.
            config: As in `answer`.

        Returns:
            The label of the shorter one and its number of epochs; None where there is none.
        """
        directory = self._directory.trial(number)
        origin = extended_from(directory)
        if origin is not None or has_begun(directory):
            return origin
        shorter = [o for o in self._equivalent(trials, number, config) if o.epochs < config[EPOCHS]]
        for other in sorted(shorter, key=lambda other: -other.epochs):
            finished = read_finished(other.directory)
            # Another device, or data that was changed in its place, and it is not the same.
            if finished is not None and finished.identity == self._identity(config):
                extend_from(finished, directory, other.label)
                return other.label, finished.epochs
        return None

    def _may_answer(self, other: EquivalentTrial, found: Answer) -> bool:
        """Whether a trial that is not trained will not be missed when it is the best.

        With the same checkpoint as the longer one it is no better. With another it is no better by
        the metric that chooses checkpoints, but may be so by others. A trial that answers from
        another sweep is no candidate here: this one takes its place, with checkpoint and texts.
        """
        if found.epoch is None:
            return other.is_of_this_sweep or found.checkpoint.exists()
        more = self._sweep.beside or self._sweep.at_most
        return other.is_of_this_sweep and self._sweep.objective == CHOOSES and not more

    def _equivalent(
        self, trials: Sequence[FrozenTrial], number: int, config: Config
    ) -> Iterator[EquivalentTrial]:
        """The completed trials equivalent to one, those of its own sweep first."""
        key = trials[number].user_attrs[record.TRIES].get(record.EQUIVALENCE)
        if key is None:
            return
        for other in _completed(trials[:number], key):
            directory = self._directory.trial(other.number)
            yield EquivalentTrial(str(other.number), directory, _epochs(other))
        yield from self._of_the_warm_start(key, config)

    def _of_the_warm_start(self, key: str, config: Config) -> Iterator[EquivalentTrial]:
        wish = self._sweep.warm_start
        if wish is None:
            return
        directory = SweepDirectory.of(wish.sweep)
        study = record.load_study(directory.study, wish.sweep) if directory.study.exists() else None
        for other in _completed(() if study is None else study.get_trials(deepcopy=False), key):
            place = directory.trial(other.number)
            result = read_result(place)
            if result is not None and result["identity"] == self._identity(config):
                yield EquivalentTrial(f"{wish.sweep}/{other.number}", place, _epochs(other))

    def _identity(self, config: Config) -> str:
        """What a trial's points hold for; data and weights are read once."""
        if self._contents is None:
            self._contents = read_data(config).sha256, file_sha256(Path(config["init_param"]))
        data, weights = self._contents
        return identity(config, data, weights)


def must_wait(trials: Sequence[FrozenTrial], number: int) -> bool:
    """Whether an equivalent, shorter trial is under way, which this one can soon go on from."""
    tries = trials[number].user_attrs[record.TRIES]
    return tries.get(record.EQUIVALENCE) is not None and any(
        other.state == OptunaState.RUNNING
        and other.user_attrs[record.TRIES].get(record.EQUIVALENCE) == tries[record.EQUIVALENCE]
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


def _completed(trials: Iterable[FrozenTrial], key: str) -> Iterator[FrozenTrial]:
    for trial in trials:
        if (
            trial.state == OptunaState.COMPLETE
            and trial.user_attrs.get(ANSWERED_FROM) is None
            and trial.user_attrs[record.TRIES].get(record.EQUIVALENCE) == key
        ):
            yield trial


def _epochs(trial: FrozenTrial) -> int:
    found: int = trial.user_attrs[record.TRIES]["epochs"]
    return found
