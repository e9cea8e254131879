"""Reading and measuring sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import numpy.typing
import soundfile

Samples = numpy.typing.NDArray[numpy.float32]
Floats = numpy.typing.NDArray[numpy.floating[Any]]

TELEPHONE_HZ = 4000
"""Nothing above it passes a narrow-band telephone."""
BAND_HZ = (300, 3400)
BAND_ABOVE_HZ = (4200, 7800)
"""Where clean 16 kHz speech has sound and a telephone has none."""
WIDEBAND_SHARE = 1e-5
"""Power above the telephone's band, against that within: fricatives have 100 times as much, what a
resampler leaves a hundredth."""
SILENCE = 1e-4
"""Greatest sample of a recording without sound (-80 dBFS)."""


def power_above(mono: numpy.typing.NDArray[Any], rate_hz: int) -> float:
    """Power above the telephone's band as a share of that within it."""
    if rate_hz / 2 <= BAND_ABOVE_HZ[0]:
        return 0.0
    frequency, power = _spectrum(mono, rate_hz)
    return _power(BAND_ABOVE_HZ, frequency, power) / _in_band(frequency, power)


def bandwidth_hz(mono: numpy.typing.NDArray[Any], rate_hz: int) -> int:
    """Up to where a recording has sound, whatever its header's rate.

    Above it lies no more power than `WIDEBAND_SHARE` of that in the telephone's band.
    """
    frequency, power = _spectrum(mono, rate_hz)
    above = numpy.cumsum(power[::-1])[::-1] / _in_band(frequency, power)
    heard = numpy.flatnonzero(above > WIDEBAND_SHARE)
    return int(frequency[heard[-1]]) if len(heard) else 0


def _spectrum(mono: numpy.typing.NDArray[Any], rate_hz: int) -> tuple[Floats, Floats]:
    """Frequencies in Hz, and the power at each over the whole recording."""
    window = min(1024, len(mono))
    whole = mono[: len(mono) // window * window]
    # A window that ends softly, or the edges of each piece would look like high frequencies.
    pieces = whole.reshape(-1, window) * numpy.blackman(window)
    power = (numpy.abs(numpy.fft.rfft(pieces, axis=1)) ** 2).sum(axis=0)
    frequency: Floats = numpy.fft.rfftfreq(window, 1 / rate_hz)
    return frequency, power


def _in_band(frequency: Floats, power: Floats) -> float:
    return max(_power(BAND_HZ, frequency, power), 1e-20)


def _power(band_hz: tuple[int, int], frequency: Floats, power: Floats) -> float:
    return float(power[(frequency >= band_hz[0]) & (frequency <= band_hz[1])].sum())


def read_mono(path: Path) -> tuple[Samples, int]:
    """Samples and their rate; several channels are averaged, as the features do it.

    Raises:
        OSError, RuntimeError, TypeError, ValueError: It cannot be read or holds no numbers.
    """
    samples, rate_hz = soundfile.read(str(path), dtype="float32", always_2d=True)
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if not numpy.isfinite(mono).all():
        raise ValueError("samples that are no numbers")
    return numpy.ascontiguousarray(mono), int(rate_hz)
