"""Levels of signals whose level is known."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trainer.channel.signals import decibel, speech_like
from trainer.channel.levels import FRAME, RATE_HZ, ratio, rms, speech_rms

pytestmark = pytest.mark.quick


def test_a_tone_at_full_scale_has_3_db_less_than_its_peak() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32)
    assert decibel(rms(tone)) == pytest.approx(-3.01, abs=0.01)


def test_pauses_do_not_make_speech_quieter() -> None:
    speech = speech_like(1.0)
    with_pause = np.concatenate([speech, np.zeros(5 * RATE_HZ, dtype=np.float32)])
    assert speech_rms(with_pause) == pytest.approx(speech_rms(speech))
    assert rms(with_pause) < 0.5 * rms(speech)


def test_a_snippet_shorter_than_a_frame_is_measured_whole() -> None:
    snippet = np.full(FRAME - 1, 0.5, dtype=np.float32)
    assert speech_rms(snippet) == pytest.approx(0.5)


def test_silence_has_a_level_too() -> None:
    silence = np.zeros(RATE_HZ, dtype=np.float32)
    assert 0 < rms(silence) < 1e-5
    assert 0 < speech_rms(silence) < 1e-5


def test_6_db_are_twice_the_amplitude() -> None:
    assert ratio(6.02) == pytest.approx(2.0, abs=0.001)
    assert ratio(0.0) == 1.0
