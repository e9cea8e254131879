"""Successive halving as a pure function of what is on record."""

from __future__ import annotations

import pytest

from sweeps.search.pruner import Curve, should_prune
from sweeps.spec.sweep_file import Pruning

pytestmark = pytest.mark.quick

HALVING = Pruning(method="successive_halving", grace=1, factor=2)


def curve(*values: float) -> Curve:
    """Values from epoch 0 on."""
    return dict(enumerate(values))


def test_the_first_at_a_rung_goes_on() -> None:
    assert not should_prune(curve(0.9, 0.8), {}, 1, HALVING)
    assert not should_prune(curve(0.9, 0.8), {1: curve(0.1)}, 1, HALVING)


def test_the_worse_half_ends() -> None:
    others = {0: curve(0.9, 0.2), 1: curve(0.9, 0.3), 2: curve(0.9, 0.4)}
    assert should_prune(curve(0.9, 0.5), others, 1, HALVING)
    assert should_prune(curve(0.9, 0.35), others, 1, HALVING)
    assert not should_prune(curve(0.9, 0.25), others, 1, HALVING)


def test_only_rungs_are_asked() -> None:
    others = {0: curve(0.9, 0.1, 0.1, 0.1, 0.1)}
    bad = curve(0.9, 0.8, 0.8, 0.8, 0.8)
    assert [e for e in range(1, 5) if should_prune(bad, others, e, HALVING)] == [1, 2, 4]
    patient = Pruning(grace=3, factor=3)
    assert [e for e in range(1, 5) if should_prune(bad, others, e, patient)] == [3]


def test_the_best_so_far_counts_and_epoch_0_does_not() -> None:
    others = {0: curve(0.01, 0.5, 0.4)}
    assert not should_prune(curve(0.9, 0.3, 0.6), others, 2, HALVING)


def test_none_prunes_nothing() -> None:
    none = Pruning(method="none")
    assert not should_prune(curve(0.9, 0.8), {0: curve(0.9, 0.1)}, 1, none)


def test_asked_twice_it_answers_the_same() -> None:
    others = {0: curve(0.9, 0.2), 1: curve(0.9, 0.4)}
    answers = {should_prune(curve(0.9, 0.3), others, 1, HALVING) for _ in range(3)}
    assert len(answers) == 1


def test_worse_than_the_median_ends_after_the_grace_period() -> None:
    rule = Pruning(method="median", grace=2)
    others = {number: curve(0.9, value, value) for number, value in enumerate([0.1, 0.2, 0.3, 0.4])}
    assert not should_prune(curve(0.9, 0.8), others, 1, rule)
    assert should_prune(curve(0.9, 0.8, 0.26), others, 2, rule)
    assert not should_prune(curve(0.9, 0.8, 0.25), others, 2, rule)
    assert not should_prune(curve(0.9, 0.2, 0.8), others, 2, rule)  # its best so far counts
    del others[0]
    assert not should_prune(curve(0.9, 0.8, 0.8), others, 2, rule)  # too few for a median
