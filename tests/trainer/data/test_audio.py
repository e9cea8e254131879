"""Reading sound, and how far up it goes."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import soundfile

from trainer.data.audio import Floats, bandwidth_hz, power_above, read_mono

pytestmark = pytest.mark.quick


def noise_below(cutoff_hz: int, rate_hz: int) -> Floats:
    noise = numpy.random.default_rng(1).standard_normal(2 * rate_hz)
    spectrum = numpy.fft.rfft(noise)
    spectrum[numpy.fft.rfftfreq(len(noise), 1 / rate_hz) > cutoff_hz] = 0
    return 0.1 * numpy.fft.irfft(spectrum)


@pytest.mark.parametrize(("cutoff_hz", "rate_hz"), [(3400, 16000), (7000, 16000), (3400, 44100)])
def test_bandwidth_is_that_of_the_sound(tmp_path: Path, cutoff_hz: int, rate_hz: int) -> None:
    soundfile.write(tmp_path / "a.wav", noise_below(cutoff_hz, rate_hz), rate_hz)
    found = bandwidth_hz(*read_mono(tmp_path / "a.wav"))
    assert found == pytest.approx(cutoff_hz, abs=130)


def test_silence_has_no_bandwidth() -> None:
    assert bandwidth_hz(numpy.zeros(8000), 8000) == 0


def test_a_recording_shorter_than_the_window_has_a_bandwidth_too() -> None:
    assert bandwidth_hz(noise_below(3400, 16000)[:100], 16000) > 0


def test_only_wideband_speech_has_power_above_the_telephones_band() -> None:
    assert power_above(noise_below(7000, 16000), 16000) > 0.1
    assert power_above(noise_below(3400, 16000), 16000) < 1e-5
    assert power_above(noise_below(3400, 8000), 8000) == 0


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = numpy.full(100, 0.5), numpy.full(100, -0.25)
    soundfile.write(tmp_path / "a.wav", numpy.stack([left, right], axis=1), 16000)
    samples, rate_hz = read_mono(tmp_path / "a.wav")
    assert (samples.dtype, rate_hz) == (numpy.float32, 16000)
    assert samples.tolist() == [0.125] * 100


def test_samples_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", numpy.full(100, numpy.nan), 8000, subtype="FLOAT")
    with pytest.raises(ValueError, match="no numbers"):
        read_mono(tmp_path / "a.wav")
