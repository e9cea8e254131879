"""The demonstration's landscape: CER by stage, learning rate, weight decay and epoch, all trained.

    python -m tests.benchmarks.landscape              # trains what is missing, about 20 minutes
    python -m tests.benchmarks.landscape --points 4   # four points of it, to be called again
    python -m tests.benchmarks.landscape --part 1/2   # the first half; the other half beside it
    python -m tests.benchmarks.landscape --table      # searches simulated on it, seconds

The curves are kept as test data (tests/data/landscape.json), so that thousands of sweeps can be
simulated on them (`simulate`) without training anything. The best points of the grid are trained
again with other seeds: what is less than their spread is no difference, and the lowest of many
points that were trained once is as much luck as it is the best.
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import json
import os
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from tests.benchmarks.simulate import METHODS, Landscape, run_many

DATA = Path(__file__).parents[1] / "data" / "landscape.json"
SWEEP = Path("conf/sweep/demo.yaml")
EPOCHS = 8
STAGES = ("8k", "s1", "s2", "s3")
RATES = (1e-5, 3.16e-5, 1e-4, 3.16e-4, 1e-3, 1.78e-3, 3.16e-3, 5.62e-3, 1e-2)
DECAYS = (1e-4, 1e-1)
SEEDS = (1, 2, 3)  # beside 0, for the points of the grid that are repeated
REPEATED = 6


@dataclass(frozen=True)
class Run:
    """What is trained once."""

    stage: str
    lr: float
    weight_decay: float
    seed: int


def main() -> None:
    """Train what is missing, or show what searches find."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--points", type=int, default=1000, help="train at most so many")
    parser.add_argument("--part", default="1/1", help="K/N: the K-th of N parts of it all")
    parser.add_argument("--table", action="store_true", help="simulate searches")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(Landscape.read(DATA)))
        return
    part, parts = (int(number) for number in arguments.part.split("/"))
    mine = itertools.islice(_wanted(_read()), part - 1, None, parts)
    missing = (run for run in mine if run not in _known(_read()))
    for run in itertools.islice(missing, arguments.points):
        valid, wideband = train(run)
        _add({**asdict(run), "curve": valid, "wideband": wideband})
        print(f"{run} {valid}", flush=True)


def train(run: Run) -> tuple[list[float], list[float]]:
    """The CER before training and after each epoch, in order: on valid, on wideband."""
    from sweeps.search.reuse import read_learning_curve
    from sweeps.spec.sweep_file import DEMO_CORPUS, load_sweep
    from sweeps.trial import Work, trial_config
    from trainer.demo.corpus import ensure
    from trainer.finetune.run import finetune
    from trainer.tracking.event_log import EventLog

    ensure(DEMO_CORPUS)
    splits = ("train", "valid", "wideband")
    data = [f"data.{split}={DEMO_CORPUS / split}.jsonl" for split in splits]
    sweep, _ = load_sweep(SWEEP, overrides=data)
    values = {
        "optim_conf.lr": run.lr,
        "optim_conf.weight_decay": run.weight_decay,
        "finetune_conf.seed": run.seed,
        "train_conf.max_epoch": EPOCHS,
        "train_conf.avg_nbest_model": 1,
    }
    with tempfile.TemporaryDirectory() as directory:
        work = Work(0, run.stage, False, values)
        config = trial_config(sweep, work, Path(directory))
        finetune(config, EventLog(Path(directory)))
        curve = read_learning_curve(Path(directory))
    assert curve is not None
    valid, wideband = (
        [round(curve.epochs[epoch].metrics[name], 6) for epoch in range(EPOCHS + 1)]
        for name in ("valid/cer", "wideband/cer")
    )
    return valid, wideband


def table(landscape: Landscape, seeds: int = 20) -> str:
    """What each way of searching finds at shares of the grid's epochs, and what pruning does."""
    whole = landscape.grid_epochs
    lines = [
        f"grid: {len(landscape.curves)} points, {whole} epochs, best {landscape.best:.2%}; "
        f"between seeds the best CER of a point differs by {landscape.noise:.2%} (one sigma)",
        "above the grid's best, and how many of the seeds end within one sigma of it:",
        f"{'search':30} {'epochs':>6} {'trials':>6} {'pruned away':>11} {'median':>8} "
        f"{'worst':>8} {'within':>9}",
    ]
    for share, (name, method) in itertools.product((1 / 8, 1 / 4, 1 / 2), METHODS.items()):
        budget = int(whole * share)
        found = run_many(landscape, method, budget, range(seeds))
        over = [each.best - landscape.best for each in found]
        within = sum(value <= landscape.noise for value in over)
        saved = 1 - sum(each.trained for each in found) / sum(each.asked for each in found)
        lines.append(
            f"{name:30} {budget:6} {statistics.mean(each.trials for each in found):6.1f} "
            f"{saved:11.0%} {statistics.median(over):+8.2%} {max(over):+8.2%} "
            f"{within:3} of {seeds}"
        )
    lines.append("rank correlation of the best CER after an epoch with that after the last:")
    for stage in ("all stages", *STAGES):
        curves = [c for p, c in landscape.curves.items() if stage in ("all stages", p.stage)]
        at_the_end = [min(curve[1:]) for curve in curves]
        so_far = (
            (epoch, spearmanr([min(curve[1 : epoch + 1]) for curve in curves], at_the_end))
            for epoch in (1, 2, 4)
        )
        lines.append(
            f"{stage:10} " + ", ".join(f"epoch {epoch}: {r.statistic:.2f}" for epoch, r in so_far)
        )
    return "\n".join(lines)


def _read() -> list[dict[str, Any]]:
    return json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else []


def _add(curve: dict[str, Any]) -> None:
    """Write a curve beside those on record; another process may do the same."""
    DATA.parent.mkdir(exist_ok=True)
    directory = os.open(DATA.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        others = [c for c in _read() if _known([c]) != _known([curve])]
        curves = sorted(
            [*others, curve],
            key=lambda c: (c["seed"], STAGES.index(c["stage"]), c["weight_decay"], c["lr"]),
        )
        partial = DATA.with_suffix(".partial")
        lines = ",\n".join(json.dumps(curve) for curve in curves)
        partial.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        os.replace(partial, DATA)
    finally:
        os.close(directory)


def _known(curves: list[dict[str, Any]]) -> set[Run]:
    return {Run(c["stage"], c["lr"], c["weight_decay"], c["seed"]) for c in curves}


def _wanted(curves: list[dict[str, Any]]) -> Iterator[Run]:
    """The grid; once it is whole its best points with other seeds."""
    grid = [Run(*axes, seed=0) for axes in itertools.product(STAGES, RATES, DECAYS)]
    yield from grid
    if _known(curves).issuperset(grid):
        first = [curve for curve in curves if curve["seed"] == 0]
        best = sorted(first, key=lambda curve: min(curve["curve"][1:]))[:REPEATED]
        for curve, seed in itertools.product(best, SEEDS):
            yield Run(curve["stage"], curve["lr"], curve["weight_decay"], seed)


if __name__ == "__main__":
    main()
