"""The colours of the figures: seen on white, and told apart by colour-blind people."""

from __future__ import annotations

import itertools

import numpy
import pytest

from analysis.report.figures import (
    BASE_COLOUR,
    COLOURS,
    DASHES,
    HATCHINGS,
    MARKERS,
    OTHER,
    OTHER_SWEEP,
    THIN,
)

pytestmark = pytest.mark.quick

SEEN_BY = {
    "all": numpy.eye(3),
    # Full severity, from Machado, Oliveira & Fernandes 2009 (doi 10.1109/TVCG.2009.113).
    "protanopes": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopes": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopes": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = [[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]
WHITE = numpy.array([0.9505, 1.0, 1.0888])


def linear(colour, opacity=1.0):
    """A colour of a page over white, in linear RGB."""
    values = numpy.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    values = opacity * values + 1 - opacity
    return numpy.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIELAB, in which distances are about as large as they look."""
    x = numpy.array(TO_XYZ) @ numpy.clip(rgb, 0, 1) / WHITE
    f = numpy.where(x > 0.008856, numpy.cbrt(x), 7.787 * x + 16 / 116)
    return numpy.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("colour", [*COLOURS.values(), OTHER, BASE_COLOUR, OTHER_SWEEP])
def test_every_line_stands_out_from_white(colour):
    opacity = THIN if colour in COLOURS.values() else 1.0
    luminance = float(numpy.array(TO_XYZ)[1] @ linear(colour, opacity))
    assert 1.05 / (luminance + 0.05) >= 3  # WCAG 2.2, 1.4.11


@pytest.mark.parametrize("people", SEEN_BY)
def test_stages_are_told_apart(people):
    seen = [lab(numpy.array(SEEN_BY[people]) @ linear(colour)) for colour in COLOURS.values()]
    distances = [numpy.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)]
    assert min(distances) > 15


def test_stages_differ_in_more_than_colour():
    for marks in (DASHES, HATCHINGS, MARKERS):
        assert len(set(marks.values())) == len(COLOURS)
