"""Speech codecs: samples coded as on the line and decoded again, none later and none longer.

soundfile brings G.711, GSM 06.10 and G.726; AMR-NB and Opus come with the extra `av`.
"""

import io
from collections.abc import Callable
from fractions import Fraction
from functools import cache, partial

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from trainer.channel.levels import FRAME, RATE_HZ
from trainer.data.audio import Samples

Pcm = npt.NDArray[np.int16]

_FULL_SCALE = 32768
_FILES = {
    # libsndfile's AU and WAV containers; what they pad to whole frames is cut off again.
    "gsm": ("WAV", "GSM610"),
    "g726_24": ("AU", "G723_24"),
    "g726_32": ("AU", "G721_32"),
    "g726_40": ("AU", "G723_40"),
}
_LIBRARIES: dict[str, tuple[str, int, int, dict[str, str]]] = {
    # FFmpeg's name, the rate it decodes at, samples at 8 kHz before the beginning, options.
    "amr": ("libopencore_amrnb", RATE_HZ, RATE_HZ // 200, {}),  # it looks 5 ms ahead
    "opus": ("libopus", 48000, 0, {"application": "voip"}),
}
_LAWS = {"g711_ulaw": "ULAW", "g711_alaw": "ALAW"}


def code(samples: Samples, codec: str) -> Samples:
    """The samples after coding and decoding, clipped to full scale.

    Args:
        samples: At 8 kHz.
        codec: One of `conf.channels.CODECS`, or several joined by `+`, one after the other.

    Returns:
        As many, in time with the input; each a multiple of 1/32768, as a wav file holds them.

    Raises:
        ImportError: The codec needs the extra `av`; `conf.channels.check_installed` says so before.
    """
    pcm = to_pcm(samples)
    for name in codec.split("+"):
        pcm = _coder(name)(pcm)
    return from_pcm(pcm)


def to_pcm(samples: Samples) -> Pcm:
    """Samples as 16-bit numbers, clipped."""
    return np.rint(samples * _FULL_SCALE).clip(-_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)


def from_pcm(pcm: Pcm) -> Samples:
    """16-bit numbers as samples, exactly."""
    return pcm.astype(np.float32) / np.float32(_FULL_SCALE)


def _coder(name: str) -> Callable[[Pcm], Pcm]:
    if name == "none":
        return lambda pcm: pcm
    if name in _LAWS:
        return partial(np.take, g711_table(name), mode="wrap")
    if name in _FILES:
        return partial(_through_file, container=_FILES[name])
    kind, rate = name.split("_")
    return partial(_through_av, kind=kind, bits_per_s=round(float(rate) * 1000))


@cache
def g711_table(name: str) -> Pcm:
    """What becomes of each 16-bit sample, at its index as an unsigned number."""
    return _through_file(np.arange(1 << 16).astype(np.int16), ("WAV", _LAWS[name]))


def _through_file(pcm: Pcm, container: tuple[str, str]) -> Pcm:
    format_, subtype = container
    coded = io.BytesIO()
    soundfile.write(coded, pcm, RATE_HZ, format=format_, subtype=subtype)
    coded.seek(0)
    decoded, _ = soundfile.read(coded, dtype="int16")
    return np.asarray(decoded[: len(pcm)], dtype=np.int16)


def _through_av(pcm: Pcm, kind: str, bits_per_s: int) -> Pcm:
    import av

    library, rate_hz, delay, options = _LIBRARIES[kind]
    encoder = av.CodecContext.create(library, "w")
    encoder.sample_rate, encoder.layout, encoder.format = RATE_HZ, "mono", "s16"
    encoder.time_base, encoder.bit_rate, encoder.options = Fraction(1, RATE_HZ), bits_per_s, options
    encoder.open()
    decoder = av.CodecContext.create(library, "r")
    decoder.sample_rate, decoder.layout = rate_hz, "mono"
    if encoder.extradata:  # Opus says there how much of its output comes before the beginning
        decoder.extradata = encoder.extradata
    # Two frames more push the last samples out.
    whole = np.pad(pcm, (0, -len(pcm) % FRAME + 2 * FRAME)).reshape(-1, 1, FRAME)
    packets = []
    for samples in whole:
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = RATE_HZ
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    frames = [frame for packet in packets for frame in decoder.decode(packet)]
    decoded = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    if rate_hz != RATE_HZ:
        decoded = soxr.resample(decoded, rate_hz, RATE_HZ)
    return decoded[delay : delay + len(pcm)]
