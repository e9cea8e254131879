"""Disk space: a forecast before a sweep, care and a watch while it runs.

A trial under way keeps its best epochs, their average, and two points to go on from, each three
times its weights (Adam's moments come on top). When it has ended only the checkpoints of the best
trials stay. A last point stays as long as there is space, and only where it may be used: if a
longer trial that is to come will go on from it, or, in a sweep that searches the number of epochs,
if it is of one of the best trials, which a later sweep may train longer.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conf.document import numbers
from conf.effects import load_parameters
from conf.errors import UserError
from conf.files import holder_of, locked
from conf.load import Config
from conf.rules import trained
from sweeps.directory import SweepDirectory
from sweeps.spec.sweep_file import SweepFile
from sweeps.trial_state import ANSWERED_FROM, FINAL, TrialState
from trainer.finetune.run_directory import CHECKPOINTS, POINTS

_LOG = logging.getLogger(__name__)
_RESUME = 2 * 3
"""Two points to go on from, the old and the new, each of weights and two moments."""
_BYTES = 4
"""Of a weight in a checkpoint, at most."""
_LEAST_BYTES = 200_000_000
"""Below this nothing works: databases, logs, Ray's own files."""
_CHECKPOINTS = (CHECKPOINTS, POINTS)


@dataclass(frozen=True)
class Need:
    """Bytes that a sweep takes on the disk."""

    running: int
    """Of one trial under way, the largest."""
    kept: int
    """Of one trial whose checkpoints stay."""
    total: int
    """Of the whole sweep, when it takes most."""

    @property
    def floor(self) -> int:
        """What has to be free for one more trial."""
        return _LEAST_BYTES + self.running


def need(sweep: SweepFile, configs: Mapping[str, Config], concurrency: int) -> Need:
    """Forecast what a sweep takes, from the size of the base's weights and what is trained.

    The share that is trained is that at full size; the tiny base's is near enough.
    """
    file = Path(sweep.base) / "model.pt"
    weights = file.stat().st_size if file.is_file() else _BYTES * _parameters()
    running = kept = 0
    for config in configs.values():
        size = weights * trained_share(config)
        epochs, nbest = config["train_conf.max_epoch"], config["train_conf.keep_nbest_models"]
        kept = max(kept, int((min(epochs, nbest) + 1) * size))
        running = max(running, int((min(epochs, nbest) + 1 + _RESUME) * size))
    stay = min(sweep.trials, sweep.checkpoints_of)
    return Need(running, kept, concurrency * running + stay * kept)


def trained_share(config: Config) -> float:
    """The trained parameters over all, as counted at full size; 1 where nobody counted."""
    counts = load_parameters().get(config.stage, {})
    everything = sum(c.parameters for part, c in counts.items() if part != "lora")
    parts = trained(config)
    if "ctc_decoder" in parts:
        parts |= {"ctc"}
    adapters = load_parameters().get("s3", {}).get("lora")
    learns = sum(counts[part].parameters for part in parts if part in counts)
    if "lora" in parts and "lora" not in counts and adapters is not None:
        learns += adapters.parameters
    return learns / everything if everything else 1.0


def _parameters() -> int:
    """Of the released model, for weights that are not here yet."""
    counts = load_parameters()["8k"]
    return sum(count.parameters for part, count in counts.items() if part != "lora")


def check_disk_space(sweep: SweepFile, directory: SweepDirectory, asked: Need) -> None:
    """Check that a sweep will find disk space, what it already takes included.

    Raises:
        UserError: There is not enough; nothing has been created.
    """
    free = free_bytes(directory.root) + _taken(directory)
    wanted = asked.total + _LEAST_BYTES
    if free < wanted:
        raise UserError(
            f"{directory.root}: got {numbers.size(free)} of free disk, "
            f"expected {numbers.size(wanted)} "
            f"({sweep.concurrency} trials at once, the checkpoints of the best "
            f"{min(sweep.trials, sweep.checkpoints_of)}); lower concurrency, keep_checkpoints or "
            "train_conf.keep_nbest_models"
        )


