"""Several differences at once: what is left of each when one may choose among them.

    corrected = simultaneous(apart_TU, lengths, clusters)

The best of sixteen trials is partly the luckiest: where nothing differs, its own p-value falls
below 0.05 in far more than 5 % of sweeps. What chance gives the largest of all differences is found
by turning the signs of whole clusters (speakers, calls) around, of all trials together: where a
config changes nothing, a cluster's difference is as likely up as down. With |t| from the jackknife
of `significance`,

    p = share of sign flips whose largest |t| over all trials is at least the trial's own,

and the largest |t| that 5 % of flips exceed is the critical value of intervals that hold for all
trials at once (max-T: Westfall & Young 1993; Romano & Wolf 2005, Econometrica 73, 1237). Up to
EXACT clusters all flips are made, and the result has no chance in it; beyond, FLIPS of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy
from numpy.typing import ArrayLike

from analysis.facts.significance import LEVEL, Estimate, Floats, Ints, by_cluster

EXACT = 14
FLIPS = 10_000
_CHUNK = 1_000


def simultaneous(apart_TU: ArrayLike, lengths: ArrayLike, clusters: Ints) -> list[Estimate]:
    """Each difference with the p-value and interval that hold for all of them together.

    Args:
        apart_TU: Errors minus another system's, for T trials (at least one) and U utterances.
        lengths: Reference characters of each utterance, not all 0.
        clusters: Of each utterance, from `cluster_indices`.

    Returns:
        One for each trial. `low` and `high` are None where there are too few clusters to reach
        95 % (fewer than six), `p` with one cluster.
    """
    lengths_G = by_cluster(lengths, clusters)
    sums_TG = numpy.array([by_cluster(row, clusters) for row in numpy.asarray(apart_TU, float)])
    count = len(lengths_G)
    values_T = sums_TG.sum(1) / lengths_G.sum()
    if count == 1:
        return [Estimate(float(value), None, None, count) for value in values_T]
    t_T, errors_T = _t(numpy.ones((1, count)), sums_TG, lengths_G)
    largest_F = numpy.concatenate(
        [_t(signs_FG, sums_TG, lengths_G)[0].max(1) for signs_FG in _flips(count)]
    )
    # A little less than itself: a sum in another order differs in its last digits.
    p_T = (largest_F[:, None] >= t_T * (1 - 1e-9)).mean(0)
    reaches = 1 / len(largest_F) <= 1 - LEVEL
    critical = numpy.sort(largest_F)[math.ceil(LEVEL * len(largest_F)) - 1]
    return [
        Estimate(
            float(value),
            float(value - critical * error) if reaches else None,
            float(value + critical * error) if reaches else None,
            count,
            float(p),
        )
        for value, error, p in zip(values_T, errors_T[0], p_T, strict=True)
    ]


def _flips(clusters: int) -> Iterator[Floats]:
    """Signs of clusters, some flips at a time, as they are among them.

    The first cluster keeps its sign: turning all of them around leaves every |t| as it is.
    """
    if clusters <= EXACT:
        bits = numpy.arange(2 ** (clusters - 1))[:, None] >> numpy.arange(clusters - 1)
        signs = 1.0 - 2.0 * (bits & 1)
        yield numpy.hstack([numpy.ones((len(signs), 1)), signs])
        return
    rng = numpy.random.default_rng(0)  # the same figures for whoever looks again
    yield numpy.ones((1, clusters))
    for first in range(1, FLIPS, _CHUNK):
        shape = (min(_CHUNK, FLIPS - first), clusters)
        yield rng.choice((-1.0, 1.0), shape)


def _t(signs_FG: Floats, sums_TG: Floats, lengths_G: Floats) -> tuple[Floats, Floats]:
    """|t| of F flips and T trials, and the standard error, both (F, T).

    Without cluster g the rate r is (S - s_g) / (L - l_g), which is r - (s_g - r l_g) / (L - l_g).
    So the jackknife's sum of squares falls into products with the signs, for all flips at once.
    """
    count, whole = len(lengths_G), lengths_G.sum()
    weights_G = 1 / (whole - lengths_G) ** 2
    rates_FT = signs_FG @ sums_TG.T / whole
    squares_FT = (
        (weights_G * sums_TG**2).sum(1)
        - 2 * rates_FT * (signs_FG @ (weights_G * lengths_G * sums_TG).T)
        + rates_FT**2 * (weights_G * lengths_G**2).sum()
    )
    errors_FT = numpy.sqrt((count - 1) / count * numpy.maximum(squares_FT, 0))
    with numpy.errstate(divide="ignore", invalid="ignore"):
        t_FT = numpy.abs(rates_FT) / errors_FT
    return numpy.where(rates_FT == 0, 0.0, t_FT), errors_FT
