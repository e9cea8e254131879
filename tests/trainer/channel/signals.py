"""Signals whose way over a telephone line can be measured, and lines that change one thing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from conf.channels import ChannelRange
from trainer.channel.draws import Line
from trainer.channel.levels import RATE_HZ
from trainer.channel.telephone_line import send
from trainer.data.audio import Samples

PLAIN = Line("test", "none")

RANGES = ChannelRange(codecs=["none"], level_dbfs=None)


EVERYTHING: dict[str, Any] = {
    "line_km": [1.0, 5.0],
    "handset": {},
    "noise": {"kinds": ["white"]},
    "hum": {},
    "clipping": {"share": 1.0},
    "loss": {"rate": [0.05, 0.1]},
    "echo": {"share": 1.0},
}


def speech_like(duration_s: float = 4.0, seed: int = 0) -> Samples:
    """Syllables of noise in the band's middle, four a second with pauses between."""
    rng = np.random.default_rng(seed)
    length = int(duration_s * RATE_HZ)
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.fft.rfftfreq(length, 1 / RATE_HZ)
    spectrum[(frequency < 500) | (frequency > 2800)] = 0
    syllables = np.arange(length) % (RATE_HZ // 4) < RATE_HZ // 6
    return (0.1 * np.fft.irfft(spectrum, length) * syllables).astype(np.float32)


def decibel(ratio: float | np.floating[Any]) -> float:
    return float(20 * np.log10(ratio))


def sent(line: Line, samples: Samples, rate: float = RATE_HZ, **options: Any) -> Samples:
    return send(samples, rate, line, RANGES, np.random.default_rng(1), **options)


def drawn(**values: Any) -> Line:
    return Line("test", **{"codec": "none", **values})


def ranges(**values: Any) -> ChannelRange:
    return ChannelRange.model_validate({"codecs": ["none"], **values})


def write_voice(path: Path, seed: int, rate_hz: int = 16000) -> Path:
    soundfile.write(path, np.repeat(speech_like(1.0, seed), rate_hz // RATE_HZ), rate_hz)
    return path
