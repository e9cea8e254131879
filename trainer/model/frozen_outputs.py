"""Outputs of frozen parts, computed once for all epochs, trials and processes.

While the encoder is frozen and nothing random comes before it, its output for an utterance never
changes; with a frozen adaptor behind it, nor does the adaptor's, which is eight times shorter. They
are computed in batches, made of the whole list whatever the store already has: a list that is begun
again, by whichever process, gives the same numbers bit by bit. An utterance that another list has
too was rounded among other neighbours there (within 1e-5, `tests/trainer/model`).

They are kept in the number format in which they are read first: the adaptor's output in that of the
LLM, into whose input it is written; the encoder's in 16 bits under `train_conf.use_bf16`, where the
adaptor and the CTC decoder begin with a product that autocast calculates so. With an LLM in 16 bits
that is half the disk, and nothing is lost.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch.nn.utils.rnn import pad_sequence

from conf.errors import DataError, WorkError
from conf.load import Config
from trainer.data.array_store import ArrayStore, key_of
from trainer.data.batch import (
    WINDOW_BATCHES,
    Example,
    Level,
    decoded_together,
    make_example,
    num_audio_tokens,
)
from trainer.data.manifest import Utterance
from trainer.model import stages
from trainer.model.build import Nano
from trainer.model.encoded import parts
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
        self._batch_size: int = config["finetune_conf.eval_batch_size"]
        self._dtype = torch.bfloat16 if self._use_bf16 else torch.float32
        if level == "adapted":
            self._dtype = nano.model.llm.get_input_embeddings().weight.dtype
        identity = {
            "level": level,
            "weights": nano.coverage.sha256,
            "encoder": config["audio_encoder_conf"],
            "adaptor": config["audio_adaptor_conf"] if level == "adapted" else None,
            "device": nano.device.type,
            "bf16": self._use_bf16,
            "kept_in": self._dtype,
            "torch": torch.__version__,
        }
        self._identity = json.dumps(identity, sort_keys=True, default=str)

    def fill(self, utterances: Sequence[Utterance]) -> bool:
        """Computes what the store lacks; False if it has no room for all of it."""
        shown_s = time.monotonic()
        window = WINDOW_BATCHES * self._batch_size
        for first in range(0, len(utterances), window):
            if not self._store.writable:
                break
            for done in self._fill(utterances[first : first + window]):
                if time.monotonic() - shown_s > _PROGRESS_S:
                    shown_s = time.monotonic()
                    said = "outputs of frozen parts: %d of %d utterances"
                    _LOG.info(said, first + done, len(utterances))
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

    def _fill(self, utterances: Sequence[Utterance]) -> Iterator[int]:
        """Does the same for some; gives how many are done, batch by batch."""
        keyed: list[tuple[bytes, Utterance]] = []
        heard: list[tuple[bytes, torch.Tensor]] = []
        for utterance in utterances:
            with contextlib.suppress(DataError):  # the loader names it when its turn comes
                keyed.append((self._key(utterance), utterance))
        if all(key in self._store for key, _ in keyed):
            return
        for key, utterance in keyed:
            with contextlib.suppress(DataError):
                heard.append((key, self._nano.extractor(utterance)))
        done = 0
        for batch in decoded_together([len(f_TF) for _, f_TF in heard], self._batch_size):
            for part in parts(self._nano, [heard[index] for index in batch]):
                if not all(key in self._store for key, _ in part):
                    outputs = self._compute([features_TF for _, features_TF in part])
                    for (key, _), output_TD in zip(part, outputs, strict=True):
                        self._store.put(key, output_TD)
            done += len(batch)
            yield done

    def _key(self, utterance: Utterance) -> bytes:
        features = self._nano.extractor.cache_key(utterance)
        assert features is not None
        return key_of(features, self._identity)

    @torch.no_grad()
    def _compute(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Outputs of some utterances, on the CPU."""
        model, device = self._nano.model, self._nano.device
        lengths = [len(features_TF) for features_TF in features]
        num_frames_B = torch.tensor(lengths, device=device)
        features_BTF = pad_sequence(list(features), batch_first=True).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self._use_bf16):
            output_BTD, _ = encode(model, features_BTF, num_frames_B)
            if self._level == "adapted":
                output_BTD = adapt(model, output_BTD, num_frames_B)
                lengths = [num_audio_tokens(length) for length in lengths]
        outputs = output_BTD.to(self._dtype).cpu()
        return [output_TD[:length] for output_TD, length in zip(outputs, lengths, strict=True)]
