"""What a sweep would try: checked trials of a study that is kept nowhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from conf import progress
from conf.errors import ConfigError
from sweeps.console.cost_forecast import forecast
from sweeps.console.view import say, short_number
from sweeps.preflight import check, check_weights, effective_concurrency, start
from sweeps.search.samplers import complete, draw
from sweeps.search.warm_start import WarmStart, read_warm_start
from sweeps.spec.sweep_file import Choice, SweepFile


def dry_run(
    path: Path,
    *,
    name: str | None = None,
    overrides: Sequence[str] = (),
    tflops: float | None = None,
) -> int:
    """Print every stage's default config and what the search would draw, all checked.

    Chance and a grid draw just that; TPE does so in its startup trials, and what it draws from
    results later cannot be known before. Weights and GPUs need not be there.
    """
    sweep, configs, lacking = check(path, name=name, overrides=overrides, starts=False)
    progress.say(start(sweep))
    if (Path(sweep.base) / "model.pt").is_file():
        check_weights(sweep)
    keys = list(dict.fromkeys(key for stage in sweep.stages for key in sweep.ranges(stage)))
    table = Table("trial", "stage", *_headings(keys), box=None, pad_edge=False)
    warm = read_warm_start(sweep, configs)
    failing = 0
    plan = []
    for number in range(sweep.trials):
        kind, choice = _drawn(sweep, warm, number)
        try:
            config = configs[choice.stage].replace(choice.values, f"trial {number}")
            plan.append(config)
            searched = sweep.ranges(choice.stage)
            values = [short_number(config.get(k)) if k in searched else "" for k in keys]
        except ConfigError as error:  # values that are fine one by one and wrong together
            failing += 1
            values = [error.problems[0]]
        table.add_row(str(number), f"{choice.stage}{kind}", *values)
    # Into a file or a pipe there is no width to respect: the whole table.
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    remarks = [f"missing here: {line}" for line in lacking]
    with progress.Progress().step("forecasting memory and time"):
        remarks += forecast(sweep, configs, effective_concurrency(sweep), plan, tflops)
    for line in [*remarks, *_remarks(sweep, warm)]:
        say(console, line)
    refused = f", {failing} of them would fail" if failing else ""
    console.print(f"{sweep.trials} trials checked{refused}; nothing was started.", highlight=False)
    return 0


def _drawn(sweep: SweepFile, warm: WarmStart, number: int) -> tuple[str, Choice]:
    """What kind of trial it is, and what it lays over its stage's default config."""
    stages, points = len(sweep.stages), len(warm.points)
    if number < stages:
        return " default", Choice(sweep.stages[number], {})
    if number < stages + points:
        return " warm", complete(sweep, warm.points[number - stages], number)
    return "", draw(sweep, warm.known, number, number - stages - points)


def _headings(keys: Sequence[str]) -> list[str]:
    """The keys' last names where those tell them apart."""
    names = [key.rpartition(".")[2] for key in keys]
    return [name if names.count(name) == 1 else key for key, name in zip(keys, names, strict=True)]


def _remarks(sweep: SweepFile, warm: WarmStart) -> list[str]:
    lines = []
    if warm.known and sweep.warm_start is not None:
        lines.append(f"warm start: {len(warm.known)} results of {sweep.warm_start.sweep} are known")
    if sweep.replicates:
        lines.append(
            f"replicates: the best three configs, and the best default, with {sweep.replicates} "
            "more seeds each, beside these trials"
        )
    return lines
