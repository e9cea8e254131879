"""Work on many parts in worker processes; results come in the order of the parts.

    for records in ordered(read_part, parts, num_workers, what="prepare"):
        ...

Used where audio is read or written. Training loads its batches by torch's `DataLoader`
(`trainer.data.loader`), whose tensors come through shared memory.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from conf.errors import WorkError

_AHEAD = 4
"""Parts per worker that wait for one, or whose results wait to be taken."""
_LOOK_S = 1.0
"""How often a worker is looked after that lets wait for its result."""
_PR_SET_PDEATHSIG = 1

Part = TypeVar("Part")
Result = TypeVar("Result")


def ordered(
    work: Callable[[Part], Result],
    parts: Iterable[Part],
    num_workers: int,
    *,
    what: str,
) -> Iterator[Result]:
    """The result of each part, in the order of the parts.

    An error that `work` raises is raised here, when its part's turn comes. Ctrl-C is answered here
    and ends the workers in the middle of their parts, so `work` writes files whole or not at all.

    Args:
        work: Makes a result of a part. Workers are forked and have it from this process, so it may
            be large.
        parts: What to work on; taken only a few parts ahead of the results.
        num_workers: Processes; with 1 the work is done in this one.
        what: Whose work it is, for the message.

    Raises:
        WorkError: A worker died.
    """
    if num_workers == 1:
        yield from map(work, parts)
        return
    # Forked, so that nothing is imported again and relative paths stay as they are; this process
    # has no other threads.
    fork = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(num_workers, fork, _begin, (work, os.getpid()))
    waiting: deque[Future[Result]] = deque()
    try:
        for part in parts:
            waiting.append(pool.submit(_do, part))
            if len(waiting) > _AHEAD * num_workers:
                yield _result(waiting.popleft(), pool)
        while waiting:
            yield _result(waiting.popleft(), pool)
    except BrokenProcessPool as error:
        raise WorkError(
            f"{what}: a worker process was killed, maybe for want of memory; "
            "the same command goes on (--workers 1 takes the least)"
        ) from error
    except BaseException:
        # Not left to end by themselves: a second Ctrl-C while they are waited for would make the
        # pool lose its message to them, and all would wait for ever.
        _kill(pool)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _result(future: Future[Result], pool: ProcessPoolExecutor) -> Result:
    """Wait for a result, but not for a worker that died while it sent one.

    Then the pool would read the rest of the result for ever: it has that pipe's other end open.
    """
    while not wait([future], _LOOK_S).done:
        if not all(worker.is_alive() for worker in list((pool._processes or {}).values())):
            _kill(pool)
            pool._result_queue._writer.close()  # type: ignore[attr-defined]
            break
    return future.result()


def _kill(pool: ProcessPoolExecutor) -> None:
    for worker in list((pool._processes or {}).values()):
        worker.kill()


_work: Callable[[Any], Any] | None = None
"""In a worker: what it does with each part; too large to be sent with each."""


def _begin(work: Callable[[Any], Any], parent: int) -> None:
    """In a new worker: Ctrl-C is for the parent to answer, whose death ends the worker."""
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has died meanwhile, and no signal will come
        os._exit(1)


def _do(part: Any) -> Any:
    assert _work is not None
    return _work(part)
