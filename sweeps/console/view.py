"""What the console shows while a sweep runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from conf.document import numbers
from conf.writing import format_value
from sweeps.trial_state import ANSWERED_FROM, FINAL, WENT_ON_AFTER, WENT_ON_FROM, TrialState
from trainer.tracking.event_log import now_ms

_STYLE = {"completed": "green", "pruned": "yellow", "failed": "red", "killed": "magenta"}
_BLOCKS = " ▁▂▃▄▅▆▇█"
_ROWS = 18
_RATES = ("valid/cer", "valid/cer_ctc")  # fractions, shown in percent
_SHORT = {"optim_conf.lr": "lr", "optim_conf.weight_decay": "weight decay"}
_BASE, _CURVE = "to base", "curve"
_WIDE = 1000
_LESS = ("weight decay", _BASE, _CURVE)  # what a narrow terminal does without, in this order


@dataclass(frozen=True)
class Progress:
    """A sweep at a moment; rates are fractions, times seconds."""

    trials: int
    concurrency: int
    objective: str
    base: float | None
    states: tuple[TrialState, ...]
    trial_hours: float = 0.0
    """Of all trials together, over all starts."""
    gpus: float = 0.0
    """Of each trial."""
    repeats: int = 0
    """Trials that come after those of the search, at most."""
    note: str = ""
    """What else has to be known, such as a disk that gets full."""

    @property
    def ended(self) -> int:
        """Trials that are over."""
        return sum(state.outcome in FINAL for state in self.states)

    @property
    def best(self) -> TrialState | None:
        """The completed trial with the lowest objective."""
        done = [s for s in self.states if s.outcome == "completed" and s.objective is not None]
        return min(done, key=lambda s: (s.objective or 0.0, s.number), default=None)

    def seconds_left(self, now_ms: int) -> float | None:
        """Estimate the time to the end from the mean time of a trial; None before there is one.

        A trial's time is all of it: start, training, evaluations, waiting for the base's texts.
        Running trials count with what they have left of the mean, so the estimate falls steadily.
        """
        took = [
            (s.ended_ms - s.started_ms) / 1000
            for s in self.states
            if s.outcome in FINAL and s.ended_ms is not None and s.started_ms
        ]
        if not took:
            return None
        mean = sum(took) / len(took)
        running = [s for s in self.states if s.outcome == "running"]
        spent = sum(min(mean, (now_ms - s.started_ms) / 1000) for s in running)
        to_come = self.trials + self.repeats - self.ended
        return max(0.0, (to_come * mean - spent) / max(1, min(self.concurrency, to_come)))


class View(Protocol):
    """Anything that shows a sweep's progress."""

    def say(self, line: str) -> None:
        """Show a line that stays."""

    def update(self, progress: Progress) -> None:
        """Show how things are now."""

    def __enter__(self) -> View: ...

    def __exit__(self, *_: object) -> None: ...


def say(console: Console, line: str) -> None:
    """Print a line as it is, however wide it gets."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def make_view(console: Console) -> View:
    """A live view on a terminal, else plain lines."""
    return LiveView(console) if console.is_terminal else PlainView(console)


class PlainView:
    """A line for each trial that starts or ends; nothing moves."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._known: dict[int, str] = {}

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, line: str) -> None:
        """Print a line."""
        say(self._console, line)

    def update(self, progress: Progress) -> None:
        """Print a line for each trial whose state is new."""
        first = not self._known and progress.ended  # a resumed sweep: say how far it is, not all
        for state in progress.states:
            if self._known.get(state.number) == state.outcome:
                continue
            self._known[state.number] = state.outcome
            if not (first and state.outcome in FINAL):
                self.say(describe(state, progress))
        if first:
            self.say(summary(progress))


class LiveView:
    """A table that is drawn again with every change, and every second for the times in it."""

    def __init__(self, console: Console) -> None:
        self._progress: Progress | None = None
        self._status = ""
        self._began = time.monotonic()
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=2, transient=True
        )

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """Show a line under the table until the next one."""
        self._status = line

    def update(self, progress: Progress) -> None:
        """Draw the table anew."""
        self._progress = progress
        self._live.refresh()

    def _render(self) -> RenderableType:
        seconds = time.monotonic() - self._began
        parts: list[RenderableType] = []
        if self._progress is not None and self._progress.states:
            parts.append(fitted(self._progress, self._live.console))
            parts.append(Text(summary(self._progress)))
        parts.append(Text(f"{numbers.clock(seconds)}  {self._status}", style="dim"))
        return Group(*parts)


def fitted(progress: Progress, console: Console) -> Table:
    """Draw the trials with the columns that a console has room for."""
    free = console.options.update(width=_WIDE)
    for leave_out in range(len(_LESS)):
        drawn = table(progress, leave_out=_LESS[:leave_out])
        if console.measure(drawn, options=free).maximum <= console.width:
            return drawn
    return table(progress, leave_out=_LESS)


