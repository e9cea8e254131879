"""Utterances through the encoder in batches, where no gradient is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch.nn.utils.rnn import pad_sequence

from trainer.data.batch import Example
from trainer.model.build import Nano
from trainer.model.losses import encode

T = TypeVar("T")

_ROWS_ON_CPU = 16
"""Utterances that go through encoder and CTC at once there: more of them no longer fit into the
processor's cache and cost up to half as much again each, while the LLM gains by every further row.
"""


@torch.inference_mode()
def encode_examples(nano: Nano, examples: Sequence[Example]) -> list[Example]:
    """The same utterances behind the encoder; those that are there already stay as they are."""
    encoded: list[Example] = []
    for part in parts(nano, examples):
        if part[0].level == "encoded":
            encoded += part
            continue
        output_BTD, _ = encode(nano.model, *padded(nano, [e.features_TF for e in part]))
        encoded += [
            replace(example, features_TF=output_TD[: len(example.features_TF)], level="encoded")
            for example, output_TD in zip(part, output_BTD, strict=True)
        ]
    return encoded


def padded(nano: Nano, features: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features in a batch of its own memory on the model's device, and how many frames each has."""
    num_frames_B = torch.tensor([len(features_TF) for features_TF in features])
    features_BTF = pad_sequence(list(features), batch_first=True)
    return features_BTF.to(nano.device), num_frames_B.to(nano.device)


def parts(nano: Nano, examples: Sequence[T]) -> Iterator[Sequence[T]]:
    """A batch in parts that are computed fastest without a loop behind them: on a GPU, whole."""
    rows = rows_encoded(nano.device.type, len(examples))
    for start in range(0, len(examples), rows):
        yield examples[start : start + rows]


def rows_encoded(device: str, batch_size: int) -> int:
    """How many utterances of a batch go through encoder and CTC at once."""
    return min(batch_size, _ROWS_ON_CPU) if device == "cpu" else batch_size
