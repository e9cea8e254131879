"""Utterances through the encoder in batches, where no gradient is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from trainer.data.batch import Example, collate
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
        batch = collate(part).to(nano.device)
        # The encoder writes into its input, which may be a kept feature's own memory.
        output_BTD, lengths_B = encode(nano.model, batch.features_BTF.clone(), batch.num_frames_B)
        encoded += [
            replace(example, features_TF=output_TD[:length], level="encoded")
            for example, output_TD, length in zip(part, output_BTD, lengths_B.tolist(), strict=True)
        ]
    return encoded


def parts(nano: Nano, examples: Sequence[T]) -> Iterator[Sequence[T]]:
    """A batch in parts that are computed fastest without a loop behind them: on a GPU, whole."""
    rows = rows_encoded(nano.device.type, len(examples))
    for start in range(0, len(examples), rows):
        yield examples[start : start + rows]


def rows_encoded(device: str, batch_size: int) -> int:
    """How many utterances of a batch go through encoder and CTC at once."""
    return min(batch_size, _ROWS_ON_CPU) if device == "cpu" else batch_size
