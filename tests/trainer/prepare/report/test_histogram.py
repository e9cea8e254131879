"""Values in fixed bins: what is exact, and to what the rest is."""

from __future__ import annotations

import numpy
import pytest

from trainer.prepare.report.facts import SCALES
from trainer.prepare.report.histogram import Scale, Spread, Tally

pytestmark = pytest.mark.quick

_TENTHS = Scale(0, 0.1, 30)


def _spread(*values: float, scale: Scale = _TENTHS) -> Spread:
    tally = Tally(scale)
    tally.add(numpy.array(values, dtype=numpy.float64))
    return tally.spread()


def test_a_value_on_an_edge_begins_its_bin() -> None:
    for tenth in range(30):
        spread = _spread(tenth * 0.1, round(tenth * 0.1, 1))
        assert spread.counts[tenth + 1] == 2, tenth


def test_what_lies_beyond_the_scale_is_counted_and_remembered() -> None:
    spread = _spread(-5.0, 1.0, 99.0)
    assert (spread.counts[0], spread.counts[-1], spread.count) == (1, 1, 3)
    assert (spread.least, spread.most, spread.mean) == (-5.0, 99.0, pytest.approx(95 / 3))
    assert (spread.quantile(0.0), spread.quantile(1.0)) == (-5.0, 99.0)


def test_what_was_not_measured_counts_nowhere() -> None:
    spread = _spread(float("nan"), float("-inf"), 1.0)
    assert (spread.count, spread.least) == (1, 1.0)
    nothing = _spread()
    assert (nothing.count, nothing.mean, nothing.least, nothing.quantile(0.5)) == (0, None) + (
        None,
        None,
    )


def test_quantiles_are_exact_to_a_bin() -> None:
    values = numpy.random.default_rng(1).gamma(3.0, 1.2, 20_000)
    spread = _spread(*values, scale=SCALES["duration_s"])
    for share in (0.01, 0.25, 0.5, 0.9, 0.99):
        found = spread.quantile(share)
        assert found is not None
        assert found <= numpy.quantile(values, share) <= found + 0.1 + 1e-9


def test_in_parts_or_at_once_it_is_the_same() -> None:
    values = numpy.random.default_rng(2).normal(1.5, 1.0, 1000)
    parts = Tally(_TENTHS)
    for part in numpy.array_split(values, 7):
        parts.add(part)
    assert parts.spread().counts == _spread(*values).counts


def test_shares_are_asked_at_edges_only() -> None:
    spread = _spread(0.29, 0.3, 0.31, 7.0)
    assert (spread.below(0.3), spread.from_on(0.3)) == (1, 3)
    with pytest.raises(ValueError, match="expected an edge"):
        spread.below(0.35)
