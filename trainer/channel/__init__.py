"""Simulated telephone channels: speech as it comes out of a call, all of it drawn from ranges.

    ranges = load_channel("landline_g711")
    telephone, drawn = simulate(samples, 16000, seed=0, key="call-7", ranges=ranges)

`corpus.py` does that to a whole manifest, `on_the_fly.py` to training utterances, anew in each
epoch; the ranges are `conf.channels`. Begin with `telephone_line.py`, which is one call.
"""

from conf.channels import ChannelRange, load_channel
from trainer.channel.corpus import Simulated, simulate_manifest
from trainer.channel.levels import RATE_HZ
from trainer.channel.noise import Babble, OtherSpeakers
from trainer.channel.telephone_line import simulate

__all__ = [
    "RATE_HZ",
    "Babble",
    "ChannelRange",
    "OtherSpeakers",
    "Simulated",
    "load_channel",
    "simulate",
    "simulate_manifest",
]
