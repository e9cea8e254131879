"""How far a pass is: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from conf.document.numbers import roughly

_EVERY_S = 10.0


class Progress:
    """Tells how far a pass is.

    Args:
        quiet: Say nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    @contextlib.contextmanager
    def of(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A pass over about ``total`` lines; what it yields takes how many more are done."""
        if self._quiet:
            yield lambda _: None
        elif sys.stderr.isatty():
            with _bar(what, total) as advance:
                yield advance
        else:
            yield _Lines(what, total).advance


class _Lines:
    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._started_s = self._said_s = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        now_s = time.monotonic()
        if now_s - self._said_s < _EVERY_S:
            return
        self._said_s = now_s
        per_s = self._done / (now_s - self._started_s)
        left_s = max(0, self._total - self._done) / per_s
        said = f"{self._what}: {self._done:,} of about {self._total:,} lines, {per_s:,.0f} a second"
        print(f"{said}, {roughly(left_s)} left", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import Progress as Bar

    # Without a thread that draws: processes are forked meanwhile.
    with Bar(console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task(what, total=total)

        def advance(count: int) -> None:
            bar.advance(task, count)
            bar.refresh()

        yield advance
