"""A thread that writes a fine-tune's files while training goes on.

with Writer() as writer:
    written = writer.write(lambda: folder.write(checkpoint, weights))
    writer.write(lambda: points.save(step, state))   # after the one before it
    writer.look()    # raises what writing ran into, if that is known by now
    writer.wait()    # until all of it is on disk; raises likewise
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

_LOG = logging.getLogger(__name__)


class Writer:
    """Does one thing after the other; leaving its block waits for what is under way.

    After an error nothing more is done: a file that names another is never there without it.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._under_way: deque[Future[None]] = deque()
        self._failed = False

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            if failure is not error:  # what ended the block is what is told of it
                _LOG.warning("%s", failure)
        finally:
            self._thread.shutdown()

    def write(self, job: Callable[[], None]) -> Future[None]:
        """Begin a job once all that is under way is done."""
        self._under_way.append(self._thread.submit(self._do, job))
        return self._under_way[-1]

    def look(self) -> None:
        """Raise what went wrong, without waiting."""
        while self._under_way and self._under_way[0].done():
            self._under_way.popleft().result()

    def wait(self) -> None:
        """Wait until nothing is under way, and raise what went wrong."""
        while self._under_way:
            self._under_way.popleft().result()

    def _do(self, job: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            job()
        except BaseException:
            self._failed = True
            raise
