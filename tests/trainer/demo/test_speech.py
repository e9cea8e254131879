"""Made speech on its way into a file: what each channel makes of it, and who may make it."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from trainer.demo.fixed_line import rms
from trainer.demo.speech import CHANNELS, LEVEL_DBFS

JOB: dict[str, Any] = {"seed": 0, "key": "call-7"}
RATE_HZ = 22050
TONE = np.sin(2 * np.pi * 440 / RATE_HZ * np.arange(RATE_HZ), dtype=np.float32)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("channel", "rate_hz"),
    [("wideband", 16000), ("noisy", 16000), ("narrowband", 8000), ("telephone", 8000)],
)
def test_a_channel_gives_its_rate_and_keeps_the_duration(channel: str, rate_hz: int) -> None:
    sent, sent_rate_hz = CHANNELS[channel](TONE, RATE_HZ, JOB)
    assert sent_rate_hz == rate_hz
    assert len(sent) == pytest.approx(rate_hz, rel=0.01)


@pytest.mark.quick
@pytest.mark.parametrize("channel", ["wideband", "narrowband"])
def test_clean_speech_has_one_level_however_loud_it_was(channel: str) -> None:
    for loudness in (0.01, 1.0):
        sent, _ = CHANNELS[channel](TONE * np.float32(loudness), RATE_HZ, JOB)
        assert 20 * np.log10(rms(sent)) == pytest.approx(LEVEL_DBFS, abs=0.1)


@pytest.mark.quick
@pytest.mark.parametrize("channel", ["noisy", "telephone"])
def test_what_is_drawn_follows_seed_and_key(channel: str) -> None:
    first, again, other = (
        CHANNELS[channel](TONE, RATE_HZ, JOB | {"key": key})[0] for key in ("a", "a", "b")
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.quick
def test_nothing_but_the_child_loads_espeak() -> None:
    code = "import sys, trainer.demo.corpus; print('espeakng_loader' in sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "False"
