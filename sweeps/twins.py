"""Trials that differ in their number of epochs alone: what one has trained, another need not.

Epochs are fidelity where the schedule does not depend on their number (`warmuplr`). A shorter trial
is answered from the course of a longer one (`fidelity`), a longer one goes on from the point at the
end of a shorter one
(`trainer.finetune.extend`). The other trial is an earlier one of the same sweep, or any
of the sweep that a warm start names, if that had the very same data and weights.

    twins = Twins(directory, sweep)
    for other in twins.of(trials, number, config): ...    # which may answer it
    twins.longest(trials, number, config)                 # which it can go on from
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from conf.files import file_sha256
from conf.load import Config
from sweeps import study as record
from sweeps.spec.sweep_file import SweepFile
from sweeps.state import ANSWERED_FROM, SweepDirectory, TrialState
from trainer.data.sets import read_data
from trainer.finetune.extend import EPOCHS, Finished, identity, read_finished, read_result


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
