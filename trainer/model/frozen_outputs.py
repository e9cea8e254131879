"""Outputs of frozen parts, computed once for all epochs, trials and processes.

While the encoder is frozen and nothing random comes before it, its output for an utterance never
changes; with a frozen adaptor behind it, nor does the adaptor's, which is eight times shorter. Each
is computed from the utterance alone, not in a batch, so that what is kept depends on nothing else
and training repeats bit by bit whoever filled the store.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from conf.errors import DataError, WorkError
from conf.load import Config
from trainer.data.array_store import ArrayStore, key_of
from trainer.data.batch import Example, Level, collate, make_example
from trainer.data.manifest import Utterance
from trainer.model import stages
from trainer.model.build import Nano
from trainer.model.losses import Objective, adapt, encode

_LOG = logging.getLogger(__name__)
_PROGRESS_S = 10.0

ExampleSource = Callable[[Utterance], Example]


def example_source(
    nano: Nano, config: Config, objective: Objective, utterances: Sequence[Utterance]
) -> ExampleSource:
    """What makes an example of an utterance: from features, or from kept outputs of frozen parts.

    In the second case outputs that are not yet in the store are computed now.
    """
    plain = functools.partial(make_example, extractor=nano.extractor, codec=nano.codec)
    level = kept_level(nano, config, objective)
    store = nano.extractor.store
    if level == "features" or store is None:
        return plain
    outputs = FrozenOutputs(nano, config, store, level)
    return outputs if outputs.fill(utterances) else plain


def kept_level(nano: Nano, config: Config, objective: Objective) -> Level:
    """How far an utterance goes unchanged by training; ``features`` where nothing may be kept."""
    conf = config["finetune_conf"]
    learns = stages.learning_components(nano.model)
    if "audio_encoder" in learns or not conf["cache_frozen_outputs"] or conf["frozen_dropout"]:
        return "features"
    if nano.extractor.store is None or not conf["zero_padding"]:  # else neighbours would matter
        return "features"
    if conf["channel"]:
        _LOG.info(
            "the encoder is frozen, but what it hears goes over telephone lines drawn anew each "
            "epoch, so its output is computed each time; finetune_conf.channel: null would let it "
            "be kept"
        )
        return "features"
    if config.get("specaug"):
        _LOG.info(
            "the encoder is frozen, but specaug masks what it hears, so its output is computed "
            "anew each time; specaug: null would let it be kept"
        )
        return "features"
    if "audio_adaptor" in learns or objective.ctc_teaches:
        return "encoded"
    return "adapted"


class FrozenOutputs:
    """Examples that begin behind the frozen parts.

    Args:
        nano: Model in its stage.
        config: Its configuration.
        store: Where outputs are kept.
        level: ``encoded`` or ``adapted``.
    """

    def __init__(self, nano: Nano, config: Config, store: ArrayStore, level: Level) -> None:
        assert nano.coverage is not None
        self._nano = nano
        self._store = store
        self._level = level
        self._use_bf16: bool = config["train_conf.use_bf16"]
        identity = {
            "level": level,
            "weights": nano.coverage.sha256,
            "encoder": config["audio_encoder_conf"],
            "adaptor": config["audio_adaptor_conf"] if level == "adapted" else None,
            "device": nano.device.type,
            "bf16": self._use_bf16,
            "torch": torch.__version__,
        }
        self._identity = json.dumps(identity, sort_keys=True, default=str)

    def fill(self, utterances: Sequence[Utterance]) -> bool:
        """Computes what the store lacks; False if it has no room for all of it."""
        shown_s = time.monotonic()
        for number, utterance in enumerate(utterances):
            try:
                key = self._key(utterance)
                if key not in self._store:
                    self._store.put(key, self._compute(utterance))
            except DataError:
                continue  # the loader names it when its turn comes
            if time.monotonic() - shown_s > _PROGRESS_S:
                shown_s = time.monotonic()
                _LOG.info("outputs of frozen parts: %d of %d utterances", number, len(utterances))
        self._store.flush()
        if not self._store.writable:
            _LOG.warning("no room to keep the outputs of frozen parts: they are computed each time")
        return self._store.writable

    def __call__(self, utterance: Utterance) -> Example:
        """An example of this level.

        Raises:
            DataError: The audio cannot be read.
            WorkError: What was kept is gone.
        """
        output_TD = self._store.get(self._key(utterance))
        if output_TD is None:
            raise WorkError(
                f"{self._store.directory}: the kept outputs were emptied while in use; "
                "the same command goes on"
            )
        example = make_example(utterance, lambda _: output_TD, self._nano.codec)
        return replace(example, level=self._level)

    def _key(self, utterance: Utterance) -> bytes:
        features = self._nano.extractor.cache_key(utterance)
        assert features is not None
        return key_of(features, self._identity)

    @torch.no_grad()
    def _compute(self, utterance: Utterance) -> torch.Tensor:
        nano = self._nano
        batch = collate([make_example(utterance, nano.extractor, nano.codec)]).to(nano.device)
        with torch.autocast(nano.device.type, torch.bfloat16, enabled=self._use_bf16):
            output_BTD, num_frames_B = encode(nano.model, batch.features_BTF, batch.num_frames_B)
            if self._level == "adapted":
                output_BTD = adapt(nano.model, output_BTD, num_frames_B)
                output_BTD = output_BTD[:, : int(batch.num_audio_tokens_B[0])]
        return output_BTD[0].float().cpu().contiguous()
