"""How long tables and report of a large sweep take: 1,000 trials of 50 epochs in one store.

    python -m tests.benchmarks.big_store                      # makes the store, measures, prints
    python -m tests.benchmarks.big_store --directory D        # keeps the store, or uses it again
    python -m tests.benchmarks.big_store --trials 100 --epochs 8
    python -m tests.benchmarks.big_store --directory . --sweep demo    # a small sweep that is there

The store is made through MLflow's client. Each measurement is a process of its own; what importing
MLflow, opening the store and reading the runs takes in a process that does just that is shown, and
taken off. Exits 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MADE = "synthetic"
BARE = """
import sys
from trainer.tracking.mlflow_store import Store
store = Store.open()
assert len(store.trial_runs(sys.argv[1])) > 0
"""
COMPARE = ("-m", "analysis", "compare", "--format", "json", "--sweep")
REPORT = ("-m", "analysis", "report", "--no_log", "--output_dir", "{scratch}", "--sweep")


@dataclass(frozen=True)
class Measured:
    """One process."""

    name: str
    wall_s: float
    cpu_s: float
    peak_mb: float


@dataclass(frozen=True)
class Goal:
    """What a process may take beyond the one that it is compared with, and in memory at all."""

    name: str
    beyond: str
    most_s: float
    most_mb: float | None = None


GOALS = (
    Goal("compare, first", "bare", 15, 500),
    Goal("compare, repeated", "bare", 3, 500),
    Goal("report", "compare, repeated", 20),
)
SMALL = (Goal("compare, first", "bare", 1), Goal("report", "bare", 5))
"""Of a sweep such as the demonstration."""


def make(directory: Path, trials: int, epochs: int, utterances: int) -> None:
    """Write the store into a directory."""
    from tests.synthetic import Shape, write_sweep

    shape = Shape(trials=trials, epochs=epochs, utterances=utterances)
    before = Path.cwd()
    os.chdir(directory)
    try:
        write_sweep(directory / "sweep", shape)
    finally:
        os.chdir(before)


def measure(name: str, arguments: Sequence[str], directory: Path, scratch: Path) -> Measured:
    """Run Python with these arguments in the store's directory."""
    command = [argument.format(scratch=scratch) for argument in arguments]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(scratch / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command], cwd=directory, env=environment, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{name}: exit code {process.returncode}")
    cpu_s = used.ru_utime + used.ru_stime
    return Measured(name, wall_s, cpu_s, used.ru_maxrss / 1024)


def measure_all(directory: Path, sweep: str, scratch: Path) -> list[Measured]:
    """The bare process, `compare` without and with what is known of ended runs, and `report`."""
    commands = {
        "warm-up": ("-c", BARE),  # compiles, and fills the disk's cache
        "bare": ("-c", BARE),
        "compare, first": COMPARE,
        "compare, repeated": COMPARE,
        "report": REPORT,
    }
    measured = [
        measure(name, (*command, sweep), directory, scratch) for name, command in commands.items()
    ]
    return measured[1:]


def judged(measured: Sequence[Measured], goals: Sequence[Goal]) -> list[tuple[str, bool]]:
    """A line for each goal, and whether it was reached."""
    by_name: Mapping[str, Measured] = {one.name: one for one in measured}
    lines = []
    for goal in goals:
        one, other = by_name[goal.name], by_name[goal.beyond]
        beyond_s = one.wall_s - other.wall_s
        reached = beyond_s <= goal.most_s
        text = f"{goal.name}: {beyond_s:.1f} s beyond {goal.beyond!r} (goal {goal.most_s:g} s)"
        if goal.most_mb is not None:
            reached = reached and one.peak_mb <= goal.most_mb
            text += f", {one.peak_mb:.0f} MB (goal {goal.most_mb:g} MB)"
        lines.append((text, reached))
    return lines


def main() -> int:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.big_store")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--utterances", type=int, default=120)
    parser.add_argument("--directory", type=Path, help="default: a temporary one")
    parser.add_argument("--sweep", default=MADE, help="another one, of a store that is there")
    parser.add_argument("--output", type=Path, help="the figures as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = (arguments.directory or Path(scratch)).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        if arguments.sweep == MADE and not (directory / "mlflow.db").exists():
            started = time.perf_counter()
            make(directory, arguments.trials, arguments.epochs, arguments.utterances)
            print(f"made {arguments.trials} trials in {time.perf_counter() - started:.0f} s")
        measured = measure_all(directory, arguments.sweep, Path(scratch))
        size_mb = (Path(scratch) / "report.html").stat().st_size / 1e6
    print(f"{'':18} {'wall s':>7} {'CPU s':>7} {'MB':>6}")
    for one in measured:
        print(f"{one.name:18} {one.wall_s:7.1f} {one.cpu_s:7.1f} {one.peak_mb:6.0f}")
    print(f"report.html: {size_mb:.1f} MB")
    lines = judged(measured, GOALS if arguments.sweep == MADE else SMALL)
    for text, reached in lines:
        print(f"{'ok  ' if reached else 'MISS'} {text}")
    if arguments.output:
        found = {"measured": [asdict(one) for one in measured], "report_mb": size_mb}
        arguments.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0 if all(reached for _, reached in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
