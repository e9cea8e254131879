"""Parameters per module and stage at the released model's full size, without any memory.

The model is built on PyTorch's meta device, which knows shapes only. Of the LLM, Qwen3-0.6B, its
published sizes are enough.
"""

from __future__ import annotations

from collections.abc import Mapping

from conf.load import STAGES, Config, load_config, stage_config_path
from trainer.checks.step_cost import QWEN3_06B, meta_model
from trainer.model import stages
from trainer.model.build import COMPONENTS

LORA = "lora"
"""Adapters stand beside the LLM that they are part of, as a module of their own."""

Counts = Mapping[str, Mapping[str, int]]


def count_parameters() -> dict[str, Counts]:
    """`parameters` and `trainable` by module, for each stage."""
    return {stage: _count(_released(stage)) for stage in STAGES}


def _released(stage: str) -> Config:
    """A stage laid over the released model, whose weights need not be there."""
    return load_config(stage_config_path(stage), find_model=False)


def _count(config: Config) -> Counts:
    model = meta_model(config, QWEN3_06B)
    stages.apply(model, config)
    counts: dict[str, dict[str, int]] = {}
    for name, parameter in model.named_parameters():
        component = LORA if ".lora_" in name else name.partition(".")[0]
        module = counts.setdefault(component, {"parameters": 0, "trainable": 0})
        module["parameters"] += parameter.numel()
        module["trainable"] += parameter.numel() * parameter.requires_grad
    return {name: counts[name] for name in (*COMPONENTS, LORA) if name in counts}
