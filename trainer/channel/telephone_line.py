"""One utterance over one telephone line.

The order is that of a call: what the microphone hears (speech and noise) goes through handset,
band and copper pair, gets its echo and hum, is cut where it is too loud, coded, sent and concealed.
Speech and noise take that way side by side up to where they are mixed, so that the signal-to-noise
ratio is what was drawn, where it is heard: within the band.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from conf.channels import ChannelRange
from trainer.channel.codecs import code, from_pcm, to_pcm
from trainer.channel.draws import Line, draw_line, generator
from trainer.channel.levels import FRAME, RATE_HZ, ratio, rms, speech_rms
from trainer.channel.noise import Babble, pink, recorded, to_line_rate, white
from trainer.channel.packet_loss import conceal, lost_packets
from trainer.channel.response import through_line
from trainer.data.audio import Samples

_HARMONICS = (1, 3, 5, 7)


def simulate(
    samples: Samples,
    rate: float,
    *,
    seed: int,
    key: str,
    ranges: ChannelRange,
    babble: Babble | None = None,
) -> tuple[Samples, dict[str, float | str]]:
    """Mono samples through the line of utterance `key`.

    Args:
        samples: In [-1, 1].
        rate: Their sample rate, in Hz.
        seed: One for a corpus.
        key: The utterance's; another key gives another line.
        ranges: What lines are drawn from.
        babble: Mixes other speakers, where `ranges` asks for babble.

    Returns:
        The samples at 8 kHz, as long and in time with the input, each a multiple of 1/32768; and
        what was drawn, as flat fields of a manifest's line.

    Raises:
        ImportError: A codec needs the extra `av`.
        DataError: A noise file cannot be read, or nobody is there to babble.
        ValueError: The samples are not mono or too few, or babble is drawn and not given.
    """
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"expected mono samples, but got an array of shape {samples.shape}")
    line = draw_line(seed, key, ranges)
    rng = generator(seed, f"{key}:signal")
    return send(samples, rate, line, ranges, rng, babble), line.fields()


def send(
    samples: Samples,
    rate: float,
    line: Line,
    ranges: ChannelRange,
    rng: np.random.Generator,
    babble: Babble | None = None,
) -> Samples:
    """The samples as they arrive at the other end of a drawn line, at 8 kHz.

    Args:
        samples: Mono, in [-1, 1].
        rate: Their sample rate, in Hz.
        line: What was drawn.
        ranges: What it was drawn from; its band counts here.
        rng: For the noise itself, the hum's phase and which packets are lost.
        babble: Mixes other speakers, where the line has babble.
    """
    low, high = ranges.band_hz
    band = (low, high)
    at_line_rate = to_line_rate(samples, rate)
    if not len(at_line_rate):
        raise ValueError(f"{len(samples)} samples at {rate:g} Hz, none at {RATE_HZ} Hz")
    speech = through_line(at_line_rate, line, band)
    level = speech_rms(speech)
    mixed = speech
    if line.noise is not None and line.snr_db is not None:
        noise = through_line(_noise(line, rng, len(speech), babble), line, band)
        mixed = mixed + noise * np.float32(level / rms(noise) * ratio(-line.snr_db))
    if line.echo_ms is not None and line.echo_db is not None:
        mixed = mixed + _echo(speech, line.echo_ms, line.echo_db)
    if line.hum_hz is not None and line.hum_db is not None:
        hum = _hum(rng, line.hum_hz, len(speech))
        mixed = mixed + hum * np.float32(level / rms(hum) * ratio(-line.hum_db))
    if line.clipping_db is not None:
        peak = float(np.abs(mixed).max()) * ratio(-line.clipping_db)
        mixed = mixed.clip(-peak, peak)
    if line.level_dbfs_drawn is not None:
        mixed = mixed * np.float32(ratio(line.level_dbfs_drawn) / level)
    received = code(mixed, line.codec)
    if line.loss_rate is not None and line.loss_burst is not None:
        num_packets = -(-len(received) // FRAME)
        lost = lost_packets(rng, num_packets, line.loss_rate, line.loss_burst)
        received = from_pcm(to_pcm(conceal(received, lost)))
    return received


def _noise(line: Line, rng: np.random.Generator, length: int, babble: Babble | None) -> Samples:
    match line.noise:
        case "white":
            return white(rng, length)
        case "pink":
            return pink(rng, length)
        case "babble":
            if babble is None or line.babble_voices is None:
                raise ValueError("expected other speakers to mix babble from, but got none")
            return babble(rng, length, line.babble_voices)
        case path:
            return recorded(rng, length, Path(str(path)))


def _echo(speech: Samples, delay_ms: float, below_db: float) -> Samples:
    delay = min(round(delay_ms * RATE_HZ / 1000), len(speech))
    return np.pad(speech, (delay, 0))[: len(speech)] * np.float32(ratio(-below_db))


def _hum(rng: np.random.Generator, frequency_hz: float, length: int) -> Samples:
    """Mains: what is heard of it on a line are its odd harmonics."""
    turns = frequency_hz * np.arange(length) / RATE_HZ + rng.uniform(0.0, 1.0)
    hum = sum(np.sin(2 * np.pi * harmonic * turns) / harmonic for harmonic in _HARMONICS)
    return np.asarray(hum, dtype=np.float32)
