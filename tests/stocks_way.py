"""Our trainer as stock's: its additions off, its batches given. For equality and benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from conf.load import Config
from trainer.data.loader import Loader
from trainer.data.manifest import Utterance
from trainer.finetune.engine import EpochSummary
from trainer.finetune.loop import Listeners, LoopConf, Trainer
from trainer.model.build import Nano
from trainer.model.frozen_outputs import example_source
from trainer.model.losses import Objective
from trainer.model.optim import build_scheduler

STOCKS_WAY: Mapping[str, Any] = {
    "ctc_weight": 0.0,
    "specaug": None,
    "finetune_conf.fused": False,
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


def train_as_planned(
    config: Config,
    nano: Nano,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    utterances: Sequence[Utterance],
    plan: PlannedBatches,
    on_epoch: Callable[[int, EpochSummary], None] = lambda *_: None,
) -> None:
    """Our training as a fine-tune does it, but for the batches."""
    load = example_source(nano, config, objective, utterances)
    Trainer(
        nano,
        objective,
        optimizer,
        build_scheduler(optimizer, config),
        Loader(utterances, load, config["dataset_conf.num_workers"]),
        plan,  # type: ignore[arg-type]
        LoopConf.of(config),
        Listeners(on_log=lambda *_: None),
    ).train(on_epoch)
