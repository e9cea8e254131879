"""Simulated sweeps: our sampler and pruner find more for the same epochs than chance does."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from statistics import median

import pytest

from tests.benchmarks.landscape import DATA, DECAYS, EPOCHS, RATES, STAGES
from tests.benchmarks.simulate import METHODS, Landscape, Point, run_many

SEEDS = range(40)


@cache
def formula() -> Landscape:
    """One stage is best, at a tenth of its default's rate; half of the rates learn little."""
    handicap = dict(zip(STAGES, (0.0, 0.02, 0.15, 0.25), strict=True))
    curves = {
        Point(stage, lr, decay): [
            0.15 + handicap[stage] + 0.12 * far + 0.4 * math.exp(-epoch / (1.5 + far))
            for epoch in range(EPOCHS + 1)
        ]
        for stage in STAGES
        for lr in RATES
        for decay in DECAYS
        if (far := abs(math.log10(lr / 1e-4))) is not None
    }
    return Landscape(curves)


@cache
def recorded() -> Landscape:
    return Landscape.read(DATA)


@cache
def above(landscape: Callable[[], Landscape], method: str) -> float:
    """By how much sweeps end above the grid's best for a quarter of its epochs; median of seeds."""
    grid = landscape()
    found = run_many(grid, METHODS[method], grid.grid_epochs // 4, SEEDS)
    return median(each.best for each in found) - grid.best


def test_a_grid_is_interpolated() -> None:
    point = Point("s1", RATES[2], DECAYS[0])
    assert formula().curve("s1", RATES[2], DECAYS[0]) == pytest.approx(formula().curves[point])
    low, high = (formula().curves[Point("s1", lr, DECAYS[0])][3] for lr in RATES[1:3])
    between = formula().curve("s1", math.sqrt(RATES[1] * RATES[2]), 1e-2)[3]
    assert between == pytest.approx((low + high) / 2)


def test_the_whole_grid_is_recorded() -> None:
    expected = {Point(s, lr, decay) for s in STAGES for lr in RATES for decay in DECAYS}
    assert set(recorded().curves) == expected
    assert {len(curve) for curve in recorded().curves.values()} == {EPOCHS + 1}
    assert recorded().noise > 0


def test_tpe_with_pruning_reaches_the_grid_for_a_quarter_of_its_epochs() -> None:
    """Where every trial asks for all epochs; with their number searched it falls a little short."""
    searched, fixed = "TPE with pruning", "TPE with pruning, 8 epochs"
    assert above(recorded, fixed) < recorded().noise
    assert above(recorded, fixed) < above(recorded, searched) < 0.01


@pytest.mark.parametrize("landscape", [formula, recorded])
def test_tpe_with_pruning_beats_chance_at_equal_epochs(
    landscape: Callable[[], Landscape],
) -> None:
    ours = above(landscape, "TPE with pruning")
    assert ours < 0.75 * above(landscape, "random with pruning")
    assert ours < 0.75 * above(landscape, "random")


def test_the_same_seed_finds_the_same() -> None:
    method = METHODS["TPE with pruning"]
    first, again = (run_many(formula(), method, 60, range(2)) for _ in range(2))
    assert first == again
