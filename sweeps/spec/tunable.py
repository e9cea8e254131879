"""Which keys a sweep may search: those that change what is learnt, here, in a stage of the sweep.

    not_tunable("init_param")                       # "got a key that ..."
    without_effect("ctc_weight", "s1", config, searched)   # None: it acts

A search over a key that nothing reads costs as much as any other and finds nothing, so it is
refused before anything starts. What a key does is proven (`conf/effects.yaml`), not believed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from conf.effects import A_FILE, KeyEffect, load_effects
from conf.keys import find_key
from conf.load import Config

_ROLES = frozenset({"optimization", "augmentation", "data"})
_OURS = frozenset(
    {
        "channel",
        "channel_share",
        "decay_norm_and_bias",
        "frozen_dropout",
        "lora_dtype",
        "zero_padding",
    }
)
_TOO = frozenset(
    {
        "frontend_conf.fs",  # the rest of the frontend belongs to the weights
        "train_conf.avg_nbest_model",
        *(f"finetune_conf.{name}" for name in _OURS),
    }
)
_BUT_NOT = {
    "dataset": "names a class",
    "dataset_conf.index_ds": "names a class",
    "dataset_conf.num_workers": "changes how fast it runs, not what is learnt",
    "llm_conf.activation_checkpoint": "changes how much memory it takes, not what is learnt",
    "audio_encoder_conf.activation_checkpoint": (
        "changes how much memory it takes, not what is learnt"
    ),
    "llm_conf.lora_conf.init_param_path": "is a path",
    "train_conf.deepspeed_config": "is a path",
    "finetune_conf.seed": "is chance; replicates repeats the best configs with other seeds",
}
_WHY_NOT = {
    "architecture": "belongs to the weights",
    "tokenizer": "belongs to the weights",
    "frontend": "belongs to the weights",
    "checkpointing": "changes what is kept, not what is learnt",
    "runtime": "changes how it runs, not what is learnt",
    "ours": "changes how it runs or is scored, not what is learnt",
}
_ACTING = frozenset({"both", "here"})

_FREEZES = (
    "audio_encoder_conf.freeze",
    "audio_adaptor_conf.freeze",
    "ctc_decoder_conf.freeze",
    "llm_conf.freeze",
    "llm_conf.use_lora",
    "llm_conf.lora_conf.freeze_lora",
)


class Values(Protocol):
    """The values that the search may give a key."""

    @property
    def ends(self) -> Sequence[Any]:
        """Every choice, or both ends of a range."""

    def contains(self, value: Any) -> bool:
        """Whether the search could draw this value."""


def not_tunable(key: str) -> str | None:
    """Say why a known key is not one to search over, whatever the stage; None if it is."""
    known = find_key(key)
    if known is None or key in _TOO:
        return None
    why = _BUT_NOT.get(key) or (None if known.role in _ROLES else _WHY_NOT[known.role])
    return None if why is None else f"got a key that {why}, expected a tunable one"


def leaves_nothing(values: Mapping[str, Any] | Config) -> bool:
    """Whether everything is frozen, so that there is nothing to train; values by dotted key."""
    encoder, adaptor, ctc_decoder, llm, use_lora, freeze_lora = (values.get(k) for k in _FREEZES)
    if not (encoder and adaptor and ctc_decoder):
        return False
    return bool(freeze_lora) if use_lora else bool(llm)


def without_effect(
    key: str, stage: str, config: Config, searched: Mapping[str, Values]
) -> str | None:
    """Say that a key does nothing in a stage, if that is proven.

    Args:
        key: One of `searched`.
        stage: Short name of the stage.
        config: Its default config.
        searched: What else may vary, by dotted key.
    """
    proven: KeyEffect | None = load_effects().get(key)
    if proven is None:
        return None

    def can_be(other: str, value: Any) -> bool:
        if other in searched:
            return searched[other].contains(value)
        found = config.get(other)
        return bool(found) if value == A_FILE else bool(found == value)

    effect = proven.where(stage, can_be)
    if effect is None or effect in _ACTING:
        return None
    # Proven with what the stage freezes: a search over that may give the key something to do.
    elsewhere = _ACTING & set(proven.stages.values())
    if elsewhere and not proven.needs and not set(_FREEZES).isdisjoint(searched):
        return None
    what = "it changes nothing" if effect == "none" else "it acts in stock FunASR alone"
    message = f"got a key of effect {effect} ({what}), expected one that acts here"
    if proven.needs and proven.then in _ACTING:
        message += f"; it would with {_listed(proven.needs)}"
    return message


def can_train(config: Config, searched: Mapping[str, Values]) -> bool:
    """Whether any choice of the search leaves something to train in a stage."""
    return not all(leaves_nothing(one) for one in _freezes(config, searched))


def _freezes(config: Config, searched: Mapping[str, Values]) -> Iterator[dict[str, Any]]:
    """What trains, in everything that the search may make of it."""
    choices = [searched[k].ends if k in searched else [config.get(k)] for k in _FREEZES]
    for values in itertools.product(*choices):
        yield dict(zip(_FREEZES, values, strict=True))


def _listed(needs: Mapping[str, Any]) -> str:
    def text(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    return ", ".join(f"{key}: {text(value)}" for key, value in needs.items())
