"""Which packets are lost, and what is heard in their place."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trainer.channel.signals import decibel, speech_like
from trainer.channel.levels import FRAME, RATE_HZ, rms
from trainer.channel.packet_loss import conceal, lost_packets

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(("rate", "burst"), [(0.01, 1.0), (0.05, 2.0), (0.2, 4.0)])
def test_packets_are_lost_at_the_drawn_rate_and_in_bursts(rate: float, burst: float) -> None:
    lost = lost_packets(np.random.default_rng(0), 400_000, rate, burst)
    assert lost.mean() == pytest.approx(rate, rel=0.05)
    num_bursts = int((np.diff(lost.astype(int), prepend=0) == 1).sum())
    assert lost.sum() / num_bursts == pytest.approx(burst, rel=0.05)


def test_a_lost_packet_of_a_steady_voice_is_hardly_heard() -> None:
    """A voice of 125 Hz goes on in its own period; silence would have an error of 0 dB."""
    time = np.arange(100 * FRAME) / RATE_HZ
    voice = sum(np.cos(2 * np.pi * 125 * k * time + k * k) / k for k in range(1, 20))
    voice = (0.1 * voice).astype(np.float32)
    lost = np.zeros(100, dtype=bool)
    lost[50] = True
    error = (conceal(voice, lost) - voice)[50 * FRAME : 51 * FRAME]
    assert decibel(rms(error) / rms(voice)) < -10
    np.testing.assert_array_equal(conceal(voice, lost)[: 50 * FRAME], voice[: 50 * FRAME])
    np.testing.assert_array_equal(conceal(voice, lost)[52 * FRAME :], voice[52 * FRAME :])


def test_a_long_loss_fades_to_silence_and_one_at_the_start_is_silence() -> None:
    voice = speech_like()
    lost = np.zeros(len(voice) // FRAME, dtype=bool)
    lost[:2] = lost[20:40] = True
    concealed = conceal(voice, lost)
    assert not concealed[: 2 * FRAME].any()
    assert concealed[20 * FRAME : 21 * FRAME].any()
    assert not concealed[23 * FRAME : 40 * FRAME].any()