def free_bytes(path: Path) -> int:
    """Free bytes where a path lies, or will lie."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def expendable(
    states: Iterable[TrialState], best: Sequence[int], keep: int, cared: Collection[int] = ()
) -> list[int]:
    """Name the ended trials whose checkpoints nobody needs.

    Args:
        states: All trials.
        best: Numbers of completed trials, the best first.
        keep: How many of them keep theirs.
        cared: Trials that are done with.

    A trial that answered for a shorter one has that one's checkpoints, so it stays with it.
    """
    known = {state.number: state for state in states}
    stay = set(best[:keep])
    answers = {known[number].notes.get(ANSWERED_FROM) for number in stay if number in known}
    stay |= {number for number in known if str(number) in answers}
    return [
        number
        for number, state in known.items()
        if state.outcome in FINAL and number not in stay and number not in cared
    ]


class DiskSpace:
    """Looks after the disk while a sweep runs.

    Args:
        directory: The sweep's directory.
        keep: How many trials keep their checkpoints.
        floor: Free bytes below which no new trial is started.
        searches_epochs: Whether the best trials' points may be of use to later sweeps.
    """

    def __init__(
        self, directory: SweepDirectory, keep: int, floor: int, *, searches_epochs: bool
    ) -> None:
        self._directory = directory
        self._keep = keep
        self._floor = floor
        self._searches_epochs = searches_epochs
        self._cared: set[int] = set()
        self._warned = False
        self._awaited: list[Path] = []

    def care(
        self, states: Sequence[TrialState], best: Sequence[int], awaited: Collection[int] = ()
    ) -> None:
        """Delete what ended trials leave and nobody needs.

        Args:
            states: All trials.
            best: Numbers of completed trials, the best first.
            awaited: Those that a longer trial will go on from.

        Points that are awaited stay a little longer than those that later sweeps may want.
        """
        for number in expendable(states, best, self._keep, {*self._cared, *awaited}):
            if drop(self._directory.trial(number), _CHECKPOINTS):
                self._cared.add(number)
        self._awaited = [self._directory.trial(number) / POINTS for number in sorted(awaited)]
        stay = {*awaited}
        if self._searches_epochs and not self._is_tight():
            stay |= {*best[: self._keep]}
        for state in states:
            if state.outcome in FINAL and state.number not in stay | self._cared:
                drop(self._directory.trial(state.number), (POINTS,))

    def allows(self) -> bool:
        """Whether there is space for one more trial; points to go on from give way to it."""
        free = free_bytes(self._directory.root)
        if self._is_tight() and not self._warned:
            self._warned = True
            _LOG.warning("%s free: it gets tight", numbers.size(free))
        while free < self._floor and self._awaited:
            drop(self._awaited.pop().parent, (POINTS,))
            free = free_bytes(self._directory.root)
        return free >= self._floor

    def _is_tight(self) -> bool:
        return free_bytes(self._directory.root) < 2 * self._floor

    @property
    def tight(self) -> str:
        """A warning, once there has been reason for one."""
        if not self._warned:
            return ""
        return f"only {numbers.size(free_bytes(self._directory.root))} free"

    @property
    def refusal(self) -> str:
        """Why no new trial was started."""
        free = numbers.size(free_bytes(self._directory.root))
        return (
            f"{self._directory.root}: got {free} of free disk, "
            f"expected {numbers.size(self._floor)} "
            "for one more trial; free some, the same command goes on"
        )


def drop(directory: Path, names: Iterable[str]) -> bool:
    """Delete parts of an ended trial; False while its worker has not let go of it."""
    doomed = {directory / name: directory / f"{name}.dropped" for name in names}
    there = [path for path in [*doomed, *doomed.values()] if path.exists()]
    if not there:
        return True
    lock = directory / "lock"
    try:
        if holder_of(lock) is not None:  # seen at once, where a refusal takes a moment
            return False
        with locked(lock, f"{directory}: is being trained by"):
            for path, aside in doomed.items():
                shutil.rmtree(aside, ignore_errors=True)
                if path.exists():  # all at once, so that nobody goes on from half of it
                    os.rename(path, aside)
                    shutil.rmtree(aside, ignore_errors=True)
    except (OSError, UserError):
        return False
    return True


def _taken(directory: SweepDirectory) -> int:
    total = 0
    for path in directory.root.glob("trials/*/*/*"):
        if path.parent.name in _CHECKPOINTS:
            with contextlib.suppress(OSError):
                found = os.stat(path)
                total += found.st_size // found.st_nlink  # longer trials share files
    return total
