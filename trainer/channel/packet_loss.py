"""Packets that do not arrive, in bursts, and what the receiver plays in their place."""

import numpy as np
import numpy.typing as npt

from trainer.channel.levels import FRAME, RATE_HZ
from trainer.data.audio import Samples

_SHORTEST_PITCH, _LONGEST_PITCH = RATE_HZ // 200, RATE_HZ // 66
"""Samples of a voice's period, from 200 to 66 Hz: what ITU-T G.711 Appendix I looks for."""
_HEARD = 2 * _LONGEST_PITCH
_REMEMBERED = _HEARD + _LONGEST_PITCH
_FADE_PACKETS = 3
"""After so many packets without any news the concealment has faded to silence (60 ms)."""
_BLEND = RATE_HZ // 250
"""Samples over which the next packet that arrives takes over (4 ms)."""


def lost_packets(
    rng: np.random.Generator, num_packets: int, rate: float, burst: float
) -> npt.NDArray[np.bool_]:
    """Which packets are lost: Gilbert's chain of two states.

    Args:
        rng: Of this utterance's losses.
        num_packets: How many are sent.
        rate: Share that is lost, on average.
        burst: Mean number that is lost in a row.
    """
    if rate == 0:
        return np.zeros(num_packets, dtype=np.bool_)
    leave = 1.0 / burst
    enter = min(1.0, rate * leave / (1.0 - rate))
    state = bool(rng.random() < rate)
    lost = np.zeros(num_packets, dtype=np.bool_)
    for index, draw in enumerate(rng.random(num_packets).tolist()):
        lost[index] = state
        state = draw >= leave if state else draw < enter
    return lost


def conceal(samples: Samples, lost: npt.NDArray[np.bool_]) -> Samples:
    """The samples with each burst of losses filled by the voice's last period, fading.

    After ITU-T G.711 Appendix I, simplified: the last period is found by correlation and repeated,
    quieter and quieter; the packet that arrives next is blended in. Before the first packet there
    is silence.

    Args:
        samples: What would arrive if nothing were lost.
        lost: For each 20 ms of them.
    """
    output = samples.copy()
    edges = np.flatnonzero(np.diff(np.concatenate(([False], lost, [False])).astype(np.int8)))
    for first, last in edges.reshape(-1, 2):
        start, end = int(first) * FRAME, min(int(last) * FRAME, len(output))
        blended = min(end + _BLEND, len(output))
        filled = _gone_on(output[max(0, start - _REMEMBERED) : start], blended - start)
        output[start:end] = filled[: end - start]
        weight = np.linspace(0.0, 1.0, blended - end, dtype=np.float32)
        output[end:blended] = weight * output[end:blended] + (1 - weight) * filled[end - start :]
    return output


def _gone_on(heard: Samples, length: int) -> Samples:
    """What was heard goes on in its last period, quieter and quieter."""
    filled = np.zeros(length, dtype=np.float32)
    if len(heard):
        fade = np.linspace(1.0, 0.0, _FADE_PACKETS * FRAME, dtype=np.float32)[:length]
        filled[: len(fade)] = fade * np.resize(_last_period(heard), len(fade))
    return filled


def _last_period(heard: Samples) -> Samples:
    """The last period of what was heard: where it is most like what came before it."""
    if len(heard) < _REMEMBERED:
        return heard[-FRAME:]
    recent = heard[-_HEARD:]
    windows = np.lib.stride_tricks.sliding_window_view(heard[:-_SHORTEST_PITCH], _HEARD)
    # einsum keeps to one thread, and so to one way of rounding.
    products = np.einsum("ij,j->i", windows, recent)
    likeness = products / np.sqrt(np.einsum("ij,ij->i", windows, windows) + 1e-9)
    lag = len(heard) - _HEARD - int(likeness.argmax())
    return heard[-lag:]
