"""Hours of a whole sweep, from those of an epoch of each stage."""

from __future__ import annotations

import pytest

from sweeps.console.cost_forecast import _hours
from sweeps.spec.sweep_file import load_sweep
from tests.conftest import ROOT

TELEPHONE = ROOT / "conf" / "sweep" / "telephone.yaml"


@pytest.mark.quick
def test_hours_of_all_trials_on_so_many_gpus() -> None:
    sweep, _ = load_sweep(TELEPHONE, overrides=["concurrency=3"])
    plan = [("8k", 10), ("8k", 20), ("s3", 5)]
    assert _hours(sweep, plan, {"8k": 360.0, "s3": 36.0}) == (
        "sweep: 3 trials, 35 epochs in 3.0 h if none is pruned (at least 25 min however early they "
        "are pruned); with 1 GPU 3.0 h, 2 GPUs 2.0 h, 3 GPUs 2.0 h"
    ), "the longest trial alone takes two hours"


@pytest.mark.quick
def test_hours_without_pruning_or_gpus() -> None:
    overrides = ["concurrency=1", "pruning.method=none", "resources.gpu=0"]
    sweep, _ = load_sweep(TELEPHONE, overrides=overrides)
    assert _hours(sweep, [("s2", 2)], {"s2": 30.0}) == (
        "sweep: 1 trials, 2 epochs in 60 s if none is pruned; with 1 at once 60 s"
    )
