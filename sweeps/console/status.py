"""How sweeps stand, from another terminal: `python -m sweeps status NAME`, `list` and `stop`.

Only the sweep's directory and its study are read, so the answer is there in a moment, whether a
driver runs the sweep or not. No Ray, no MLflow, no torch.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from conf.document import numbers
from conf.errors import UserError, WorkError
from conf.files import Holder
from sweeps.console.view import PlainView, Progress, fitted, make_view, say, summary
from sweeps.directory import SWEEPS, SweepDirectory
from sweeps.search import study as record
from sweeps.search.remaining import is_finished
from sweeps.spec.sweep_file import SweepFile, load_sweep

_LOOK_S = 2.0
_STOP_S = 25.0


@dataclass(frozen=True)
class Standing:
    """A sweep as its directory shows it."""

    sweep: SweepFile
    directory: SweepDirectory
    progress: Progress
    holder: Holder | None
    finished: bool

    @property
    def says(self) -> str:
        """Whether it runs, and what to do if it does not."""
        if self.holder is not None:
            return f"run by {describe_holder(self.holder)}"
        if self.finished:
            return "finished"
        return "interrupted: the command that started it goes on"


def read_standing(name: str) -> Standing:
    """Read a sweep's directory.

    Raises:
        UserError: There is no such sweep here; names those there are.
    """
    directory = _directory(name)
    sweep, _ = load_sweep(directory.sweep_yaml)
    holder = directory.holder()
    study = record.load_study(directory.study, sweep.name) if directory.study.exists() else None
    trials = () if study is None else study.get_trials(deepcopy=False)
    states = record.states_of(trials)
    if holder is None:  # what nobody runs is not running, whatever the study says
        states = tuple(
            replace(s, outcome="killed") if s.outcome == "running" else s for s in states
        )
    seconds = [float(trial.user_attrs.get(record.SECONDS, 0.0)) for trial in trials]
    progress = Progress(
        trials=sweep.trials,
        concurrency=sweep.concurrency,
        objective=sweep.objective,
        base=directory.base_metrics().get(sweep.objective),
        states=states,
        trial_hours=sum(seconds) / 3600,
        gpus=sweep.resources.gpu,
        repeats=sweep.most_repeats,
    )
    return Standing(sweep, directory, progress, holder, is_finished(directory, sweep))


def status(name: str, *, watch: bool = False, console: Console | None = None) -> int:
    """Print how a sweep stands; with `watch` again and again, until nobody runs it."""
    console = console or _console()
    directory = _directory(name)
    if (starter := directory.starter()) is not None:
        say(console, f"{name}: {_starting(starter)}")
        if not watch:
            return 0
        while directory.starter() is not None:
            time.sleep(_LOOK_S)
    standing = read_standing(name)
    if watch:
        with make_view(console) as view, contextlib.suppress(KeyboardInterrupt):
            while standing.holder is not None:
                if not isinstance(view, PlainView):
                    view.say(standing.says)
                view.update(standing.progress)
                time.sleep(_LOOK_S)
                standing = read_standing(name)
        if isinstance(view, PlainView):
            view.update(standing.progress)
            return 0
    say(console, f"{name}: {standing.says}")
    if standing.progress.states:
        console.print(fitted(standing.progress, console))
    for state in standing.progress.states:
        if state.outcome == "failed":
            say(console, f"trial {state.number} failed: {state.reason}")
    say(console, summary(standing.progress))
    return 0


def list_sweeps(console: Console | None = None) -> int:
    """Print a line for each sweep of the working directory, the latest last."""
    console = console or _console()
    names = sorted(_names(), key=_began)
    if not names:
        say(console, f"no sweep in {SWEEPS}")
        return 0
    drawn = Table("sweep", "trials", "best", "state", box=None, pad_edge=False)
    for name in names:
        if (starter := SweepDirectory.of(name).starter()) is not None:
            drawn.add_row(name, "", "", _starting(starter))
            continue
        try:
            standing = read_standing(name)
        except UserError as error:
            drawn.add_row(name, "", "", str(error.problems[0]))
            continue
        best = standing.progress.best
        metric = standing.progress.objective
        value = "" if best is None else numbers.measured(metric, best.objective, 1)
        ended = f"{standing.progress.ended}/{max(standing.sweep.trials, standing.progress.ended)}"
        drawn.add_row(name, ended, value, standing.says)
    console.print(drawn)
    return 0


def stop(name: str, console: Console | None = None) -> int:
    """End a running sweep in order and wait for it; asked again, it ends at once.

    Raises:
        UserError: There is no such sweep, or it runs on another machine.
        WorkError: It does not end.
    """
    console = console or _console()
    directory = _directory(name)
    holder = directory.holder()
    if holder is None:
        say(console, f"{name}: nobody runs it")
        return 0
    if not holder.is_here or holder.pid is None:
        raise UserError(
            f"{name}: run by {describe_holder(holder)}, expected a process of this machine; stop "
            "it there"
        )
    began = time.monotonic()
    try:
        os.kill(holder.pid, signal.SIGTERM)
    except PermissionError as error:
        raise UserError(f"{name}: run by {describe_holder(holder)}, who is not you") from error
    except ProcessLookupError:
        pass
    for _ in _every(0.1, _STOP_S):
        if directory.holder() is None:
            took = numbers.clock(time.monotonic() - began)
            say(console, f"{name}: stopped after {took}; the command that started it goes on")
            return 0
    raise WorkError(
        f"{name}: got no end from {describe_holder(holder)} in {_STOP_S:g} s, expected one; the "
        "same command again ends it at once"
    )


def describe_holder(holder: Holder) -> str:
    """Name a process that runs a sweep."""
    if holder.pid is None:
        return "another process"
    where = "" if holder.is_here else f" on {holder.host}"
    return f"pid {holder.pid}{where} since {holder.since}"


def _starting(holder: Holder) -> str:
    return f"run by {describe_holder(holder)}: starting"


def _every(pause_s: float, long_s: float) -> Iterator[None]:
    end = time.monotonic() + long_s
    while time.monotonic() < end:
        yield
        time.sleep(pause_s)


def _names() -> list[str]:
    directories = (SweepDirectory(path) for path in sorted((Path.cwd() / SWEEPS).glob("*")))
    return [d.root.name for d in directories if d.sweep_yaml.exists() or d.starter() is not None]


def _began(name: str) -> float:
    directory = SweepDirectory.of(name)
    try:
        return directory.sweep_yaml.stat().st_mtime
    except FileNotFoundError:  # it starts
        return math.inf


def _directory(name: str) -> SweepDirectory:
    names = _names()
    if name not in names:
        known = ", ".join(names) or "none"
        raise UserError(f"NAME: got {name!r}, expected a sweep in {SWEEPS} ({known})")
    return SweepDirectory.of(name)


def _console() -> Console:
    console = Console()
    # Into a file or a pipe there is no width to respect: the whole table.
    return console if console.is_terminal else Console(width=200)