def table(progress: Progress, *, leave_out: Collection[str] = ()) -> Table:
    """Draw the trials: the running ones, the best, and the latest."""
    keys = [
        key
        for key in _SHORT
        if _SHORT[key] not in leave_out and any(key in s.values for s in progress.states)
    ]
    rate = progress.objective in _RATES
    base = None if _BASE in leave_out else progress.base
    curves = _CURVE not in leave_out
    objective = f"{progress.objective} %" if rate else progress.objective
    names = ["trial", "stage", *(_SHORT[key] for key in keys), "epoch", objective]
    names += [*([_BASE] if base else []), *([_CURVE] if curves else []), "state"]
    drawn = Table(box=None, pad_edge=False)
    for name in names:
        of_text = name in ("stage", _CURVE, "state")
        drawn.add_column(name, justify="left" if of_text else "right", no_wrap=True)
    best = progress.best
    for state in chosen(progress.states):
        value = state.best if state.best is not None else state.curve.get(0)
        drawn.add_row(
            str(state.number),
            state.stage + (" default" if state.baseline else ""),
            *(short_number(state.values.get(key)) for key in keys),
            f"{state.epoch or 0}/{state.epochs}",
            "" if value is None else (numbers.percent(value) if rate else short_number(value)),
            *([to_base(value, base)] if base else []),
            *([sparkline(state.curve)] if curves else []),
            Text(
                "best" if state is best else _standing(state),
                style="bold green" if state is best else _STYLE.get(state.outcome, ""),
            ),
        )
    return drawn


def chosen(states: Sequence[TrialState], rows: int = _ROWS) -> list[TrialState]:
    """Pick at most so many trials: running ones, then the best, by number."""

    def rank(state: TrialState) -> tuple[bool, float, int]:
        value = state.best
        return state.outcome != "running", 9.9 if value is None else value, -state.number

    return sorted(sorted(states, key=rank)[:rows], key=lambda state: state.number)


def describe(state: TrialState, progress: Progress) -> str:
    """Say in one line what a trial is, or how it ended."""
    values = ", ".join(
        f"{_SHORT.get(key, key.rpartition('.')[2])} {short_number(value)}"
        for key, value in state.values.items()
    )
    head = f"trial {state.number} {state.stage}{' default' if state.baseline else ''} ({values})"
    if state.outcome == "running":
        return f"{head}: started{_origin(state)}"
    found = ""
    if state.best is not None:
        found = f", {progress.objective} {numbers.measured(progress.objective, state.best, 1)}"
        if progress.base is not None:
            found += f" (base {numbers.measured(progress.objective, progress.base, 1)})"
    why = f", {state.reason}" if state.reason else _origin(state)
    return f"{head}: {state.outcome}{found}{why}; {summary(progress)}"


def _origin(state: TrialState) -> str:
    """Say which trial was trained in place of this one, or of its first epochs."""
    if WENT_ON_FROM in state.notes:
        epochs = state.notes.get(WENT_ON_AFTER)
        return f", from trial {state.notes[WENT_ON_FROM]} after {epochs} epochs"
    answered = state.notes.get(ANSWERED_FROM)
    return f", answered from trial {answered}" if answered else ""


def summary(progress: Progress) -> str:
    """Say how far the sweep is, what is best so far and how long it may still take."""
    counts: Counter[str] = Counter(state.outcome for state in progress.states)
    parts = [f"{progress.ended}/{progress.trials} trials"]
    others = ("pruned", "failed", "killed", "running")
    parts += [f"{counts[name]} {name}" for name in others if counts[name]]
    best = progress.best
    if best is not None and best.objective is not None:
        base = (
            f", base {numbers.measured(progress.objective, progress.base, 1)}"
            if progress.base is not None
            else ""
        )
        parts.append(
            f"best {numbers.measured(progress.objective, best.objective, 1)} "
            f"(trial {best.number}, {best.stage}{base})"
        )
    if said := cost(progress):
        parts.append(said)
    left = progress.seconds_left(now_ms())
    more = progress.ended < progress.trials + progress.repeats
    if left is not None and more and counts["running"]:
        parts.append(f"about {numbers.clock(left)} left if trials take their mean so far")
    if progress.note:
        parts.append(progress.note)
    return " · ".join(parts)


def _standing(state: TrialState) -> str:
    return "loading" if state.outcome == "running" and state.epoch is None else state.outcome


def cost(progress: Progress) -> str:
    """Say what all trials have taken so far; empty while that is nothing."""
    if not progress.trial_hours:
        return ""
    said = f"cost {numbers.roughly(3600 * progress.trial_hours)} of trials"
    if progress.gpus:
        said += f", {numbers.roughly(3600 * progress.trial_hours * progress.gpus)} of GPUs"
    return said


def to_base(value: float | None, base: float) -> str:
    """Write a value's relative change against the base's.

    Example:
        >>> to_base(0.3, 0.4), to_base(None, 0.4)
        ('-25 %', '')
    """
    return "" if value is None else numbers.change(value / base, 0)


def sparkline(curve: Mapping[int, float]) -> str:
    """Draw a curve of CERs as blocks, full height for the value before training.

    Example:
        >>> sparkline({0: 0.8, 1: 0.4, 2: 0.1})
        '█▄▁'
    """
    if not curve:
        return ""
    top = max(curve.values()) or 1.0
    heights = (max(1, round(8 * curve[epoch] / top)) for epoch in sorted(curve))
    return "".join(_BLOCKS[height] for height in heights)


def short_number(value: object) -> str:
    """Write a value with at most three digits that count.

    Example:
        >>> short_number(0.00034567), short_number(0.01), short_number(4)
        ('3.46e-4', '0.01', '4')
    """
    if not isinstance(value, float):
        return "" if value is None else format_value(value)
    return format_value(float(f"{value:.3g}"))
