"""The demonstration's landscape: CER by stage, learning rate, weight decay and epoch, all trained.

    python -m tests.benchmarks.landscape              # trains what is missing, about 10 minutes
    python -m tests.benchmarks.landscape --points 4   # four points of it, to be called again
    python -m tests.benchmarks.landscape --table      # searches simulated on it, seconds

The curves are kept as test data (tests/data/landscape.json), so that thousands of sweeps can be
simulated on them (`simulate`) without training anything. Beside the grid a few points are trained
again with other seeds: what is less than their spread is no difference.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.benchmarks.simulate import METHODS, Landscape, Point, run_many

DATA = Path(__file__).parents[1] / "data" / "landscape.json"
SWEEP = Path("conf/sweep/demo.yaml")
EPOCHS = 8
STAGES = ("8k", "s1", "s2", "s3")
RATES = (1e-5, 4e-5, 1.6e-4, 6.3e-4, 2.5e-3, 1e-2)
DECAYS = (1e-4, 1e-1)
SEEDS = (1, 2, 3)  # beside 0, for the points of the grid that are repeated
REPEATED = 2


def main() -> None:
    """Train what is missing, or show what searches find."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--points", type=int, default=1000, help="train at most so many")
    parser.add_argument("--table", action="store_true", help="simulate searches")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(Landscape.read(DATA)))
        return
    curves = _read()
    for point in itertools.islice(_missing(curves), arguments.points):
        curves.append({**asdict(point), "curve": train(point)})
        DATA.parent.mkdir(exist_ok=True)
        lines = ",\n".join(json.dumps(curve) for curve in curves)
        DATA.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        print(f"{len(curves)}: {point} {curves[-1]['curve']}", flush=True)


def train(point: Point) -> list[float]:
    """The validation CER before training and after each epoch, in order."""
    from sweeps.space import DEMO_CORPUS, load_sweep
    from sweeps.trial import Work, trial_config
    from trainer.demo.corpus import ensure
    from trainer.run import finetune
    from trainer.tracking import EventLog, read_events

    ensure(DEMO_CORPUS)
    data = [f"data.{split}={DEMO_CORPUS / split}.jsonl" for split in ("train", "valid")]
    sweep, _ = load_sweep(SWEEP, overrides=data)
    values = {
        "optim_conf.lr": point.lr,
        "optim_conf.weight_decay": point.weight_decay,
        "finetune_conf.seed": point.seed,
        "train_conf.max_epoch": EPOCHS,
        "train_conf.avg_nbest_model": 1,
    }
    with tempfile.TemporaryDirectory() as directory:
        work = Work(0, point.stage, False, values)
        config = trial_config(sweep, work, Path(directory))
        finetune(config, EventLog(Path(directory)))
        found: dict[int, float] = {}
        for event in read_events(Path(directory)):
            metrics = event.get("metrics", {})
            if "epoch" in metrics:  # the last one again, with the chosen checkpoint's values
                found.setdefault(int(metrics["epoch"]), metrics["valid/cer"])
    return [round(found[epoch], 6) for epoch in range(EPOCHS + 1)]


def table(landscape: Landscape, seeds: int = 20) -> str:
    """What each way of searching finds at shares of the grid's epochs, and how far that is."""
    grid = landscape.grid_epochs
    lines = [
        f"grid: {len(landscape.curves)} points, {grid} epochs, best {landscape.best:.2%}, "
        f"spread between seeds {landscape.noise:.2%}",
        f"{'search':24} {'epochs':>6} {'median':>8} {'worst':>8} {'within the spread':>18}",
    ]
    for share, (name, method) in itertools.product((1 / 8, 1 / 4, 1 / 2), METHODS.items()):
        budget = int(grid * share)
        over = [f - landscape.best for f in run_many(landscape, method, budget, seeds)]
        within = sum(value <= landscape.noise for value in over)
        lines.append(
            f"{name:24} {budget:6} {statistics.median(over):+8.2%} {max(over):+8.2%} "
            f"{within:12} of {seeds}"
        )
    return "\n".join(lines)


def _read() -> list[dict[str, Any]]:
    return json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else []


def _missing(curves: list[dict[str, Any]]) -> Iterator[Point]:
    """The grid, then its best points with other seeds."""

    def known() -> set[tuple[Any, ...]]:
        return {(c["stage"], c["lr"], c["weight_decay"], c["seed"]) for c in curves}

    for decay, lr, stage in itertools.product(DECAYS, RATES, STAGES):
        if (stage, lr, decay, 0) not in known():
            yield Point(stage, lr, decay, 0)
    best = sorted((c for c in curves if c["seed"] == 0), key=lambda c: min(c["curve"][1:]))
    for curve, seed in itertools.product(best[:REPEATED], SEEDS):
        key = (curve["stage"], curve["lr"], curve["weight_decay"], seed)
        if key not in known():
            yield Point(*key)


if __name__ == "__main__":
    main()
