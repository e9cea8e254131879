"""One utterance over one line, measured against references that owe nothing to its code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from conf.channels import load_channel
from tests.trainer.channel.signals import (
    EVERYTHING,
    PLAIN,
    RANGES,
    decibel,
    drawn,
    ranges,
    sent,
    speech_like,
)
from trainer.channel.codecs import to_pcm
from trainer.channel.levels import FRAME, RATE_HZ, rms, speech_rms
from trainer.channel.telephone_line import simulate
from trainer.data.audio import Samples

pytestmark = pytest.mark.quick


# What is drawn arrives


def test_the_band_is_what_arrives_of_a_wideband_recording() -> None:
    time_s = np.arange(2 * 16000) / 16000
    tones = sum(np.sin(2 * np.pi * hz * time_s) for hz in (60, 1000, 5000, 7000))
    spectrum = np.abs(np.fft.rfft(sent(PLAIN, (0.1 * tones).astype(np.float32), 16000)))
    others = np.delete(spectrum, slice(1950, 2050))
    assert spectrum.argmax() == 2000  # 1000 Hz: the spectrum has half a hertz
    assert decibel(others.max() / spectrum.max()) < -40


@pytest.mark.parametrize("kind", ["white", "pink", "babble", "file"])
@pytest.mark.parametrize("snr_db", [0.0, 12.0, 30.0])
def test_the_snr_is_what_was_drawn(kind: str, snr_db: float, tmp_path: Path) -> None:
    speech = speech_like()
    name = kind
    if kind == "file":
        name = str(tmp_path / "street.wav")
        soundfile.write(name, np.random.default_rng(3).uniform(-0.5, 0.5, 24000), 16000)
    line = drawn(noise=name, snr_db=snr_db, babble_voices=2)
    options = {"babble": lambda rng, length, voices: speech_like(length / RATE_HZ, 5)}
    noise = sent(line, speech, **options) - sent(PLAIN, speech)
    # Measured where somebody speaks: 7 of each syllable's 8 frames, clear of its edges.
    syllables = sent(PLAIN, speech)[: 16 * 2000].reshape(16, 2000)[:, FRAME : 7 * FRAME]
    assert decibel(rms(syllables) / rms(noise)) == pytest.approx(snr_db, abs=0.5)


@pytest.mark.parametrize("hz", [50.0, 60.0])
def test_hum_has_its_frequency_and_level(hz: float) -> None:
    speech = speech_like(10.0)
    hum = sent(drawn(hum_hz=hz, hum_db=20.0), speech) - sent(PLAIN, speech)
    spectrum = np.abs(np.fft.rfft(hum))
    peaks = sorted(np.argsort(spectrum)[-4:] / 10)  # a tenth of a hertz apart
    assert peaks == [hz, 3 * hz, 5 * hz, 7 * hz]
    assert decibel(speech_rms(speech) / rms(hum)) == pytest.approx(20.0, abs=0.5)


def test_an_echo_comes_as_late_and_as_quiet_as_drawn() -> None:
    speech = speech_like()
    clean = sent(PLAIN, speech)
    echo = sent(drawn(echo_ms=125.0, echo_db=12.0), speech) - clean
    correlation = np.correlate(echo, clean, mode="full")[len(clean) - 1 :]
    assert int(correlation.argmax()) == 1000
    assert decibel(rms(clean) / rms(echo)) == pytest.approx(12.0, abs=0.5)


@pytest.mark.parametrize("level_dbfs", [-40.0, -20.0])
def test_the_level_is_what_was_drawn(level_dbfs: float) -> None:
    for loudness in (0.01, 1.0):
        received = sent(drawn(level_dbfs_drawn=level_dbfs), speech_like() * np.float32(loudness))
        assert decibel(speech_rms(received)) == pytest.approx(level_dbfs, abs=0.2)


def test_clipping_cuts_what_is_above() -> None:
    clean = sent(PLAIN, speech_like())
    cut = sent(drawn(clipping_db=6.0), speech_like())
    assert decibel(np.abs(clean).max() / np.abs(cut).max()) == pytest.approx(6.0, abs=0.1)
    below = np.abs(clean) < 0.99 * np.abs(cut).max()
    np.testing.assert_array_equal(cut[below], clean[below])


def test_what_is_too_loud_is_cut_at_full_scale() -> None:
    received = sent(drawn(level_dbfs_drawn=0.0), speech_like())
    assert np.abs(received).max() <= 1.0
    assert (np.abs(received) > 0.999).mean() > 0.01


def test_lost_packets_are_what_differs() -> None:
    speech = np.random.default_rng(0).uniform(-0.1, 0.1, 120 * RATE_HZ).astype(np.float32)
    clean = sent(PLAIN, speech)
    damaged = sent(drawn(loss_rate=0.05, loss_burst=2.0), speech)
    packets = (clean != damaged).reshape(-1, FRAME).sum(axis=1) > FRAME // 2
    assert packets.mean() == pytest.approx(0.05, abs=0.01)


# Options and draws


@pytest.mark.parametrize("option", EVERYTHING)
def test_every_option_has_an_effect_and_says_what_it_drew(option: str) -> None:
    speech = speech_like()
    without, said_without = simulate(speech, RATE_HZ, seed=0, key="a", ranges=ranges())
    with_it, said = simulate(
        *(speech, RATE_HZ), seed=0, key="a", ranges=ranges(**{option: EVERYTHING[option]})
    )
    assert (with_it != without).any()
    assert len(with_it) == len(without) == len(speech)
    added = said.keys() - said_without.keys()
    assert added
    assert said_without.items() <= said.items()  # what else is drawn stays the same


@pytest.mark.parametrize(
    "change",
    [
        {"codecs": ["g711_alaw"]},
        {"band_hz": [300.0, 3000.0]},
        {"level_dbfs": [-40.0, -39.0]},
        {"noise": {"kinds": ["pink"]}},
        {"noise": {"kinds": ["white"], "snr_db": [1.0, 2.0]}},
        {"hum": {"hz": [55.0]}},
        {"hum": {"snr_db": [1.0, 2.0]}},
        {"handset": {"tilt_db": [9.0, 10.0]}},
        {"handset": {"peak_db": [9.0, 10.0]}},
        {"handset": {"peak_hz": [900.0, 1000.0]}},
        {"clipping": {"share": 1.0, "over_db": [20.0, 21.0]}},
        {"loss": {"rate": [0.4, 0.5]}},
        {"loss": {"rate": [0.05, 0.1], "burst_packets": [9.0, 10.0]}},
        {"echo": {"share": 1.0, "delay_ms": [500.0, 501.0]}},
        {"echo": {"share": 1.0, "below_db": [1.0, 2.0]}},
        {"echo": {"share": 0.0}},
        {"handset": {"share": 0.0}},
        {"noise": {"share": 0.0}},
        {"hum": {"share": 0.0}},
        {"clipping": {"share": 0.0}},
        {"loss": {"share": 0.0}},
    ],
    ids=str,
)
def test_every_setting_of_an_option_has_an_effect(change: dict[str, Any]) -> None:
    speech = speech_like()
    usual, _ = simulate(speech, RATE_HZ, seed=0, key="a", ranges=ranges(**EVERYTHING))
    changed, _ = simulate(
        *(speech, RATE_HZ), seed=0, key="a", ranges=ranges(**{**EVERYTHING, **change})
    )
    assert (usual != changed).any()


def test_the_same_seed_and_key_repeat_bit_for_bit_and_others_do_not() -> None:
    speech, given = speech_like(), ranges(**EVERYTHING)

    def received(seed: int, key: str) -> bytes:
        return simulate(speech, RATE_HZ, seed=seed, key=key, ranges=given)[0].tobytes()

    first = received(3, "a")
    assert received(3, "b") != first
    assert received(4, "a") != first
    assert received(3, "a") == first


@pytest.mark.parametrize("name", ["voip_lossy", "gsm", "landline_g711"])
def test_what_arrives_can_be_written_exactly(name: str) -> None:
    received, _ = simulate(
        *(speech_like(), RATE_HZ),
        seed=1,
        key="a",
        ranges=load_channel(name),
        babble=lambda rng, length, voices: speech_like(length / RATE_HZ, 5),
    )
    np.testing.assert_array_equal(to_pcm(received).astype(np.float32) / 32768, received)


@pytest.mark.parametrize("samples", [np.zeros((2, 100), np.float32), np.zeros(0, np.float32)])
def test_only_mono_samples_are_taken(samples: Samples) -> None:
    with pytest.raises(ValueError, match="expected mono samples, but got an array of shape"):
        simulate(samples, 16000, seed=0, key="a", ranges=RANGES)


def test_too_few_samples_to_resample_are_refused() -> None:
    with pytest.raises(ValueError, match="2 samples at 48000 Hz, none at 8000 Hz"):
        simulate(np.ones(2, np.float32), 48000, seed=0, key="a", ranges=RANGES)


@pytest.mark.parametrize("length", [1, 7, FRAME, 8000])
def test_silence_and_snippets_stay_finite(length: int) -> None:
    received, _ = simulate(
        np.zeros(length, np.float32), RATE_HZ, seed=0, key="a", ranges=ranges(**EVERYTHING)
    )
    assert np.isfinite(received).all()
    assert len(received) == length
