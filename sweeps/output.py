"""Where prints go: files that may fill up, consoles that may go away, descriptors turned to a file.

Libraries in C, Ray's threads and a dying interpreter write past `sys.stdout`, so it is the file
descriptors themselves that are turned.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Lasting(io.TextIOWrapper):
    """A text file that never fails: a closed terminal or a full disk must not end the work."""

    def write(self, text: str) -> int:
        """Write, or not."""
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or not."""
        with contextlib.suppress(OSError):
            super().flush()


@contextmanager
def lasting_file(path: Path) -> Iterator[Lasting]:
    """Open a log for appending, line by line."""
    # Unbuffered underneath: what cannot be written is dropped, not tried again at closing.
    with Lasting(path.open("ab", buffering=0), encoding="utf-8", write_through=True) as file:
        yield file


@contextmanager
def descriptors_to(number: int) -> Iterator[None]:
    """Turn standard output and standard error of this process to a file descriptor."""
    _flush()
    kept = {ours: os.dup(ours) for ours in (1, 2)}
    for ours in kept:
        os.dup2(number, ours)
    try:
        yield
    finally:
        _flush()
        for ours, original in kept.items():
            os.dup2(original, ours)
            os.close(original)


def tail(path: Path, lines: int, *, max_bytes: int = 65_536) -> list[str]:
    """The last lines of a text file, however long it is; none if it is not there."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - max_bytes))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return text.splitlines()[-lines:]


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
