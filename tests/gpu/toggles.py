"""Keys that change how an update is computed and not what it learns: a line each.

What another key of that kind costs and gains on a GPU is measured by adding it here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Toggle:
    """A key that is set to another value than the stage's.

    Attributes:
        key: Of the configuration.
        value: Next to the stage's own.
        stage: That is trained.
        loss: By how much the loss may differ, as a share of it.
        gradient: By how much the gradient may, as a share of its norm.
    """

    key: str
    value: Any
    stage: str
    loss: float = 1e-4
    gradient: float = 1e-3


TOGGLES = (
    # 16 bits have three digits, TF32 has three to four.
    Toggle("train_conf.use_bf16", True, "8k", loss=2e-2, gradient=0.2),
    Toggle("enable_tf32", False, "8k", loss=1e-2, gradient=0.1),
    Toggle("cudnn_benchmark", True, "8k", loss=1e-2, gradient=0.1),
    Toggle("cudnn_deterministic", False, "8k", loss=1e-2, gradient=0.1),
    Toggle("audio_encoder_conf.activation_checkpoint", True, "8k"),
    Toggle("llm_conf.activation_checkpoint", True, "s3", gradient=1e-2),
)
