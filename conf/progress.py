"""How far work is, on standard error: a bar on a terminal, else a line now and then.

    with Progress().of("evaluate valid", len(utterances), "utterances") as advance:
        for batch in batches:
            ...
            advance(len(batch))
    with Progress().step("writing my-model"):
        ...

What takes less than five seconds says nothing in a log.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from conf.document.numbers import roughly, size
from conf.threads import in_thread

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from conf.load import Config

_FIRST_S = 5.0
"""When a log hears first of what is not yet done; then after as long again, and so on."""
_MOST_S = 60.0
"""The longest that a log then hears nothing."""
_TICK_S = 0.25
"""How often a bar is drawn where work itself does not get to it."""


def say(line: str, stream: TextIO | None = None) -> None:
    """Say a line at once, above the bars if there are any."""
    print(line, file=stream or sys.stderr, flush=True)


def sized(path: Path) -> str:
    """A file and how large it is: `model/model.pt, 2.13 GB`."""
    return f"{path}, {size(path.stat().st_size, digits=2)}" if path.is_file() else str(path)


def say_loading(config: Config) -> None:
    """Say which weights are about to be loaded, and how large they are.

    Before torch is imported, since that alone takes seconds. What is not there is left to the
    loading itself.
    """
    if config.weights is None:
        return
    paths = [config.weights]
    if config.weights.suffix == ".safetensors" and config.model_dir is not None:
        paths.append(config.model_dir / "model.pt")  # which holds what no stage trained
    for path in paths:
        if path.is_file():
            say(f"loading {sized(path)}")


class ErrorStream(logging.Handler):
    """Write records to what `sys.stderr` is now: a bar replaces it, so that lines go above it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        say(self.format(record))


class Progress:
    """Tells how far work is.

    Args:
        quiet: Say nothing.
        forks: Processes are forked meanwhile, so no thread may hold a lock: only what advances
            is told, and what takes long in between is not.
    """

    def __init__(self, *, quiet: bool = False, forks: bool = False) -> None:
        self._quiet = quiet
        self._forks = forks

    @contextlib.contextmanager
    def of(
        self, what: str, total: int, unit: str = "lines", *, about: bool = False
    ) -> Iterator[Callable[[int], None]]:
        """Work on a number of things; what it yields takes how many more are done.

        Args:
            what: The work.
            total: How many there are.
            unit: What they are.
            about: The total is an estimate.
        """
        of_about = "of about" if about else "of"
        started_s = time.monotonic()

        def describe(done: int, elapsed_s: float) -> str:
            said = f"{what}: {done:,} {of_about} {total:,} {unit}"
            if not done:
                return f"{said}, {roughly(elapsed_s)} so far"
            per_s = done / elapsed_s
            speed = f", {per_s:,.0f} a second" if per_s >= 1 else ""
            return f"{said}{speed}, {roughly(max(0, total - done) / per_s)} left"

        if self._quiet:
            yield lambda _: None
            return
        lines = _Lines(describe, started_s)
        with _shown(what, total, lines, ticks=not self._forks) as advance:
            yield advance

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Work whose length is not known."""
        lines = _Lines(
            lambda _, elapsed_s: f"{what}: {roughly(elapsed_s)} so far", time.monotonic()
        )
        if self._quiet:
            yield
            return
        with _shown(what, None, lines, ticks=not self._forks):
            yield


class _Lines:
    """The lines of a log: few at the beginning, fewer later."""

    def __init__(
        self,
        describe: Callable[[int, float], str],
        started_s: float,
    ) -> None:
        self._describe, self._started_s, self._done = describe, started_s, 0
        self._next_s = started_s + _FIRST_S
        # Whoever silences a library on the way puts something else in its place.
        self._stream = sys.stderr

    def advance(self, count: int) -> None:
        self._done += count
        now_s = time.monotonic()
        if now_s >= self._next_s:
            elapsed_s = now_s - self._started_s
            self._next_s = now_s + min(max(elapsed_s, _FIRST_S), _MOST_S)
            say(self._describe(self._done, elapsed_s), self._stream)


@contextlib.contextmanager
def _shown(
    what: str, total: int | None, lines: _Lines, *, ticks: bool
) -> Iterator[Callable[[int], None]]:
    """Show work as a bar or as lines, from a thread too where work may not advance for long."""
    lock = threading.Lock()
    with contextlib.ExitStack() as stack:
        draw = stack.enter_context(_bar(what, total)) if sys.stderr.isatty() else lines.advance

        def advance(count: int) -> None:
            with lock:
                draw(count)

        if ticks:
            stack.enter_context(_ticking(lambda: advance(0)))
        yield advance


@contextlib.contextmanager
def _ticking(tick: Callable[[], None]) -> Iterator[None]:
    over = threading.Event()

    def run() -> None:
        while not over.wait(_TICK_S):
            tick()

    with in_thread("progress", run, over):
        yield


_bars: list[Bar] = []
"""What is on the terminal now: work within work gets a line there."""


@contextlib.contextmanager
def _bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TimeElapsedColumn

    with contextlib.ExitStack() as stack:
        if not _bars:
            # Drawn by us alone: a thread of rich's would hold locks while processes are forked.
            # Standard output may be a file, and stays where it goes.
            bar = Bar(
                *Bar.get_default_columns(),
                TimeElapsedColumn(),
                console=Console(file=sys.stderr),
                transient=True,
                auto_refresh=False,
                redirect_stdout=False,
            )
            _bars.append(stack.enter_context(bar))
            stack.callback(_bars.clear)
        bar = _bars[0]
        task = bar.add_task(what, total=total)
        stack.callback(bar.remove_task, task)

        def advance(count: int) -> None:
            bar.advance(task, count)
            bar.refresh()

        yield advance
