"""What a sweep costs beside its training.

    python -m tests.benchmarks.sweep_overhead                     # the demonstration, minutes
    python -m tests.benchmarks.sweep_overhead trials=4            # less of it
    python -m tests.benchmarks.sweep_overhead --fake-only         # without real training, a minute

Three figures: from the driver's start to the first training step (goal: under 30 s on two cores);
per trial beyond its training in reused processes, with a fine-tune that takes no time, one trial
after the other (under 1 s); and search, tracking and pruning as a share of the demonstration's wall
time (under 5 %). The last are timed inside the driver; MLflow is written by a thread, beside all
else, and counted in full.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeps.directory import SWEEPS
from tests.conftest import BASE, ROOT

DEMO = ROOT / "conf/sweep/demo.yaml"
SEARCH = ("ask", "report", "tell", "states", "state", "spent", "end_with_sweep", "exhausted")
_FAKE_TRIALS = 24


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fake-only", action="store_true")
    options, overrides = parser.parse_known_args(arguments)
    from trainer.demo.corpus import ensure

    ensure(ROOT / "data" / "demo")
    fake = _measure("finetune", [f"trials={_FAKE_TRIALS}", "concurrency=1", "pruning.method=none"])
    print(f"driver start to first trial         {fake['first_trial_s']:6.1f} s")
    print(
        f"per trial beyond its training       {fake['trials_s'] / _FAKE_TRIALS:6.2f} s "
        f"({_FAKE_TRIALS} trials in {fake['trials_s']:.1f} s; search "
        f"{fake['search_s'] / _FAKE_TRIALS:.3f}, pruning {fake['prune_s'] / _FAKE_TRIALS:.3f}, "
        f"MLflow {fake['mlflow_s'] / _FAKE_TRIALS:.3f} s each)"
    )
    if options.fake_only:
        return 0
    real = _measure("", overrides)
    own = sum(real[name] for name in ("search_s", "prune_s", "mlflow_s"))
    print(f"driver start to first training step {real['first_step_s']:6.1f} s")
    print(
        f"search, tracking, pruning           {100 * own / real['wall_s']:6.1f} % of "
        f"{real['wall_s']:.0f} s (search {real['search_s']:.1f}, MLflow {real['mlflow_s']:.1f}, "
        f"pruning {real['prune_s']:.1f} s)"
    )
    return 0


def _measure(finetune: str, overrides: list[str]) -> dict[str, float]:
    """Run the demonstration in a directory of its own and look at what it leaves."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "data").symlink_to(ROOT / "data")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
        environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.benchmarks.sweep_overhead", "--drive", finetune]
        began = time.time()
        done = subprocess.run(
            [*command, str(DEMO), f"base={BASE}", *overrides],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        wall_s = time.time() - began
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        found: dict[str, float] = json.loads((place / "timers.json").read_text())
        starts, steps, ends = [], [], []
        for path in (place / SWEEPS / "demo/trials").glob("*/events.jsonl"):
            events = [json.loads(line) for line in path.read_text().splitlines()]
            starts.append(events[0]["timestamp_ms"] / 1000)
            ends.append(events[-1]["timestamp_ms"] / 1000)
            steps += [
                e["timestamp_ms"] / 1000 for e in events if "train/loss" in e.get("metrics", ())
            ]
    return {
        **found,
        "wall_s": wall_s,
        "trials_s": max(ends) - min(starts),
        "first_trial_s": min(starts) - began,
        "first_step_s": min(steps, default=began) - began,
    }


def drive(finetune: str, path: str, overrides: list[str]) -> int:
    """Run a sweep with clocks around what it does beside training."""
    from sweeps.mlflow_projector import Projector
    from sweeps.run import run_sweep
    from sweeps.search.ledger import Ledger
    from tests import fakes

    spent = {"search_s": 0.0, "prune_s": 0.0, "mlflow_s": 0.0}
    depth = {"search_s": 0}

    def timed(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            outer = kind == "mlflow_s" or not depth["search_s"]
            depth["search_s"] += kind != "mlflow_s"
            began = time.perf_counter()
            try:
                return function(*arguments, **more)
            finally:
                depth["search_s"] -= kind != "mlflow_s"
                if outer:  # one of these calls another: counted once
                    spent[kind] += time.perf_counter() - began

        return call

    for name in SEARCH:
        known = Ledger.__dict__[name]
        if isinstance(known, property):
            setattr(Ledger, name, property(timed("search_s", known.fget)))  # type: ignore[arg-type]
        else:
            setattr(Ledger, name, timed("search_s", known))
    Ledger.prunes = timed("prune_s", Ledger.prunes)  # type: ignore[method-assign]
    Projector._project = timed("mlflow_s", Projector._project)  # type: ignore[method-assign]
    training = getattr(fakes, finetune) if finetune else None
    code = run_sweep(Path(path), overrides=overrides, finetune=training)
    Path("timers.json").write_text(json.dumps(spent))
    return code


if __name__ == "__main__":
    if sys.argv[1:2] == ["--drive"]:
        sys.exit(drive(sys.argv[2], sys.argv[3], sys.argv[4:]))
    sys.exit(main(sys.argv[1:]))
