"""What a telephone line lets through: the band, the handset and the copper pair."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from trainer.channel.draws import Line
from trainer.channel.levels import RATE_HZ
from trainer.data.audio import Samples

_GRID = 1024
"""Points of the responses over 0 to 8000 Hz; as long is the filter, 128 ms around each sample."""
_LOW_ORDER, _HIGH_ORDER = 8, 24
"""Of Butterworth's curves at the edges: 3 dB there, 48 dB an octave below the lower one, and 23 dB
at 3800 Hz above an upper one of 3400 Hz."""
_HUMP_OCTAVES = 0.5
_DB_PER_KM = 1.6
"""Of a 0.4 mm copper pair at 800 Hz; grows with the root of the frequency."""
_REFERENCE_HZ = 800.0


def through_line(samples: Samples, line: Line, band_hz: tuple[float, float]) -> Samples:
    """The samples after band, handset and copper pair; none of it delays them.

    Args:
        samples: At 8 kHz.
        line: Whose handset and length count.
        band_hz: Edges of the band, where it has lost 3 dB.
    """
    taps = _taps(
        *(band_hz, line.line_km or 0.0, line.handset_tilt_db or 0.0),
        *(line.handset_peak_db or 0.0, line.handset_peak_hz or _REFERENCE_HZ),
    )
    from scipy.signal import oaconvolve  # a second of imports, which only simulated lines need

    filtered = oaconvolve(samples, taps)[_GRID // 2 : _GRID // 2 + len(samples)]
    return np.asarray(filtered, dtype=np.float32)


@lru_cache(maxsize=64)
def _taps(
    band_hz: tuple[float, float], km: float, tilt_db: float, peak_db: float, peak_hz: float
) -> Samples:
    """A symmetrical filter of this response: as it is not causal, nothing is delayed."""
    frequency = np.fft.rfftfreq(_GRID, 1 / RATE_HZ)
    heard = np.maximum(frequency, 1.0)
    low, high = band_hz
    octaves = np.log2(heard / np.sqrt(low * high))
    decibel = (
        _butterworth_db(low / heard, _LOW_ORDER)
        + _butterworth_db(heard / high, _HIGH_ORDER)
        + tilt_db * np.clip(octaves / np.log2(high / low), -0.5, 0.5)
        + peak_db * np.exp(-((np.log2(heard / peak_hz) / _HUMP_OCTAVES) ** 2))
        - km * _DB_PER_KM * (np.sqrt(heard / _REFERENCE_HZ) - 1)
    )
    impulse = np.fft.fftshift(np.fft.irfft(10 ** (decibel / 20), _GRID))
    return np.asarray(impulse * np.hanning(_GRID + 1)[:_GRID], dtype=np.float32)


def _butterworth_db(ratio: npt.NDArray[np.float64], order: int) -> npt.NDArray[np.float64]:
    return np.asarray(-10 * np.log10(1 + np.minimum(ratio, 1e6) ** (2 * order)))
