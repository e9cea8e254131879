"""LoRA adapters in the LLM: the precision that they learn in, and how they become weights of it.

FunASR creates adapters in the precision of the LLM, and the optimizer's moments with them. In bf16
two neighbouring numbers are 0.4 % apart: an update of 1e-5 to an entry of 0.02 rounds away, and
lora_A hardly learns. Adapters in fp32 next to the same LLM learn as next to one in fp32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def set_precision(model: nn.Module, lora_dtype: str) -> None:
    """Put the adapters of a built model into the precision of `finetune_conf.lora_dtype`.

    Autocast (`trainer.model.losses.llm_autocast`) multiplies them in the LLM's precision, so that
    gradients and updates alone are in fp32.

    Args:
        model: FunASRNano, with adapters or without.
        lora_dtype: `fp32`, or `llm` for that of the LLM, as FunASR creates them.
    """
    if lora_dtype == "llm":
        return
    layer: Any
    for layer in model.modules():
        if hasattr(layer, "lora_A"):
            layer.lora_A = nn.Parameter(layer.lora_A.detach().float())
            layer.lora_B = nn.Parameter(layer.lora_B.detach().float())


def merged_weight(layer: Any) -> torch.Tensor:
    """W + (alpha / r) B A (Hu et al. 2021, arXiv 2106.09685) of one layer, in W's precision.

    Summed in fp32 and rounded once: in bf16 the product would be rounded before the sum is.
    """
    update = layer.lora_B.float() @ layer.lora_A.float()
    merged: torch.Tensor = layer.weight.float() + update * layer.scaling
    return merged.to(layer.weight.dtype).detach()
