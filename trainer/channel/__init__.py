"""Telephone channels: speech as it comes out of a call, with everything drawn from ranges.

    ranges = load_channel("landline_g711")
    telephone, drawn = simulate(samples, 16000, seed=0, key="call-7", ranges=ranges)

`simulate_manifest` does that to a whole corpus, in parallel; `python -m trainer prepare --simulate`
calls it. `OnTheFly` does it to training utterances, anew in each epoch (`finetune_conf.channel`).
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
