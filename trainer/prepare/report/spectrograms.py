"""Spectrograms of the few recordings that a data report shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
import numpy.typing
import soundfile

from trainer.data.manifest import one_line
from trainer.prepare.report.facts import Picked

LONGEST_S = 8.0
"""Shown of a recording, from its beginning."""
WINDOW_S = 0.064
ROWS = 128
COLUMNS = 250
FLOOR_DB = 80
"""Shown below the loudest."""
_STEP_DB = 2
"""Levels are rounded to it: seen is no difference, and the page stays small."""


@dataclass(frozen=True)
class Sound:
    """A recording's spectrogram.

    Attributes:
        picked: The recording.
        level_db: Rows of one frequency each, upwards; in each a value per time step.
        step_s: From one value to the next.
        step_hz: From one row to the next.
        floor_db: Of the colours.
        top_db: Of the colours.
    """

    picked: Picked
    level_db: list[list[int]]
    step_s: float
    step_hz: float
    floor_db: int
    top_db: int

    @property
    def top_hz(self) -> float:
        """Highest frequency."""
        return self.step_hz * len(self.level_db)


def listen(picked: Picked) -> Sound | str:
    """The spectrogram of a recording, or why there is none."""
    try:
        with soundfile.SoundFile(picked.source) as file:
            rate_hz = file.samplerate
            samples = file.read(int(LONGEST_S * rate_hz), dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        return one_line(error)
    return spectrogram(picked, samples.mean(axis=1), rate_hz)


def spectrogram(
    picked: Picked, samples: numpy.typing.NDArray[numpy.float32], rate_hz: int
) -> Sound | str:
    """The spectrogram of mono samples in [-1, 1], or why there is none."""
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    window = int(rate_hz * WINDOW_S)
    if len(samples) < window or not numpy.isfinite(samples).all():
        return f"{len(samples)} samples"
    hop = max(min(len(samples) // COLUMNS, window // 2), window // 16)
    transform = ShortTimeFFT(hann(window, sym=False), hop, rate_hz, scale_to="magnitude")
    first, last = transform.lower_border_end[1], transform.upper_border_begin(len(samples))[1]
    power = transform.spectrogram(samples, p0=first, p1=max(last, first + 1))[:-1]
    # Neighbouring frequencies together: a page has no more rows than that.
    several = max(1, len(power) // ROWS)
    rows = power[: len(power) // several * several].reshape(-1, several, power.shape[1]).mean(1)
    level = 10 * numpy.log10(numpy.maximum(rows, 1e-12))
    top = int(numpy.ceil(level.max()))
    shown = _STEP_DB * numpy.round(numpy.maximum(level, top - FLOOR_DB) / _STEP_DB)
    return Sound(
        picked,
        shown.astype(int).tolist(),
        hop / rate_hz,
        several * rate_hz / window,
        top - FLOOR_DB,
        top,
    )
