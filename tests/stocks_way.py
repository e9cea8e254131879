"""Our trainer as stock's: its additions off, its batches given. For equality and benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

STOCKS_WAY: Mapping[str, Any] = {
    "ctc_weight": 0.0,
    "specaug": None,
    "finetune_conf.zero_padding": False,
    "finetune_conf.decay_norm_and_bias": True,
    "finetune_conf.frozen_dropout": True,
    "frontend_conf.dither": 0.0,
    "dataset_conf.prompt_classes": None,
    "model_conf.lsm_weight": 0.0,
    "model_conf.length_normalized_loss": False,
    "llm_conf.llm_dtype": "fp32",
    "train_conf.use_bf16": False,
}
"""What our trainer adds, switched off."""


class PlannedBatches:
    """A sampler of our loop that yields what it was told, epoch by epoch.

    Args:
        epochs: For each epoch its batches of indices; the last one is repeated.
    """

    def __init__(self, epochs: Sequence[Sequence[Sequence[int]]]) -> None:
        self._epochs = [[list(batch) for batch in batches] for batches in epochs]

    def __len__(self) -> int:
        return sum(map(len, self._epochs[0]))

    def epoch(self, number: int) -> list[list[int]]:
        """Batches of an epoch, from 1."""
        return self._epochs[min(number, len(self._epochs)) - 1]
