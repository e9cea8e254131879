"""A thread that works beside a block of code, and ends with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def in_thread(name: str, work: Callable[[], None], over: threading.Event) -> Iterator[None]:
    """Run a function in a thread until the block ends, which the event tells it.

    Args:
        name: Of the thread.
        work: Returns soon after the event is set.
        over: Is set at the end of the block, whichever way it ends.
    """
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
