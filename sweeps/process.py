"""The driver as a process: signals, the console, and where everything else that is printed goes."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from conf.errors import INTERRUPTED

_LOG = logging.getLogger(__name__)
_ENDING = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """The first SIGINT or SIGTERM ends the sweep in order; a second SIGINT ends it at once."""

    def __init__(self) -> None:
        self.exit_code = INTERRUPTED
        self._ending = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        self._before = {number: signal.getsignal(number) for number in _ENDING}
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def take(self) -> None:
        """Handle the signals; again after Ray's start, which puts its own handlers in place."""
        for number in _ENDING:
            signal.signal(number, self._handle)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if not self._ending:
            self._ending = True
            _LOG.warning("stopping on signal %d", number)
            self.exit_code = 128 + number
            # What is under way is on record or will be done again, so it may be cut off anywhere.
            raise KeyboardInterrupt
        # After Ctrl-C `mlflow run` sends SIGTERM to its child: the same wish, not a second one.
        if number == signal.SIGINT:
            os._exit(128 + number)


class _Lasting(io.TextIOWrapper):
    """A console that may go away (a closed terminal, a pipe into `head`): the sweep goes on."""

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
def own_console() -> Iterator[Console]:
    """A console that stays where standard output is now, whatever becomes of that."""
    sys.stdout.flush()
    with _Lasting(os.fdopen(os.dup(1), "wb"), encoding="utf-8", line_buffering=True) as file:
        # Into a file or a pipe there is no width to respect: the whole table.
        yield Console(file=file, width=None if file.isatty() else 200)


@contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Send log messages, warnings and whatever else is printed to a file.

    Ray prints for its processes and from threads of its own, so the file descriptors themselves are
    turned, not only `sys.stdout` and `sys.stderr`.
    """
    with path.open("a", encoding="utf-8") as log:
        handler = logging.StreamHandler(log)
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
        root = logging.getLogger()
        root.addHandler(handler)
        logging.captureWarnings(True)
        _flush()
        kept = {number: os.dup(number) for number in (1, 2)}
        for number in kept:
            os.dup2(log.fileno(), number)
        try:
            yield
        finally:
            _flush()
            for number, original in kept.items():
                os.dup2(original, number)
                os.close(original)
            logging.captureWarnings(False)
            root.removeHandler(handler)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
