"""What band, handset and copper pair do to each frequency, measured on an impulse."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.trainer.channel.signals import PLAIN, drawn
from trainer.channel.draws import Line
from trainer.channel.levels import RATE_HZ
from trainer.channel.response import through_line

pytestmark = pytest.mark.quick

BAND = (300.0, 3400.0)


def response_db(line: Line, hz: npt.ArrayLike, band: tuple[float, float] = BAND) -> Any:
    """What a line does to frequencies, measured on an impulse."""
    impulse = np.zeros(8192, dtype=np.float32)
    impulse[4096] = 1.0
    spectrum = np.abs(np.fft.rfft(through_line(impulse, line, band)))
    return 20 * np.log10(spectrum[np.round(np.asarray(hz) / RATE_HZ * 8192).astype(int)])


@pytest.mark.parametrize("band", [BAND, (200.0, 3000.0)])
def test_the_band_ends_where_it_is_said_to(band: tuple[float, float]) -> None:
    low, high = band
    assert response_db(PLAIN, [low, high], band) == pytest.approx([-3, -3], abs=0.3)
    within = np.arange(1.4 * low, 0.9 * high, 50)
    assert response_db(PLAIN, within, band) == pytest.approx(np.zeros(len(within)), abs=0.5)
    assert response_db(PLAIN, [low / 2, low / 3], band).max() < -45
    assert response_db(PLAIN, min(1.15 * high, 3990.0), band) < -25


def test_handset_and_copper_shape_the_band_as_drawn() -> None:
    tilted = response_db(drawn(handset_tilt_db=6.0), [300, 3400])
    assert tilted[1] - tilted[0] == pytest.approx(6.0, abs=0.3)
    hump = drawn(handset_peak_db=8.0, handset_peak_hz=2000.0)
    assert response_db(hump, 2000) == pytest.approx(8.0, abs=0.2)
    assert abs(response_db(hump, 700)) < 0.5
    copper = response_db(drawn(line_km=5.0), [800, 3000])
    assert copper[0] == pytest.approx(0.0, abs=0.2)
    assert copper[1] == pytest.approx(-5 * 1.6 * (np.sqrt(3000 / 800) - 1), abs=0.3)


@pytest.mark.parametrize("length", [1, 100, 5000])
def test_nothing_is_delayed_or_cut_off(length: int) -> None:
    samples = np.zeros(length, dtype=np.float32)
    samples[length // 2] = 1.0
    received = through_line(samples, PLAIN, BAND)
    assert len(received) == length
    assert int(received.argmax()) == length // 2
