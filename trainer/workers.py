"""How a worker process begins, so that none is left over and Ctrl-C is answered once."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def begin(parent: int | None = None) -> None:
    """In a new worker: Ctrl-C is for the parent to answer, whose death ends the worker.

    Args:
        parent: The parent's process id, where it is known; it may have died meanwhile.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)
