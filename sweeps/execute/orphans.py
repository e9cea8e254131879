"""Processes that a sweep started, found again and ended.

A driver that is killed cannot clean up. Ray's servers die with it, but their helpers outlive it by
a minute, and a worker that hangs or the base's evaluation by as long as they like. Everything a
driver starts inherits a mark in its environment; Ray's helpers overwrite theirs with a title, but
hold a log of Ray's session open. So whoever has the sweep's lock next finds and ends them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path

MARK = "TELESWEEP_SWEEP"
"""The variable: the sweep's directory."""
SESSION = "ray.session"
"""File in the sweep's directory: where Ray's session keeps its logs."""
_PROC = Path("/proc")
_LOOK_S = 0.02
_DEATH_S = 3.0
"""A killed process that is still there waits for a disk or a driver, and may for ever."""
_TITLE = b"ray::"


def end_marked(root: Path) -> int:
    """Kill what is left of a sweep's processes, until none is there; returns how many there were.

    One look is not enough: a process that dies may start another one meanwhile, and takes its time
    to die where the machine is busy. Where there is no /proc (macOS) none are found, and what is
    left over ends by itself.
    """
    ended = set[int]()
    end = time.monotonic() + _DEATH_S
    while (left := marked(root)) and time.monotonic() < end:
        for number in left:
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGKILL)
                ended.add(number)
        time.sleep(_LOOK_S)
    return len(ended)


def marked(root: Path) -> list[int]:
    """Ids of the running processes that belong to a sweep; this one is never among them."""
    mark = f"{MARK}={root}".encode()
    try:
        session = (root / SESSION).read_text(encoding="utf-8").strip()
    except OSError:
        session = ""
    found = []
    for place in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # of another user, or gone
            ours = mark in (place / "environ").read_bytes().split(b"\0")
            if (ours or _is_of_session(place, session)) and int(place.name) != os.getpid():
                found.append(int(place.name))
    return found


def children(names: Collection[str], *, dead: bool = False) -> dict[int, str]:
    """Processes with some names that this one has started and that are alive, by id.

    With `dead` those that are not, as long as nobody has asked how they ended. Where there is no
    /proc (macOS) none are found.
    """
    found = {}
    for place in _PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            head, _, tail = place.read_text(encoding="utf-8", errors="replace").rpartition(")")
            name, (state, parent) = head.partition("(")[2], tail.split()[:2]
            if name in names and (state == "Z") == dead and int(parent) == os.getpid():
                found[int(place.parent.name)] = name
    return found


def _is_of_session(place: Path, session: str) -> bool:
    if not session or not (place / "cmdline").read_bytes().startswith(_TITLE):
        return False
    return any(os.readlink(link).startswith(session) for link in (place / "fd").iterdir())
