"""Noise to lay under speech: white, pink, other speakers, own recordings.

Each function gives as many samples as asked, at 8 kHz, of any level: who mixes sets it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr

from conf.channels import ChannelRange
from conf.errors import DataError
from trainer.channel.levels import RATE_HZ, speech_rms
from trainer.data.audio import Samples
from trainer.data.manifest import Utterance, one_line

Babble = Callable[[np.random.Generator, int, int], Samples]
"""Mixes babble for one utterance: from random numbers, so many samples, so many voices."""

_TRIES = 50
"""How often another utterance is drawn where the first ones do not serve."""
_UNREADABLE = (OSError, RuntimeError, TypeError, ValueError)
"""What soundfile raises for files that are no recordings."""
_PINK_FROM_HZ = 20.0


def white(rng: np.random.Generator, length: int) -> Samples:
    return rng.standard_normal(length, dtype=np.float32)


def pink(rng: np.random.Generator, length: int) -> Samples:
    """Noise whose power falls by 3 dB an octave."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.fft.rfftfreq(length, 1 / RATE_HZ)
    shaped = spectrum / np.sqrt(np.maximum(frequency, _PINK_FROM_HZ))
    return np.fft.irfft(shaped, length).astype(np.float32)


def recorded(rng: np.random.Generator, length: int, path: Path) -> Samples:
    """A part of a recording of noise, from anywhere in it; a short one is repeated.

    Raises:
        DataError: It cannot be read, or is empty.
    """
    try:
        return _excerpt(rng, length, path)
    except _UNREADABLE as error:
        raise DataError(f"{path}: got {one_line(error)}, expected a recording of noise") from error


class OtherSpeakers:
    """Babble from the other speakers of a manifest, each as loud as the other.

    Which utterances are drawn hangs on the manifest's order, so another one gives other babble.

    Args:
        utterances: Whose audio is mixed. Where they name no speaker, each is one by itself.
    """

    def __init__(self, utterances: Sequence[Utterance]) -> None:
        self._utterances = utterances

    def check(self, ranges: ChannelRange) -> None:
        """Refuses a channel with babble where nobody else speaks.

        Raises:
            DataError: All utterances with a text are of one speaker.
        """
        if ranges.noise is None or "babble" not in ranges.noise.kinds:
            return
        speakers = (item.speaker or item.key for item in self._utterances if item.target)
        first = next(speakers, None)
        if all(speaker == first for speaker in speakers):
            raise DataError(
                f"{self._utterances[0].manifest}: got one speaker ({first}), expected several, of "
                f"whom channel {ranges.name} mixes babble (noise.kinds)"
            )

    def all_but(self, utterance: Utterance) -> Babble:
        """Babble of everybody but the speaker of an utterance."""
        return functools.partial(self._mix, utterance)

    def _mix(
        self, speaking: Utterance, rng: np.random.Generator, length: int, num_voices: int
    ) -> Samples:
        """Raises a DataError if there is nobody else."""
        mixed = np.zeros(length, dtype=np.float32)
        for _ in range(num_voices):
            voice = self._voice(speaking, rng, length)
            mixed += voice / np.float32(speech_rms(voice))
        return mixed

    def _voice(self, speaking: Utterance, rng: np.random.Generator, length: int) -> Samples:
        for _ in range(_TRIES):
            other = self._utterances[int(rng.integers(len(self._utterances)))]
            same = other.speaker is not None and other.speaker == speaking.speaker
            if same or other.key == speaking.key or not other.target:
                continue
            with contextlib.suppress(*_UNREADABLE):
                return _excerpt(rng, length, other.source)
        raise DataError(
            f"{speaking.place}: got no other speaker among {_TRIES} draws of "
            f"{len(self._utterances)} utterances, expected some to mix babble from"
        )


def to_line_rate(samples: Samples, rate_hz: float) -> Samples:
    """Samples at 8 kHz."""
    if rate_hz == RATE_HZ:
        return samples
    return np.asarray(soxr.resample(samples, rate_hz, RATE_HZ), dtype=np.float32)


def _excerpt(rng: np.random.Generator, length: int, path: Path) -> Samples:
    """As many samples of a file, from a place that is drawn."""
    with soundfile.SoundFile(str(path)) as file:
        rate_hz: int = file.samplerate
        wanted = -(-length * rate_hz // RATE_HZ) + 1
        spare = file.frames - wanted
        file.seek(int(rng.integers(spare + 1)) if spare > 0 else 0)
        samples = file.read(wanted, dtype="float32", always_2d=True).mean(axis=1)
    if not len(samples):
        raise ValueError("no samples")
    at_line_rate = to_line_rate(samples, rate_hz)
    shift = int(rng.integers(len(at_line_rate))) if spare < 0 else 0
    return np.resize(np.roll(at_line_rate, shift), length)
