"""The driver as a process: signals, the console, and where everything else that is printed goes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from conf.errors import INTERRUPTED, mask
from sweeps.output import Lasting, descriptors_to, lasting_file

_LOG = logging.getLogger(__name__)
_ENDING = (signal.SIGINT, signal.SIGTERM)
_ORDERLY_S = 13.0
_AT_ONCE_S = 4.5
"""Longer than the sweep's processes are given to die (`sweeps.execute.orphans`)."""


class Signals:
    """The first SIGINT or SIGTERM ends the sweep in order; a second one ends it at once.

    An orderly end that takes too long (a store that hangs, a machine that swaps) ends at once, too:
    nothing is lost by it, the same command goes on either way.
    """

    def __init__(self) -> None:
        self.exit_code = INTERRUPTED
        self.at_once: Callable[[], None] = lambda: None
        """Called before an end at once."""
        self._ending: int | None = None
        self._terminated = False
        self._before: dict[int, Any] = {}
        self._deadline: threading.Timer | None = None

    def __enter__(self) -> Signals:
        self._before = {number: signal.getsignal(number) for number in _ENDING}
        for number in _ENDING:
            signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def end(self, number: int) -> None:
        """End this process because of a signal, from any thread, while there is nothing to save."""
        self.exit_code = 128 + number
        self._end()

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._ending is None:
            self._ending = number
            self.exit_code = 128 + number
            self._deadline = threading.Timer(_ORDERLY_S, self._end)
            self._deadline.daemon = True
            self._deadline.start()
            _LOG.warning("stopping on signal %d", number)
            # What is under way is on record or will be done again, so it may be cut off anywhere.
            raise KeyboardInterrupt
        # After Ctrl-C `mlflow run` sends SIGTERM to its child: the same wish, not a second one.
        if number == signal.SIGINT or self._ending == signal.SIGTERM or self._terminated:
            self._end()
        self._terminated = True

    def _end(self) -> None:
        late = threading.Timer(_AT_ONCE_S, os._exit, [self.exit_code])
        late.daemon = True
        late.start()  # a console that hangs must not hold this up
        try:
            self.at_once()
        finally:
            os._exit(self.exit_code)


@contextmanager
def own_console() -> Iterator[Console]:
    """A console that stays where standard output is now, whatever becomes of that."""
    sys.stdout.flush()
    # Unbuffered underneath: closing tries nothing again that a console did not take when it went.
    with Lasting(os.fdopen(os.dup(1), "wb", 0), encoding="utf-8", write_through=True) as file:
        # Into a file or a pipe there is no width to respect: the whole table.
        yield Console(file=file, width=None if file.isatty() else 200)


class _Masked(logging.Formatter):
    """MLflow's errors name the store's URI as it was given."""

    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


@contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Send log messages, warnings and whatever else is printed to a file, Ray's prints as well."""
    with lasting_file(path) as log:
        handler = logging.StreamHandler(log)
        handler.setFormatter(_Masked("%(asctime)s %(name)s %(message)s"))
        root = logging.getLogger()
        root.addHandler(handler)
        logging.captureWarnings(True)
        try:
            with descriptors_to(log.fileno()):
                yield
        finally:
            logging.captureWarnings(False)
            root.removeHandler(handler)
