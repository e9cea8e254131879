"""Parameters per module and stage at the released model's full size and in which precision.

The model is built on PyTorch's meta device, which knows shapes only. Of the LLM, Qwen3-0.6B, its
published sizes are enough.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from conf.load import STAGES, Config, load_config, stage_config_path
from trainer.checks.step_cost import QWEN3_06B, meta_model
from trainer.model import stages
from trainer.model.weights import COMPONENTS, DTYPES

LORA = "lora"
"""Adapters stand beside the LLM that they are part of, as a module of their own."""

Counts = Mapping[str, Mapping[str, int | str]]


def count_parameters() -> dict[str, Counts]:
    """`parameters`, `trainable` and `dtype` by module, for each stage."""
    return {stage: _count(_released(stage)) for stage in STAGES}


def _released(stage: str) -> Config:
    """A stage laid over the released model, whose weights need not be there."""
    return load_config(stage_config_path(stage), find_model=False)


def _count(config: Config) -> Counts:
    model = meta_model(config, QWEN3_06B)
    stages.apply(model, config)
    modules: dict[str, list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        component = LORA if ".lora_" in name else name.partition(".")[0]
        modules.setdefault(component, []).append(parameter)
    return {
        name: {
            "parameters": sum(parameter.numel() for parameter in modules[name]),
            "trainable": sum(p.numel() for p in modules[name] if p.requires_grad),
            "dtype": ", ".join(sorted({DTYPES[parameter.dtype] for parameter in modules[name]})),
        }
        for name in (*COMPONENTS, LORA)
        if name in modules
    }
