"""What a fine-tune says while it runs and at its end; loads no torch: drivers read it too."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Evaluation:
    """What `on_eval` gets after each epoch; epoch 0 is before the first update."""

    epoch: int
    step: int
    metrics: dict[str, float]
    finished: bool


@dataclass(frozen=True)
class FinetuneResult:
    """The checkpoint that would be exported, and its scores."""

    objective: float
    epoch: int
    checkpoint: str
    metrics: dict[str, float]
    output_dir: Path


OnEval = Callable[[Evaluation], None]
