"""Intervals: what they are on known numbers, and how often they hold."""

from __future__ import annotations

import math

import numpy
import pytest
from scipy import stats
from scipy.special import expit

from analysis.facts.significance import (
    cluster_indices,
    difference,
    difference_interval,
    noise_band,
    rate,
    rate_interval,
)


class Speakers:
    """A population whose speakers differ, as do their gains from a better system.

    Args:
        share: How unequally speakers are heard: `equal`, or `skewed` (a few say most).
        cer: About the CER of the baseline.
    """

    def __init__(self, share: str, cer: float, seed: int) -> None:
        self._share, self._cer = share, cer
        self._rng = numpy.random.default_rng(seed)

    def corpora(self, number: int, speakers: int):
        """Errors of baseline and system, and lengths, each (number, speakers)."""
        parts = [self._some(min(250, number - done), speakers) for done in range(0, number, 250)]
        return [numpy.concatenate(part) for part in zip(*parts, strict=True)]

    def truth(self):
        """CER of the baseline, and what the system adds to it, over all speakers there are."""
        errors, others, lengths = self.corpora(1000, 160)
        return errors.sum() / lengths.sum(), (others - errors).sum() / lengths.sum()

    def _some(self, number: int, speakers: int):
        rng = self._rng
        if self._share == "equal":
            said = numpy.full((number, speakers), 20)
        else:
            said = numpy.clip(rng.lognormal(numpy.log(15), 0.7, (number, speakers)), 3, 90)
        longest = int(said.max())
        lengths = rng.integers(4, 15, (number, speakers, longest))
        lengths *= numpy.arange(longest) < said[..., None]
        middle = numpy.log(self._cer / (1 - self._cer))
        speaker = rng.normal(0, 0.5, (number, speakers, 1))
        gain = 0.1 + rng.normal(0, 0.3, (number, speakers, 1))
        utterance = rng.normal(0, 0.5, (number, speakers, longest))
        errors = rng.binomial(lengths, expit(middle + speaker + utterance))
        others = rng.binomial(lengths, expit(middle + speaker + utterance - gain))
        return errors.sum(-1), others.sum(-1), lengths.sum(-1)


def coverage(population: Speakers, corpora: int, speakers: int) -> tuple[float, float]:
    """Share of corpora whose intervals hold the true CER and the true difference."""
    true_rate, true_difference = population.truth()
    errors, others, lengths = population.corpora(corpora, speakers)
    low, high = rate_interval(errors.astype(float), lengths.astype(float))
    held = (low <= true_rate) & (true_rate <= high)
    low, high, p = difference_interval((others - errors).astype(float), lengths.astype(float))
    of_difference = (low <= true_difference) & (true_difference <= high)
    numpy.testing.assert_array_equal(p < 0.05, (low > 0) | (high < 0))
    return float(held.mean()), float(of_difference.mean())


@pytest.mark.quick
@pytest.mark.parametrize("speakers", [5, 12, 40])
@pytest.mark.parametrize("share", ["equal", "skewed"])
def test_95_percent_intervals_cover_93_to_97(share, speakers):
    covered = coverage(Speakers(share, 0.15, seed=1), 2000, speakers)
    assert all(0.93 <= one <= 0.97 for one in covered), covered


@pytest.mark.slow
@pytest.mark.parametrize("cer", [0.05, 0.25])
@pytest.mark.parametrize("speakers", [5, 12, 40])
@pytest.mark.parametrize("share", ["equal", "skewed"])
def test_intervals_cover_over_many_draws(share, speakers, cer):
    covered = coverage(Speakers(share, cer, seed=2), 20_000, speakers)
    assert all(0.93 <= one <= 0.97 for one in covered), covered


@pytest.mark.quick
def test_equal_lengths_give_the_one_sample_t_interval():
    """Of equal clusters the jackknife is the textbook's: an independent implementation."""
    apart = numpy.array([3, -1, 4, 1, -5, 9, -2, 6])
    estimate = difference(apart, numpy.zeros(8), numpy.full(8, 50), numpy.arange(8))
    expected = stats.ttest_1samp(apart / 50, 0)
    interval = expected.confidence_interval(0.95)
    assert estimate.p == pytest.approx(expected.pvalue)
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high))
    assert not estimate.certain


@pytest.mark.quick
def test_utterances_of_a_speaker_count_once():
    errors, lengths = numpy.array([1, 2, 5, 6] * 5), numpy.full(20, 10)
    alone = rate(errors, lengths, numpy.arange(20))
    speakers = rate(errors, lengths, cluster_indices(["ann", "ann", "bob", "bob"] * 5))
    assert (alone.value, speakers.value) == (0.35, 0.35)
    assert (alone.clusters, speakers.clusters) == (20, 2)
    assert speakers.high - speakers.low > 3 * (alone.high - alone.low)


@pytest.mark.quick
def test_an_utterance_without_a_name_is_a_cluster_of_its_own():
    assert cluster_indices(["b", None, "a", "b", None]).tolist() == [0, 1, 2, 0, 3]


@pytest.mark.quick
def test_a_rate_has_no_interval_below_zero():
    one = rate([0, 0, 0, 3], [10, 10, 10, 10], numpy.arange(4))
    assert one.low == 0.0
    assert one.high > one.value == 0.075


@pytest.mark.quick
@pytest.mark.parametrize(("errors", "clusters"), [([0, 0, 0], [0, 1, 2]), ([1, 2, 3], [0, 0, 0])])
def test_too_little_to_say_gives_no_interval(errors, clusters):
    one = rate(errors, [10, 10, 10], numpy.array(clusters))
    assert (one.low, one.high) == (None, None)


@pytest.mark.quick
def test_one_cluster_gives_no_p_value():
    one = difference([1, 2], [3, 4], [10, 10], numpy.array([0, 0]))
    assert (one.value, one.low, one.p) == (-0.2, None, None)


@pytest.mark.quick
def test_the_same_errors_are_no_difference():
    same = difference([1, 2, 0], [1, 2, 0], [10, 10, 10], numpy.arange(3))
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert not same.certain


@pytest.mark.quick
def test_noise_band_pools_within_configs():
    spread = math.sqrt((2 * 0.01**2 + 2 * 0.02**2) / 2)
    expected = stats.t.ppf(0.975, 2) * math.sqrt(2) * spread
    assert noise_band([[0.29, 0.31], [0.48, 0.52], [0.9]]) == pytest.approx(expected)
    assert noise_band([[0.3], []]) is None
