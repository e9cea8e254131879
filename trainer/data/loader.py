"""Batches in the plan's order, loaded here or by worker processes.

With workers the batches are the same, bit for bit. A worker that dies, or does nothing for minutes,
ends the run with an error that says so; it never hangs.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from conf.errors import DataError, WorkError
from trainer.data.array_store import flush_all
from trainer.data.batch import Batch, Example, LeftOut, collate
from trainer.data.manifest import Utterance

Augment = Callable[[Utterance, int], Example | None]

_POLL_S = 5.0
"""How often a silent worker is looked after; torch does so after each wait."""
_SHM = ", maybe for want of shared memory in /dev/shm"
STUCK_S = 600.0
"""A worker that gives no batch for so long is stuck: reading one takes seconds."""


@dataclass(frozen=True)
class Loaded:
    """One batch of the plan.

    Attributes:
        batch: None if no utterance of it can be read.
        left_out: Those that cannot be read.
    """

    batch: Batch | None
    left_out: tuple[LeftOut, ...] = ()


class Loader:
    """Loads batches of utterances.

    Args:
        utterances: The training set.
        load: Makes an example of one; a ``DataError`` leaves it out. With workers it runs in
            processes forked from this one.
        augment: Makes another example of one in an epoch, or None where it stays as it is.
        num_workers: Processes, as far as there are cores; 0 loads in this one.
        stuck_s: How long a worker may take for a batch.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        load: Callable[[Utterance], Example],
        num_workers: int,
        *,
        augment: Augment | None = None,
        stuck_s: float = STUCK_S,
    ) -> None:
        self._utterances = utterances
        self._load = load
        self._num_workers = num_workers
        self._augment = augment
        self._stuck_s = stuck_s

    def batches(self, plan: Sequence[Sequence[int]], epoch: int = 1) -> Iterator[Loaded]:
        """The plan's batches, in its order.

        Args:
            plan: Indices into the utterances for each batch, as ``BatchSampler.epoch`` gives them.
            epoch: Its number.

        Raises:
            WorkError: A worker died, failed or is stuck.
        """
        batches = _Planned(self._utterances, functools.partial(self._example, epoch=epoch), plan)
        # More than there are cores only take turns.
        num_workers = min(self._num_workers, len(plan), len(os.sched_getaffinity(0)))
        if num_workers == 0:
            return self._from_here(batches)
        return self._from_workers(batches, num_workers)

    def _example(self, utterance: Utterance, epoch: int) -> Example:
        augmented = self._augment(utterance, epoch) if self._augment else None
        return augmented or self._load(utterance)

    def _from_here(self, batches: _Planned) -> Iterator[Loaded]:
        for number in range(len(batches)):
            yield batches[number]
        # Workers do at their end: other processes may be about to need what was computed.
        flush_all()

    def _from_workers(self, batches: _Planned, num_workers: int) -> Iterator[Loaded]:
        # Tokenizers have threads of their own, which a fork does not take along; they say so on
        # stderr unless they are told.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        loader = DataLoader(
            batches,
            batch_size=None,
            num_workers=num_workers,
            multiprocessing_context="fork",
            timeout=min(_POLL_S, self._stuck_s),
            # Its own: the seeds of workers are not drawn from the generator that training uses.
            generator=torch.Generator().manual_seed(0),
        )
        iterator: Any = iter(loader)
        try:
            for _ in range(len(batches)):
                yield self._next(iterator)
        finally:
            # Now: an error that is on its way would keep it, and its processes, alive.
            iterator._shutdown_workers()

    def _next(self, iterator: Any) -> Loaded:
        asked_s = time.monotonic()
        while True:
            try:
                batch: Loaded = next(iterator)
                return batch
            except Exception as error:
                if not str(error).startswith("DataLoader timed out"):
                    raise WorkError(
                        f"loading data: a worker failed ({_death(iterator) or _last_line(error)}); "
                        "dataset_conf.num_workers 0 loads in the training process"
                    ) from error
                if time.monotonic() - asked_s > self._stuck_s:
                    raise WorkError(
                        f"loading data: no worker gave a batch within {self._stuck_s:g} s; "
                        "dataset_conf.num_workers 0 loads in the training process"
                    ) from error


class _Planned(Dataset[Loaded]):
    """A plan's batches by number."""

    def __init__(
        self,
        utterances: Sequence[Utterance],
        load: Callable[[Utterance], Example],
        plan: Sequence[Sequence[int]],
    ) -> None:
        self._utterances = utterances
        self._load = load
        self._plan = plan

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, number: int) -> Loaded:
        examples: list[Example] = []
        left_out: list[LeftOut] = []
        for index in self._plan[number]:
            utterance = self._utterances[index]
            try:
                examples.append(self._load(utterance))
            except DataError as error:
                left_out.append(LeftOut(utterance, _reason(error, utterance)))
        return Loaded(collate(examples) if examples else None, tuple(left_out))


def _reason(error: DataError, utterance: Utterance) -> str:
    """Without the place, which is said beside it."""
    return str(error).removeprefix(f"{utterance.place}: ")


def _death(iterator: Any) -> str:
    """How a worker's process ended, if one has."""
    for worker in iterator._workers:
        if (code := worker.exitcode) is not None:
            by = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
            hint = {-signal.SIGKILL: ", maybe for want of memory", -signal.SIGBUS: _SHM}
            return f"process {worker.pid} {by}{hint.get(code, '')}"
    return ""


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
