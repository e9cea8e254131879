"""Hours of a whole sweep, from those of an epoch and of an evaluation of each stage."""

from __future__ import annotations

from typing import Any

import pytest

from conf.load import Config, load_config, stage_config_path
from sweeps.console.cost_forecast import _assumptions, _hours
from sweeps.spec.sweep_file import load_sweep
from tests.conftest import ROOT
from trainer.checks.data_checks import Largest
from trainer.checks.evaluation_time import EvaluationTime
from trainer.checks.gpu_forecast import GpuForecast
from trainer.checks.model_checks import Need

TELEPHONE = ROOT / "conf" / "sweep" / "telephone.yaml"

pytestmark = pytest.mark.quick


def trial(stage: str, epochs: int, **overrides: Any) -> Config:
    flat = {key.replace("__", "."): value for key, value in overrides.items()}
    layers = [("test", {"train_conf.max_epoch": epochs, **flat})]
    return load_config(stage_config_path(stage), find_model=False, layers=layers)


def one(
    epoch_s: float,
    *,
    subset_s: float = 0.0,
    wideband_s: float = 0.0,
    end_s: float = 0.0,
    measured_on: str = "",
) -> GpuForecast:
    """100 batches an epoch."""
    evaluation = EvaluationTime(subset_s, subset_s + wideband_s, end_s)
    largest, need = Largest(1, 1, 1), Need(1, 1)
    return GpuForecast(largest, largest, need, None, 100, epoch_s, evaluation, measured_on)


def test_hours_of_all_trials_on_so_many_gpus() -> None:
    sweep, _ = load_sweep(TELEPHONE, overrides=["concurrency=3"])
    plan = [trial("8k", 10), trial("8k", 20), trial("s3", 5)]
    assert next(_hours(sweep, plan, {"8k": one(360.0), "s3": one(36.0)})) == (
        "sweep: 3 trials, 35 epochs in 3.0 h if none is pruned (at least 25 min however early they "
        "are pruned); with 1 GPU 3.0 h, 2 GPUs 2.0 h, 3 GPUs 2.0 h"
    ), "the longest trial alone takes two hours"


def test_hours_without_pruning_or_gpus() -> None:
    overrides = ["concurrency=1", "pruning.method=none", "resources.gpu=0"]
    sweep, _ = load_sweep(TELEPHONE, overrides=overrides)
    assert next(_hours(sweep, [trial("s2", 2)], {"s2": one(30.0)})) == (
        "sweep: 1 trials, 2 epochs in 60 s if none is pruned; with 1 at once 60 s"
    )


def test_evaluation_and_the_base_are_part_of_the_hours() -> None:
    """Ends of epochs and the average, the test set, and the base once at each rate."""
    overrides = ["concurrency=1", "pruning.method=none"]
    sweep, _ = load_sweep(TELEPHONE, overrides=overrides)
    scored = one(3600.0, subset_s=300.0, wideband_s=60.0, end_s=600.0)
    lines = list(_hours(sweep, [trial("8k", 4), trial("8k", 4)], {"8k": scored}))
    # 2 x (4 h + 5 x 6 min + 10 min), and the base's 6 + 10 min.
    assert lines[0].startswith("sweep: 2 trials, 8 epochs in 9.6 h if none is pruned;")
    assert lines[1] == (
        "of these: training 8.0 h, evaluation 1.3 h (14 %: ends of epochs 1.0 h, best checkpoints "
        "20 min), the base once 16 min"
    )
    two = {"8k": scored, "s1": scored}
    lines = list(_hours(sweep, [trial("8k", 4), trial("s1", 4)], two))
    assert lines[1].endswith("the base once 22 min"), "s1 hears 8000 Hz"


def test_validation_between_epochs_is_counted_where_it_is_asked_for() -> None:
    sweep, _ = load_sweep(TELEPHONE, overrides=["concurrency=1", "pruning.method=none"])
    plan = [trial("s3", 4, train_conf__validate_interval=50, train_conf__accum_grad=2)]
    said = list(_hours(sweep, plan, {"s3": one(3600.0, subset_s=900.0)}))[1]
    # 4 epochs of 50 updates each: 4 validations that no epoch's end needs.
    assert "evaluation 2.2 h (36 %: ends of epochs 1.2 h, between epochs 1.0 h)" in said


def test_repeats_are_counted_and_pruning_leaves_the_first_epochs() -> None:
    sweep, _ = load_sweep(TELEPHONE, overrides=["concurrency=1", "replicates=2"])
    plan = [trial("8k", 10), trial("8k", 20)]
    said = list(_hours(sweep, plan, {"8k": one(3600.0, subset_s=360.0)}))
    # 8 repeats of 16.6 h in the mean; pruned after 2 epochs, and the shortest eight times.
    assert said[0].startswith("sweep: 2 trials, 30 epochs and 8 repeats in 166.1 h")
    assert "(at least 93.3 h however early they are pruned)" in said[0]
    assert "repeats 132.8 h, the base once 6 min" in said[1]


def test_what_the_hours_assume_is_said() -> None:
    counted, here = {"8k": one(1.0)}, {"8k": one(1.0, measured_on="cpu")}
    assert _assumptions(counted, "40", assumed=True) == (
        "time of steps and evaluation: operations counted, at 40 TFLOP/s a GPU (assumed; --tflops "
        "says otherwise, a GPU here measures); decoding assumed at 20 ms for each token of a "
        "batch's longest text, texts as long as their references; starts of trials not counted"
    )
    assert _assumptions(here, "40", assumed=True) == (
        "time of steps and evaluation: measured here (cpu), one step of middling size and a batch "
        "of the validation set; starts of trials not counted"
    )
