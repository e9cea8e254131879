"""What a sweep would try: checked trials of a study that is kept nowhere."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import optuna
from rich.console import Console
from rich.table import Table

from sweeps.forecast import forecast
from sweeps.preflight import effective_concurrency
from sweeps.run import check
from sweeps.space import suggest
from sweeps.view import short_number


def dry_run(path: Path, *, name: str | None = None, overrides: Sequence[str] = ()) -> int:
    """Print every stage's default config and a random draw of the other trials, all checked.

    The search itself learns from results; what it would draw later cannot be known before.
    """
    sweep, configs = check(path, name=name, overrides=overrides)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    keys = list(dict.fromkeys(key for stage in sweep.stages for key in sweep.ranges(stage)))
    table = Table("trial", "stage", *keys, box=None, pad_edge=False)
    drawn = [(stage, config) for stage, config in configs.items()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=sweep.seed))
    while len(drawn) < sweep.trials:
        choice = suggest(study.ask(), sweep)
        label = f"trial {len(drawn)}"
        drawn.append((choice.stage, configs[choice.stage].replace(choice.values, label)))
    for number, (stage, config) in enumerate(drawn):
        default = " default" if number < len(configs) else ""
        table.add_row(
            str(number), f"{stage}{default}", *(short_number(config.get(key)) for key in keys)
        )
    console = Console()
    console.print(table)
    for line in forecast(sweep, configs, effective_concurrency(sweep)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{len(drawn)} trials checked; nothing was started.", highlight=False)
    return 0
