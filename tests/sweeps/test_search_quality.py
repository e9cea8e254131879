"""Simulated sweeps: our sampler and pruner find more for the same epochs than chance does."""

from __future__ import annotations

import math
from statistics import mean

import pytest

from tests.benchmarks.landscape import DECAYS, EPOCHS, RATES, STAGES
from tests.benchmarks.simulate import METHODS, Landscape, Point, run_many

SEEDS = 10


@pytest.fixture(scope="module")
def formula() -> Landscape:
    """One stage and one learning rate are best, and half of the rates learn next to nothing."""
    handicap = dict(zip(STAGES, (0.0, 0.02, 0.15, 0.25), strict=True))
    curves = {
        Point(stage, lr, decay): [
            0.15 + handicap[stage] + 0.12 * far + 0.4 * math.exp(-epoch / (1.5 + far))
            for epoch in range(EPOCHS + 1)
        ]
        for stage in STAGES
        for lr in RATES
        for decay in DECAYS
        if (far := abs(math.log10(lr / 1e-3))) is not None
    }
    return Landscape(curves, {})


def test_a_grid_is_interpolated(formula: Landscape) -> None:
    point = Point("s1", RATES[2], DECAYS[0])
    assert formula.curve("s1", RATES[2], DECAYS[0]) == pytest.approx(formula.curves[point])
    low, high = (formula.curves[Point("s1", lr, DECAYS[0])][3] for lr in RATES[1:3])
    between = formula.curve("s1", math.sqrt(RATES[1] * RATES[2]), 1e-2)[3]
    assert between == pytest.approx((low + high) / 2)


def test_tpe_with_pruning_beats_chance_at_equal_epochs(formula: Landscape) -> None:
    budget = formula.grid_epochs // 4
    over = {
        name: mean(run_many(formula, method, budget, SEEDS)) - formula.best
        for name, method in METHODS.items()
    }
    assert over["TPE with pruning"] < 0.75 * over["random with pruning"]
    assert over["TPE with pruning"] < 0.75 * over["random"]
    assert over["TPE with pruning"] < 0.01


def test_the_same_seed_finds_the_same(formula: Landscape) -> None:
    method = METHODS["TPE with pruning"]
    first, again = (run_many(formula, method, 60, 2) for _ in range(2))
    assert first == again
