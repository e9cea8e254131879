"""Workers that died: how often a trial may be tried again, and what it is said to have died of.

A death is noted in the trial's directory, so that it counts through any number of drivers. One that
comes of the death of the driver, or of Ray, is nobody's fault and is not counted.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

MAX_DEATHS = 3
"""Of one trial; with the last of them it has failed."""
_DEATHS = "deaths.jsonl"
_COUNTER = Path("/proc/vmstat")


def note_death(directory: Path, reason: str) -> int:
    """Note that a trial's worker died; returns how often that has happened."""
    line = json.dumps({"timestamp_ms": time.time_ns() // 1_000_000, "reason": reason})
    with (directory / _DEATHS).open("ab") as file:
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return len(deaths(directory))


def deaths(directory: Path) -> list[str]:
    """The reason of every death of a trial's workers."""
    path = directory / _DEATHS
    if not path.exists():
        return []
    return [json.loads(line)["reason"] for line in path.read_bytes().split(b"\n")[:-1] if line]


def final_reason(reason: str, count: int) -> str:
    """Why a trial has failed whose workers died too often."""
    return f"{reason} ({count} times); see failure.log"


def oom_kills() -> int:
    """How many processes the system has killed for want of memory since it started."""
    try:
        lines = _COUNTER.read_text().splitlines()
    except OSError:
        return 0
    counts = dict(line.split(maxsplit=1) for line in lines if " " in line)
    return int(counts.get("oom_kill", 0))


def death_reason(error: str, oom_kills_before: int, oom_kills_now: int) -> str:
    """Say what a worker died of, from what Ray says and what the system counts.

    Args:
        error: Ray's own words.
        oom_kills_before: `oom_kills` when the trial was started.
        oom_kills_now: The same after the death.
    """
    if oom_kills_now > oom_kills_before:
        return "out of memory: the system killed the worker's process"
    if "low on memory" in error or "OutOfMemory" in error or "OUT_OF_MEMORY" in error:
        return "out of memory: Ray ended the worker's process before the system would"
    return "the worker's process died"


class Watch:
    """Finds trials that have not shown a sign of life for too long.

    Args:
        limit_s: How long a trial may be silent.
        clock: Seconds of a clock that never goes back.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._last: dict[int, tuple[object, float]] = {}

    def silent(self, signs: Mapping[int, object]) -> list[int]:
        """Name the trials whose sign has been the same for too long; they get a new term.

        Args:
            signs: For each trial under way anything that changes as it goes on.
        """
        now = self._clock()
        self._last = {number: last for number, last in self._last.items() if number in signs}
        found = []
        for number, sign in signs.items():
            known, since = self._last.get(number, (None, now))
            if number not in self._last or known != sign:
                self._last[number] = sign, now
            elif now - since > self._limit_s:
                found.append(number)
                self._last[number] = sign, now
        return found
