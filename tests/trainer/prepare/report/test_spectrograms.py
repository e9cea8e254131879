"""What a spectrogram shows, and of what there is none."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import soundfile

from trainer.prepare.report.facts import Picked
from trainer.prepare.report.spectrograms import FLOOR_DB, LONGEST_S, Sound, listen

pytestmark = pytest.mark.quick


@pytest.mark.quick
def test_a_spectrogram_shows_the_tone(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    time_s = numpy.arange(48000) / 16000
    soundfile.write(path, 0.5 * numpy.sin(2 * numpy.pi * 1000 * time_s), 16000)
    sound = listen(Picked("random", "train", "tone", path, "", {}))
    assert isinstance(sound, Sound)
    middle = [row[len(row) // 2] for row in sound.level_db]
    assert middle.index(max(middle)) * sound.step_hz == pytest.approx(1000, abs=sound.step_hz)
    assert sound.top_hz == pytest.approx(8000)
    assert len(sound.level_db[0]) * sound.step_s == pytest.approx(3, abs=0.2)
    soundfile.write(path, numpy.zeros(20), 16000)
    assert listen(Picked("random", "train", "tone", path, "", {})) == "20 samples"


def test_a_long_recording_is_shown_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    noise = numpy.random.default_rng(0).uniform(-0.5, 0.5, int(8000 * (LONGEST_S + 4)))
    soundfile.write(path, noise, 8000)
    sound = listen(Picked("random", "train", "long", path, "", {}))
    assert isinstance(sound, Sound)
    assert len(sound.level_db[0]) * sound.step_s == pytest.approx(LONGEST_S, abs=0.2)
    assert sound.top_hz == pytest.approx(4000)
    shown = numpy.array(sound.level_db)
    assert sound.top_db - sound.floor_db == FLOOR_DB
    assert sound.floor_db <= shown.min() <= shown.max() <= sound.top_db + 1


def test_why_there_is_none(tmp_path: Path) -> None:
    gone = listen(Picked("random", "train", "gone", tmp_path / "gone.wav", "", {}))
    assert isinstance(gone, str)
    assert "\n" not in gone
