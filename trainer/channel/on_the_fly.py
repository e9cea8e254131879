"""Training utterances over telephone lines, drawn anew in each epoch: `finetune_conf.channel`.

What an utterance sounds like hangs on the run's seed, the epoch and its key, not on batches, on
worker processes or on where an interrupted run goes on. Evaluation never comes here.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence

import torch

from conf.channels import ChannelRange, check_installed, load_channel
from conf.errors import ConfigError
from conf.load import Config
from trainer.channel.draws import generator
from trainer.channel.levels import RATE_HZ
from trainer.channel.noise import OtherSpeakers
from trainer.channel.telephone_line import simulate
from trainer.data.audio import read_mono
from trainer.data.batch import Example, make_example
from trainer.data.features import FeatureExtractor, unreadable
from trainer.data.manifest import Utterance
from trainer.data.text import TextCodec
from trainer.model.build import Nano

_LOG = logging.getLogger(__name__)


def on_the_fly(nano: Nano, config: Config, utterances: Sequence[Utterance]) -> OnTheFly | None:
    """The augmentation that a configuration asks for, if it does.

    Args:
        nano: Whose features and tokens examples are made of.
        config: With `finetune_conf.channel` and `finetune_conf.channel_share`.
        utterances: The training set, of which babble is mixed.

    Raises:
        ConfigError: There is no such channel, it needs the extra `av`, or stock trains.
        DataError: It has babble, and there is one speaker.
    """
    conf = config["finetune_conf"]
    if not conf["channel"]:
        return None
    if conf["engine"] == "stock":
        raise ConfigError(
            f"finetune_conf.channel: got {conf['channel']!r} with finetune_conf.engine stock, "
            "expected null: stock FunASR has no such augmentation; `prepare --simulate` makes a "
            "corpus for it"
        )
    ranges = load_channel(conf["channel"])
    check_installed(ranges)
    share: float = conf["channel_share"]
    _LOG.info("%g %% of training goes over lines of channel %s", 100 * share, ranges.name)
    return OnTheFly(nano.extractor, nano.codec, ranges, share, conf["seed"], utterances)


class OnTheFly:
    """Examples of utterances as they sound at the other end of a telephone line.

    Args:
        extractor: Makes features of samples; its store never sees these.
        codec: Makes tokens of transcripts.
        ranges: What lines are drawn from.
        share: Of the utterances in an epoch.
        seed: Of all draws.
        utterances: Of which babble is mixed.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        codec: TextCodec,
        ranges: ChannelRange,
        share: float,
        seed: int,
        utterances: Sequence[Utterance],
    ) -> None:
        self._extractor = extractor
        self._codec = codec
        self.ranges = ranges
        self._share = share
        self._seed = seed
        self._others = OtherSpeakers(utterances)
        self._others.check(ranges)
        self.fingerprint = ranges.fingerprint()

    def __call__(self, utterance: Utterance, epoch: int) -> Example | None:
        """The example of an utterance in an epoch; None where it stays as it is.

        Raises:
            DataError: The audio cannot be read, or nobody is there to babble.
        """
        key = f"{utterance.key}:epoch {epoch}"
        if generator(self._seed, f"{key}:share").random() >= self._share:
            return None
        return make_example(utterance, functools.partial(self._features, key=key), self._codec)

    def _features(self, utterance: Utterance, key: str) -> torch.Tensor:
        try:
            samples, rate_hz = read_mono(utterance.source)
            sent, _ = simulate(
                *(samples, rate_hz),
                seed=self._seed,
                key=key,
                ranges=self.ranges,
                babble=self._others.all_but(utterance),
            )
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            raise unreadable(utterance, error) from error
        return self._extractor.of_samples(utterance, sent, RATE_HZ)
