"""How a quantity is spread over very many values, in bins that are fixed beforehand.

Memory does not grow with the number of values; a quantile is exact to the width of a bin.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy
import numpy.typing

Floats = numpy.typing.NDArray[numpy.float64]

_ON_AN_EDGE = 1e-6
"""Of a bin: 0.3 / 0.1 is 2.9999999999999996, and belongs to the bin that begins at 0.3."""


@dataclass(frozen=True)
class Scale:
    """Bins of one width from `low` on; a value on an edge belongs to the bin that begins there."""

    low: float
    width: float
    bins: int

    def edge(self, index: int) -> float:
        """Where a bin begins."""
        return round(self.low + index * self.width, 9)


@dataclass(frozen=True)
class Spread:
    """What values there are.

    Attributes:
        scale: The bins.
        counts: Values per bin; the first lie below the scale, the last at its end or beyond.
        total: Sum of the values.
        least: The smallest, exactly; None if there are no values.
        most: The largest.
    """

    scale: Scale
    counts: tuple[int, ...]
    total: float
    least: float | None
    most: float | None

    @property
    def count(self) -> int:
        """How many values."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """Their mean."""
        return self.total / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """The value that a share of them do not exceed, down to where its bin begins."""
        if self.least is None or self.most is None:
            return None
        wanted = share * self.count
        reached = itertools.accumulate(self.counts)
        index = next(
            index
            for index, (count, so_far) in enumerate(zip(self.counts, reached, strict=True))
            if count and so_far >= wanted
        )
        if index == 0:
            return self.least
        if index == len(self.counts) - 1:
            return self.most
        return max(self.scale.edge(index - 1), self.least)

    def below(self, value: float) -> int:
        """How many are less than an edge of the scale."""
        return sum(self.counts[: self._bin(value)])

    def from_on(self, value: float) -> int:
        """How many are an edge of the scale or more."""
        return sum(self.counts[self._bin(value) :])

    def _bin(self, value: float) -> int:
        position = (value - self.scale.low) / self.scale.width
        index = round(position)
        if not math.isclose(position, index, abs_tol=_ON_AN_EDGE):
            raise ValueError(f"expected an edge of {self.scale}, but got {value}")
        return min(max(index, 0), self.scale.bins) + 1


class Tally:
    """Counts values into a `Spread`."""

    def __init__(self, scale: Scale) -> None:
        self._scale = scale
        self._counts = numpy.zeros(scale.bins + 2, dtype=numpy.int64)
        self._total = 0.0
        self._least, self._most = math.inf, -math.inf

    def add(self, values: Floats) -> None:
        """Count values; those that are no numbers were not measured."""
        values = values[numpy.isfinite(values)]
        if not len(values):
            return
        scale = self._scale
        bins = numpy.floor((values - scale.low) / scale.width + _ON_AN_EDGE).astype(numpy.int64)
        numpy.clip(bins, -1, scale.bins, out=bins)
        self._counts += numpy.bincount(bins + 1, minlength=len(self._counts))
        self._total += float(values.sum())
        self._least = min(self._least, float(values.min()))
        self._most = max(self._most, float(values.max()))

    def spread(self) -> Spread:
        """What was counted so far."""
        known = math.isfinite(self._least)
        return Spread(
            self._scale,
            tuple(self._counts.tolist()),
            self._total,
            self._least if known else None,
            self._most if known else None,
        )
