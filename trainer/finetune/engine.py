"""What an engine is: it trains a model for some epochs and says how each went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from trainer.model.build import Nano


@dataclass(frozen=True)
class EpochSummary:
    """What one epoch of training did."""

    loss: float
    learning_rate: float
    utterances_per_s: float


class Engine(Protocol):
    """Who trains: `loop.Trainer`, or stock FunASR's trainer behind the same names."""

    step: int
    nano: Nano

    def train(self, on_epoch: Callable[[int, EpochSummary], None]) -> None:
        """Trains all epochs that are left, and calls ``on_epoch`` with each one's number."""
