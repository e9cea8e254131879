"""The demonstration's telephone line: what it keeps, what it takes away, and that it repeats."""

from dataclasses import replace

import numpy as np
import pytest

from trainer.demo.fixed_line import (
    PACKET_SAMPLES,
    TELEPHONE_RATE_HZ,
    ChannelRange,
    Line,
    code_g711,
    conceal,
    draw_line,
    noise_for,
    rms,
    send,
    simulate,
)

pytestmark = pytest.mark.quick

QUIET = Line(
    level_dbfs=-20.0,
    snr_db=90.0,
    noise_tilt=0.0,
    noise_seed=0,
    hum_hz=50.0,
    hum_db=90.0,
    codec="ULAW",
    loss_rate=0.0,
)


def tone(frequency_hz, *, rate_hz=16000, duration_s=1.0):
    time_s = np.arange(int(rate_hz * duration_s)) / rate_hz
    return (0.3 * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)


def decibel(ratio):
    return 20 * np.log10(ratio)


def test_same_seed_and_key_repeat_bit_for_bit_whatever_came_before():
    first = simulate(tone(1000), 16000, seed=3, key="a")
    simulate(tone(500), 16000, seed=3, key="b")
    np.testing.assert_array_equal(simulate(tone(1000), 16000, seed=3, key="a"), first)


@pytest.mark.parametrize(("seed", "key"), [(3, "b"), (4, "a")])
def test_another_seed_or_key_is_another_line(seed, key):
    assert draw_line(seed, key) != draw_line(3, "a")


def test_lines_lie_within_their_ranges():
    ranges = ChannelRange(snr_db=(5.0, 6.0), loss_rate=(0.2, 0.3), codecs=("ALAW",))
    lines = [draw_line(0, str(index), ranges) for index in range(50)]
    assert all(5.0 <= line.snr_db <= 6.0 and 0.2 <= line.loss_rate <= 0.3 for line in lines)
    assert {line.codec for line in lines} == {"ALAW"}
    assert {line.hum_hz for line in lines} == {50.0, 60.0}


@pytest.mark.parametrize("rate_hz", [8000, 16000, 22050, 48000])
def test_output_is_8_khz_and_as_long(rate_hz):
    output = send(tone(1000, rate_hz=rate_hz, duration_s=1.5), rate_hz, QUIET)
    assert output.dtype == np.float32
    assert len(output) == pytest.approx(1.5 * TELEPHONE_RATE_HZ, abs=2)


def test_only_the_telephone_band_passes():
    # Speech of equal parts below, inside and above the band: the line keeps the inside.
    mixture = tone(60) + tone(1000) + tone(7000)
    spectrum = np.abs(np.fft.rfft(send(mixture, 16000, QUIET)))
    assert decibel(spectrum[1000] / spectrum[60]) > 40
    assert spectrum.argmax() == 1000


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 25.0])
@pytest.mark.parametrize("tilt", [0.0, 1.0])
def test_noise_has_the_asked_level(snr_db, tilt):
    noise = noise_for(tone(1000), np.random.default_rng(0), snr_db=snr_db, tilt=tilt)
    assert decibel(rms(tone(1000)) / rms(noise)) == pytest.approx(snr_db, abs=1e-3)


@pytest.mark.parametrize("codec", ["ULAW", "ALAW"])
def test_g711_costs_about_37_decibels(codec):
    samples = tone(997, rate_hz=TELEPHONE_RATE_HZ)
    error = code_g711(samples, codec) - samples
    assert 33 < decibel(rms(samples) / rms(error)) < 42


def test_concealment_repeats_the_last_packet_and_fades():
    good = np.linspace(0.1, 0.9, PACKET_SAMPLES, dtype=np.float32)
    samples = np.concatenate([good, good + 1, good + 2, good + 3])
    output = conceal(samples, np.array([False, True, True, False]))
    np.testing.assert_allclose(output, np.concatenate([good, good / 2, good / 4, good + 3]))


def test_a_loss_before_any_packet_is_silence():
    samples = np.ones(PACKET_SAMPLES + 7, dtype=np.float32)
    output = conceal(samples, np.array([True, False]))
    assert not output[:PACKET_SAMPLES].any()
    assert output[PACKET_SAMPLES:].all()


def test_packets_are_lost_at_the_drawn_rate():
    speech = tone(1000, duration_s=200.0)
    received = send(speech, 16000, QUIET)
    damaged = send(speech, 16000, replace(QUIET, loss_rate=0.05))
    packets = (received != damaged).reshape(-1, PACKET_SAMPLES).any(axis=1)
    assert packets.mean() == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("samples", [np.zeros((2, 100), np.float32), np.zeros(0, np.float32)])
def test_only_mono_samples_are_taken(samples):
    with pytest.raises(ValueError, match="expected mono samples, but got an array of shape"):
        simulate(samples, 16000, seed=0, key="a")


def test_silence_stays_finite():
    assert np.isfinite(simulate(np.zeros(1600, np.float32), 16000, seed=0, key="a")).all()
