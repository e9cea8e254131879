"""Levels of speech and noise, in linear units of full scale and in decibels."""

import numpy as np

from trainer.data.audio import Samples

RATE_HZ = 8000
"""Sample rate of every telephone line here."""
FRAME = RATE_HZ // 50
"""Samples of 20 ms: a packet's worth, and what activity is measured in."""
_PAUSE_DB = 30.0
"""How far below the loudest frame a frame no longer counts as speech."""
_FLOOR = 1e-12
"""Power of what has none, so that silence has a level too."""


def rms(samples: Samples) -> float:
    """Root mean square of the samples, never zero."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)) + _FLOOR))


def speech_rms(samples: Samples) -> float:
    """Root mean square of the frames in which somebody speaks, never zero.

    Pauses would make the same voice count as quieter the longer they are. ITU-T P.56 measures
    activity with an envelope and a hangover; frames of 20 ms that are at most 30 dB below the
    loudest one come close enough for drawing noise against them.
    """
    whole = len(samples) // FRAME * FRAME
    if not whole:
        return rms(samples)
    frames = np.square(samples[:whole], dtype=np.float64).reshape(-1, FRAME).mean(axis=1)
    active = frames[frames >= frames.max() * 10 ** (-_PAUSE_DB / 10)]
    return float(np.sqrt(active.mean() + _FLOOR))


def ratio(decibel: float) -> float:
    """A level difference as a factor on samples."""
    return float(10 ** (decibel / 20))
