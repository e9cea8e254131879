"""Differences after choosing: as counted flip by flip, and no claims where nothing differs."""

from __future__ import annotations

import itertools

import numpy
import pytest

from analysis.facts.significance import difference, difference_interval
from analysis.facts.simultaneous import simultaneous
from tests.analysis.facts.test_significance import Speakers


def by_hand(apart, lengths):
    """Largest |t| of every flip, one flip and trial at a time."""
    largest = []
    for rest in itertools.product((1, -1), repeat=len(lengths) - 1):
        flipped = numpy.asarray(apart) * numpy.array([1, *rest])
        low, high, _ = difference_interval(flipped, numpy.tile(lengths, (len(apart), 1)))
        middle = flipped.sum(1) / lengths.sum()
        # Two intervals of one shape: half a width is the same multiple of the error for all.
        largest.append(numpy.abs(middle / ((high - low) / 2)).max())
    return numpy.array(largest)


@pytest.mark.quick
def test_p_is_the_share_of_flips_that_reach_the_largest_t():
    rng = numpy.random.default_rng(3)
    apart = rng.integers(-9, 6, (4, 7)).astype(float)
    lengths = rng.integers(40, 90, 7).astype(float)
    largest = by_hand(apart, lengths)
    found = simultaneous(apart, lengths, numpy.arange(7))
    for row, one in zip(apart, found, strict=True):
        low, high, _ = difference_interval(row[None], lengths[None])
        own = abs(row.sum() / lengths.sum() / ((high[0] - low[0]) / 2))
        assert one.p == pytest.approx((largest >= own - 1e-9).mean())
        assert one.value == difference(row, row * 0, lengths, numpy.arange(7)).value
        assert (one.p <= 0.05) == one.certain


@pytest.mark.quick
def test_more_trials_make_the_same_difference_less_certain():
    rng = numpy.random.default_rng(5)
    one = rng.normal(-1.2, 1, (1, 10))
    many = numpy.vstack([one, rng.normal(0, 1, (15, 10))])
    alone, among = (simultaneous(x, numpy.full(10, 50), numpy.arange(10))[0] for x in (one, many))
    assert alone.p < among.p
    assert among.low < alone.low < alone.high < among.high


@pytest.mark.quick
def test_what_little_there_is_to_say_is_said():
    nothing, something = simultaneous([[0, 0, 0], [1, 2, 3]], [9, 9, 9], numpy.arange(3))
    assert (nothing.value, nothing.p) == (0, 1)
    assert something.p == 0.25
    assert (something.low, something.high) == (None, None)
    [alone] = simultaneous([[1, 2, 3]], [9, 9, 9], numpy.zeros(3, int))
    assert (alone.p, alone.low) == (None, None)


@pytest.mark.quick
def test_a_thousand_utterances_are_one_answer():
    rng = numpy.random.default_rng(7)
    apart = rng.integers(-2, 2, (20, 1000))
    first, again = (simultaneous(apart, numpy.full(1000, 9), numpy.arange(1000)) for _ in range(2))
    assert first == again


def chosen(trials: int, speakers: int, sweeps: int, seed: int) -> tuple[float, float]:
    """Sweeps of trials that do not differ: shares of false claims, and of winners' intervals held.

    Trials are alike (rho 0.7), as fine-tunes of one base are.
    """
    rng = numpy.random.default_rng(seed)
    _, _, lengths = Speakers("skewed", 0.25, seed).corpora(sweeps, speakers)
    claims = held = 0
    for lengths_G in lengths.astype(float):
        common = rng.normal(0, 1, speakers)
        apart = numpy.sqrt(lengths_G) * (
            numpy.sqrt(0.7) * common + numpy.sqrt(0.3) * rng.normal(0, 1, (trials, speakers))
        )
        every = simultaneous(apart, lengths_G, numpy.arange(speakers))
        winner = min(every, key=lambda one: one.value)
        claims += winner.certain and winner.value < 0
        held += not winner.certain
    return claims / sweeps, held / sweeps


@pytest.mark.parametrize(("trials", "speakers"), [(16, 8), (32, 12), (16, 40)])
def test_choosing_makes_no_claims(trials, speakers):
    claims, held = chosen(trials, speakers, 300, seed=11)
    # Of 300 sweeps at 3 %: three standard errors more.
    assert claims <= 0.03 + 3 * (0.03 * 0.97 / 300) ** 0.5
    assert held >= 0.95 - 3 * (0.05 * 0.95 / 300) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("trials", "speakers"), [(16, 8), (32, 8), (16, 12), (32, 40)])
def test_choosing_makes_no_claims_over_many_sweeps(trials, speakers):
    claims, held = chosen(trials, speakers, 3000, seed=12)
    assert claims <= 0.03
    assert held >= 0.95
