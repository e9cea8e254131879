"""Ranges: what they contain, what a grid takes of them, and what Optuna draws from them."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from sweeps.spec.ranges import Range, label

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("range_", "inside", "outside"),
    [
        (Range(low=1, high=5, step=2), [1, 3, 5], [0, 2, 6, None, "3"]),
        (Range(low=1e-5, high=1e-2, log=True), [1e-5, 3e-4], [1e-6]),
        (Range(choices=([0, 10], [0, 15])), [[0, 10]], [[0, 11], 0]),
    ],
)
def test_what_a_range_contains(range_: Range, inside: list[Any], outside: list[Any]) -> None:
    assert all(range_.contains(value) for value in inside)
    assert not any(range_.contains(value) for value in outside)


@pytest.mark.parametrize(
    ("range_", "whole", "values"),
    [
        (Range(choices=(4, 6)), True, (4, 6)),
        (Range(low=1, high=5, step=2), True, (1, 3, 5)),
        (Range(low=1, high=3), True, (1, 2, 3)),
        (Range(low=0.1, high=0.3, step=0.1), False, (0.1, 0.2, 0.3)),
        (Range(low=1e-5, high=1e-3, log=True, points=3), False, (1e-5, 1e-4, 1e-3)),
        (Range(low=0.0, high=1.0, points=2), False, (0.0, 1.0)),
        (Range(low=1e-5, high=1e-3, log=True), False, None),
    ],
)
def test_a_grid_goes_through_finite_ranges(
    range_: Range, whole: bool, values: tuple[Any, ...] | None
) -> None:
    assert range_.problem() is None
    assert range_.grid(whole=whole) == values


@pytest.mark.parametrize(
    ("range_", "problem"),
    [
        (Range(low=1, high=5), None),
        (Range(choices=(1, True)), "got choices=[1, True], expected at least one, each once"),
        (Range(choices=(1, 2), log=True), "got choices beside low, high, log, step or points"),
        (Range(low=1), "got a range without ends, expected low and high, or choices"),
        (Range(low=1, high=3, step=2, points=2), "got points=2 beside step=2, expected one"),
    ],
)
def test_a_range_says_what_is_wrong_with_it(range_: Range, problem: str | None) -> None:
    found = range_.problem()
    assert found == problem or (found is not None and found.startswith(str(problem)))


@pytest.mark.parametrize(
    ("range_", "whole"),
    [
        (Range(low=1e-5, high=1e-2, log=True), False),
        (Range(low=0.0, high=1.0, step=0.25), False),
        (Range(low=2, high=8, step=3), True),
        (Range(choices=([0, 8], [0, 15])), True),
    ],
)
def test_what_is_drawn_is_in_the_range_and_in_optunas_terms(range_: Range, whole: bool) -> None:
    """Optuna's categories are plain values: a list stands there as its text."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    distribution = range_.distribution(whole=whole)
    for _ in range(20):
        trial = study.ask()
        value = range_.draw(trial, "key", whole=whole)
        assert range_.contains(value)
        assert trial.distributions == {"key": distribution}
        assert trial.params == {"key": label(value)}
