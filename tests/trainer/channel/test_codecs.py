"""Codecs against the standard's formulas where there are some, else against the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from conf.channels import AMR, CODECS, NEED_AV, OPUS
from tests.trainer.channel.signals import decibel, drawn, sent, speech_like
from trainer.channel.codecs import code, to_pcm
from trainer.channel.levels import FRAME, RATE_HZ, rms
from trainer.data.audio import Samples
from trainer.data.manifest import read_data_list

pytestmark = pytest.mark.quick


# G.711, after the formulas of ITU-T G.711 (tables 1 and 2), in 16-bit numbers


def ulaw(octet: int) -> tuple[int, int]:
    """Value of a mu-law octet as transmitted, and half of its step: 14 bits, shifted to 16."""
    inverted = ~octet & 0xFF
    segment = (inverted >> 4) & 7
    magnitude = ((2 * (inverted & 0x0F) + 33) << segment) - 33
    return (-magnitude if inverted & 0x80 else magnitude) * 4, (1 << segment) * 4


def alaw(octet: int) -> tuple[int, int]:
    """Value of an A-law octet as transmitted, and half of its step: 13 bits, shifted to 16."""
    word = octet ^ 0x55  # the even bits are inverted on the line
    segment, mantissa = (word >> 4) & 7, word & 0x0F
    magnitude = 2 * mantissa + 1 if segment == 0 else (2 * mantissa + 33) << (segment - 1)
    half_step = (1 << max(0, segment - 1)) * 8
    return (magnitude if word & 0x80 else -magnitude) * 8, half_step


LAWS = {"g711_ulaw": ulaw, "g711_alaw": alaw}


@pytest.mark.parametrize("law", LAWS)
def test_all_256_octets_of_g711_decode_as_the_standard_says(law: str, tmp_path: Path) -> None:
    path = tmp_path / "octets.raw"
    path.write_bytes(bytes(range(256)))
    decoded, _ = soundfile.read(
        path,
        dtype="int16",
        samplerate=RATE_HZ,
        channels=1,
        format="RAW",
        subtype=law.removeprefix("g711_").upper(),
    )
    assert decoded.tolist() == [LAWS[law](octet)[0] for octet in range(256)]


@pytest.mark.parametrize(("law", "dropped_bits"), [("g711_ulaw", 2), ("g711_alaw", 3)])
def test_every_sample_becomes_the_value_in_whose_step_it_lies(law: str, dropped_bits: int) -> None:
    half_steps = dict(LAWS[law](octet) for octet in range(256))
    samples = np.arange(-32768, 32768)
    values = to_pcm(code((samples / 32768).astype(np.float32), law)).astype(int)
    assert set(values.tolist()) == set(half_steps)
    assert (np.diff(values) >= 0).all()
    reach = np.array([half_steps[value] for value in values.tolist()]) + (1 << dropped_bits)
    loud = np.abs(samples) > max(half_steps) + half_steps[max(half_steps)]  # cut
    assert (np.abs(values - samples) <= reach)[~loud].all()


# All codecs, on speech


MOST_NOISE_DB = {
    # Speech against what the codec adds to it, at least: waveform coders keep the waveform.
    "none": 80,
    "g711_ulaw": 34,
    "g711_alaw": 34,
    "g726_40": 26,
    "g726_32": 22,
    "g726_24": 16,
    "gsm": 4,
}


def demo_speech(corpus: Path, index: int = 0) -> Samples:
    """A wideband recording of the demonstration at 8 kHz, within the band."""
    utterance = read_data_list(corpus / "wideband.jsonl")[index]
    samples, rate_hz = soundfile.read(utterance.source, dtype="float32")
    return sent(drawn(level_dbfs_drawn=-22.0), samples, rate_hz)


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_keeps_time_and_length_and_the_voice(codec: str, corpus: Path) -> None:
    if codec in NEED_AV:
        pytest.importorskip("av", reason="AMR and Opus need the extra av")
    speech = demo_speech(corpus)
    for length in (1, 100, FRAME, FRAME + 1, 12345):
        assert len(code(speech[:length], codec)) == length
    coded = code(speech, codec)
    likeness = np.correlate(coded, speech, mode="full") / np.sqrt(
        np.square(coded).sum() * np.square(speech).sum()
    )
    assert int(likeness.argmax()) - (len(speech) - 1) == 0
    if codec in MOST_NOISE_DB:
        noise = rms(coded - speech)
        assert decibel(rms(speech) / noise) > MOST_NOISE_DB[codec]
    else:
        assert likeness.max() > 0.6


@pytest.mark.parametrize("codecs", [AMR, OPUS, ("g726_24", "g726_32", "g726_40")])
def test_a_higher_rate_sounds_nearer_to_the_original(codecs: tuple[str, ...], corpus: Path) -> None:
    if set(codecs) & NEED_AV:
        pytest.importorskip("av", reason="AMR and Opus need the extra av")
    speech = demo_speech(corpus)
    likeness = [np.corrcoef(code(speech, codec), speech)[0, 1] for codec in (codecs[0], codecs[-1])]
    assert likeness[0] < likeness[1]


def test_codecs_follow_one_another() -> None:
    speech = speech_like()
    one_by_one = code(code(speech, "gsm"), "g711_alaw")
    np.testing.assert_array_equal(code(speech, "gsm+g711_alaw"), one_by_one)
    assert (one_by_one != code(speech, "gsm")).any()
