"""The sets of a fine-tune: what it trains on, and what it is scored on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from conf.errors import ConfigError
from conf.load import Config
from trainer.data.manifest import (
    Audio,
    Utterance,
    check_evaluable,
    fingerprint,
    read_data_list,
    read_headers,
)

_EVALUATION = {
    "valid": "valid_data_set_list",
    "wideband": "finetune_conf.wideband_data_set_list",
    "silence": "finetune_conf.silence_data_set_list",
    "test": "finetune_conf.test_data_set_list",
}


@dataclass(frozen=True)
class Data:
    """The sets of a fine-tune.

    Attributes:
        evaluation: Whole sets by their metric's name; ``valid`` is always there.
        valid_subset: What chooses the checkpoint: the validation set or a fixed part of it.
    """

    train: Sequence[Utterance]
    train_audios: Sequence[Audio]
    evaluation: dict[str, Sequence[Utterance]]
    valid_subset: Sequence[Utterance]
    sha256: str


def read_data(config: Config) -> Data:
    """Reads every manifest of a configuration and the audio headers they name.

    Raises:
        UserError: A set is missing, or a manifest or an audio file is not readable, or a recording
            is longer than evaluation takes.
    """
    missing = [
        f"{key}: got nothing, expected a manifest (--{key} FILE)"
        for key in ("train_data_set_list", "valid_data_set_list")
        if not config.get(key)
    ]
    if missing:
        raise ConfigError(missing)
    train = read_data_list(config["train_data_set_list"])
    evaluation: dict[str, Sequence[Utterance]] = {
        split: read_data_list(path) for split, key in _EVALUATION.items() if (path := config[key])
    }
    # The checks before training refuse what cannot be read; whoever skips them has it left out.
    train_audios = read_headers(train, leave_out=True)
    audios = {split: read_headers(utterances) for split, utterances in evaluation.items()}
    for split, utterances in evaluation.items():
        check_evaluable(utterances, audios[split], config["finetune_conf.eval_max_s"])
    sha256 = fingerprint(chain(train, *evaluation.values()), chain(train_audios, *audios.values()))
    valid = evaluation["valid"]
    subset = fixed_subset(valid, config["finetune_conf.valid_subset"])
    return Data(train, train_audios, evaluation, subset, sha256)


def fixed_subset(utterances: Sequence[Utterance], count: int | None) -> Sequence[Utterance]:
    """The same part of a set for every run: the first keys in the order of their hashes.

    Args:
        utterances: A set.
        count: How many to take; None, or more than there are, takes the set itself.
    """
    if count is None or count >= len(utterances):
        return utterances
    hashes = [hashlib.sha256(utterance.key.encode()).digest() for utterance in utterances]
    chosen = sorted(range(len(utterances)), key=hashes.__getitem__)[:count]
    return [utterances[index] for index in sorted(chosen)]
