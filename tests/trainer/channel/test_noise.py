"""Noise to lay under speech: its colour, and where it is taken from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from conf.channels import load_channel
from conf.errors import DataError
from tests.trainer.channel.signals import PLAIN, drawn, ranges, sent, speech_like, write_voice
from trainer.channel.levels import RATE_HZ, speech_rms
from trainer.channel.noise import OtherSpeakers
from trainer.channel.telephone_line import simulate
from trainer.data.manifest import Utterance

pytestmark = pytest.mark.quick


def test_noise_has_its_colour() -> None:
    speech = speech_like(30.0)
    slopes = {}
    for kind in ("white", "pink"):
        noise = sent(drawn(noise=kind, snr_db=0.0), speech) - sent(PLAIN, speech)
        power = np.square(np.abs(np.fft.rfft(noise)))
        octaves = [power[int(30 * low) : int(60 * low)].mean() for low in (500, 1500)]
        slopes[kind] = 10 * np.log10(octaves[1] / octaves[0]) / np.log2(3)
    assert slopes["white"] == pytest.approx(0.0, abs=0.3)
    assert slopes["pink"] == pytest.approx(-3.0, abs=0.3)


def test_a_noise_file_is_cut_or_repeated_and_named(tmp_path: Path) -> None:
    path = write_voice(tmp_path / "street.wav", 2)
    (tmp_path / "noisy.yaml").write_text("noise: {kinds: [files], files: [street.wav]}\n")
    given = load_channel(tmp_path / "noisy.yaml")
    for duration_s in (0.3, 4.0):
        received, said = simulate(
            *(speech_like(duration_s), RATE_HZ), seed=0, key="a", ranges=given
        )
        assert said["noise"] == "street.wav"
        assert said["channel"] == "noisy"
        assert len(received) == duration_s * RATE_HZ
    path.write_text("no sound")
    with pytest.raises(DataError, match=r"street.wav: got .*, expected a recording of noise"):
        simulate(speech_like(), RATE_HZ, seed=0, key="a", ranges=given)


def test_babble_is_mixed_from_other_speakers_only(tmp_path: Path) -> None:
    loud = tmp_path / "own.wav"
    soundfile.write(loud, np.zeros(8000), 8000)
    utterances = [
        Utterance("mine", loud, "好", tmp_path / "m.jsonl", 1, speaker="a"),
        Utterance("mine too", loud, "好", tmp_path / "m.jsonl", 2, speaker="a"),
        Utterance("yours", write_voice(tmp_path / "b.wav", 1), "好", tmp_path, 3, speaker="b"),
        Utterance("gone", tmp_path / "gone.wav", "好", tmp_path, 4, speaker="c"),
    ]
    others = OtherSpeakers(utterances).all_but(utterances[0])
    mixed = others(np.random.default_rng(0), 12000, 3)
    assert len(mixed) == 12000
    # Three times the same speaker, as loud each time; of the silent one there is nothing.
    assert speech_rms(mixed) > 1.0
    again = others(np.random.default_rng(0), 12000, 3)
    np.testing.assert_array_equal(mixed, again)


def test_alone_there_is_no_babble(tmp_path: Path) -> None:
    only = Utterance("only", tmp_path / "a.wav", "好", tmp_path / "m.jsonl", 7)
    with pytest.raises(DataError, match="m.jsonl:7: got no other speaker among 50 draws of 1 utt"):
        OtherSpeakers([only]).all_but(only)(np.random.default_rng(0), 100, 1)


def test_a_channel_with_babble_needs_several_speakers(tmp_path: Path) -> None:
    babble, white_noise = (ranges(noise={"kinds": [kind]}) for kind in ("babble", "white"))
    one, another = (
        Utterance(key, tmp_path / "a.wav", "好", tmp_path / "m.jsonl", 1, speaker=speaker)
        for key, speaker in (("one", "a"), ("another", "b"))
    )
    with pytest.raises(DataError, match=r"m.jsonl: got one speaker \(a\), expected several"):
        OtherSpeakers([one, one]).check(babble)
    OtherSpeakers([one, one]).check(white_noise)
    OtherSpeakers([one, another]).check(babble)
