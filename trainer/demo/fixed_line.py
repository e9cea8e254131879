"""The demonstration's telephone line: 8 kHz, 300-3400 Hz, noise, hum, G.711 and lost packets.

It stays as it is, so that the demonstration's corpus keeps its checksum and the tiny base its
figures, whatever `trainer.channel`, the line for everybody's speech, becomes. Every draw comes from
a seed and the utterance's key: the same samples, seed and key give the same output bit for bit,
whatever was simulated before. `simulate` draws a `Line` and sends the samples through it;
`draw_line` and `send` are the two halves, for whoever wants one line twice.
"""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from scipy.signal import butter, sosfilt

from trainer.channel.draws import generator

Samples = npt.NDArray[np.float32]

TELEPHONE_RATE_HZ = 8000
PASS_BAND_HZ = (300.0, 3400.0)
FILTER_ORDER = 4
PACKET_SAMPLES = TELEPHONE_RATE_HZ // 50  # 20 ms, what a G.711 RTP packet carries
BURST_PACKETS = 1.5  # mean length of a loss: packets are lost in bursts
FADE_PER_PACKET = 0.5  # how much quieter each repetition of the last good packet gets


@dataclass(frozen=True)
class ChannelRange:
    """What lines are drawn from; both ends of a range are possible."""

    level_dbfs: tuple[float, float] = (-30.0, -18.0)  # RMS level of the speech on the line
    snr_db: tuple[float, float] = (
        10.0,
        25.0,
    )  # speech against acoustic noise, before the line's filter
    hum_db: tuple[float, float] = (30.0, 50.0)  # speech against mains hum
    loss_rate: tuple[float, float] = (0.01, 0.05)  # fraction of packets that do not arrive
    codecs: tuple[str, ...] = ("ULAW", "ALAW")


@dataclass(frozen=True)
class Line:
    """One drawn telephone line."""

    codec: str
    level_dbfs: float
    snr_db: float
    noise_tilt: float  # 0: white noise, 1: pink
    hum_hz: float
    hum_db: float
    loss_rate: float
    noise_seed: int  # of the noise and of which packets are lost


def draw_line(seed: int, key: str, ranges: ChannelRange | None = None) -> Line:
    """The line of utterance `key`: a function of seed and key alone."""
    ranges = ranges or ChannelRange()
    rng = generator(seed, key)
    return Line(
        codec=ranges.codecs[int(rng.integers(len(ranges.codecs)))],
        level_dbfs=float(rng.uniform(*ranges.level_dbfs)),
        snr_db=float(rng.uniform(*ranges.snr_db)),
        noise_tilt=float(rng.uniform(0.0, 1.0)),
        hum_hz=float((50.0, 60.0)[int(rng.integers(2))]),
        hum_db=float(rng.uniform(*ranges.hum_db)),
        loss_rate=float(rng.uniform(*ranges.loss_rate)),
        noise_seed=int(rng.integers(2**63)),
    )


def rms(samples: npt.NDArray[np.floating]) -> float:
    """Root mean square of the samples, never zero, so that silence has a level too."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)) + 1e-12))


def noise_for(
    speech: npt.NDArray[np.floating], rng: np.random.Generator, *, snr_db: float, tilt: float
) -> npt.NDArray[np.float64]:
    """Noise `snr_db` below the speech, as long; its power falls with frequency ** `tilt`."""
    spectrum = np.fft.rfft(rng.standard_normal(len(speech)))
    frequency = np.maximum(np.arange(len(spectrum)), 1.0)
    noise = np.fft.irfft(spectrum * frequency ** (-tilt / 2), len(speech))
    return np.asarray(noise * rms(speech) / rms(noise) * 10 ** (-snr_db / 20), dtype=np.float64)


def code_g711(samples: npt.NDArray[np.floating], codec: str) -> Samples:
    """The samples after G.711 coding and decoding; `codec` is ULAW or ALAW."""
    coded = io.BytesIO()
    soundfile.write(coded, samples, TELEPHONE_RATE_HZ, format="WAV", subtype=codec)
    coded.seek(0)
    decoded, _ = soundfile.read(coded, dtype="float32")
    return np.asarray(decoded, dtype=np.float32)


def _lost_packets(
    rng: np.random.Generator, num_packets: int, loss_rate: float
) -> npt.NDArray[np.bool_]:
    """Which packets are lost: a two-state chain whose mean loss is `loss_rate`, in bursts."""
    leave = 1.0 / BURST_PACKETS
    enter = min(1.0, loss_rate * leave / max(1.0 - loss_rate, 1e-9))
    draws = rng.random(num_packets)
    lost = np.zeros(num_packets, dtype=np.bool_)
    state = False
    for index, draw in enumerate(draws):
        state = bool(draw >= leave) if state else bool(draw < enter)
        lost[index] = state
    return lost


def conceal(samples: Samples, lost: npt.NDArray[np.bool_]) -> Samples:
    """Replace each lost packet by the one before it, quieter with each repetition.

    At the start, where there is none before it, by silence.
    """
    output = samples.copy()
    for index in np.flatnonzero(lost):
        start = int(index) * PACKET_SAMPLES
        packet = output[start : start + PACKET_SAMPLES]
        before = output[max(0, start - PACKET_SAMPLES) : start]
        packet[:] = before[: len(packet)] * FADE_PER_PACKET if len(before) else 0.0
    return output


def send(samples: Samples, sample_rate_hz: float, line: Line) -> Samples:
    """The samples as they arrive at the other end of the line, at 8 kHz."""
    rng = np.random.Generator(np.random.PCG64(line.noise_seed))
    speech = soxr.resample(samples, sample_rate_hz, TELEPHONE_RATE_HZ).astype(np.float64)
    speech *= 10 ** (line.level_dbfs / 20) / rms(speech)
    level = rms(speech)

    noise = noise_for(speech, rng, snr_db=line.snr_db, tilt=line.noise_tilt)
    sections = butter(FILTER_ORDER, PASS_BAND_HZ, "bandpass", fs=TELEPHONE_RATE_HZ, output="sos")
    filtered = sosfilt(sections, speech + noise)

    # Hum is induced on the line itself, after the band-pass; what is heard are its harmonics.
    turns = line.hum_hz * np.arange(len(speech)) / TELEPHONE_RATE_HZ + rng.uniform(0.0, 1.0)
    hum = sum(np.sin(2 * np.pi * harmonic * turns) / harmonic for harmonic in (1, 3, 5, 7))
    filtered = filtered + hum * level * 10 ** (-line.hum_db / 20)

    received = code_g711(np.clip(filtered, -1.0, 1.0), line.codec)
    num_packets = -(-len(received) // PACKET_SAMPLES)
    return conceal(received, _lost_packets(rng, num_packets, line.loss_rate))


def simulate(
    samples: Samples,
    sample_rate_hz: float,
    *,
    seed: int,
    key: str,
    ranges: ChannelRange | None = None,
) -> Samples:
    """Mono samples through the line of utterance `key`, at 8 kHz.

    Args:
        samples: mono samples in [-1, 1].
        sample_rate_hz: their rate.
        seed: one seed for a corpus.
        key: the utterance's key; another key gives another line.
        ranges: what lines are drawn from.
    """
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"expected mono samples, but got an array of shape {samples.shape}")
    return send(samples, sample_rate_hz, draw_line(seed, key, ranges))
