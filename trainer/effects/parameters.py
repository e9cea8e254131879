"""Parameters per module and stage at the released model's full size, without any memory.

The model is built on PyTorch's meta device, which knows shapes only. Of the LLM, Qwen3-0.6B, its
published sizes are enough.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from conf.load import STAGES, Config, load_config, stage_config_path
from trainer import stages
from trainer.effects.scene import BASE
from trainer.funasr_parts import registered
from trainer.model import COMPONENTS

LORA = "lora"
"""Adapters stand beside the LLM that they are part of, as a module of their own."""

QWEN3_06B: Mapping[str, Any] = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
    "max_position_embeddings": 40_960,
    "tie_word_embeddings": True,
}

Counts = Mapping[str, Mapping[str, int]]


def count_parameters() -> dict[str, Counts]:
    """`parameters` and `trainable` by module, for each stage."""
    with tempfile.TemporaryDirectory() as directory:
        config = json.dumps(dict(QWEN3_06B))
        Path(directory, "config.json").write_text(config, encoding="utf-8")
        return {stage: _count(_released(stage), directory) for stage in STAGES}


def _released(stage: str) -> Config:
    """A stage laid over the released model, whose weights need not be there."""
    return load_config(stage_config_path(stage), find_model=False)


def _count(config: Config, llm: str) -> Counts:
    values: dict[str, Any] = copy.deepcopy(config.values)
    values["llm_conf"]["init_param_path"] = llm
    # Any vocabulary will do: the size of the CTC layer is ctc_vocab_size.
    vocabulary = str(BASE / "multilingual.tiktoken")
    values["dataset_conf"]["ctc_tokenizer_conf"]["vocab_path"] = vocabulary
    frontend = values["frontend_conf"]
    values["input_size"] = frontend["n_mels"] * frontend["lfr_m"]
    arguments = {**values, **values.pop("model_conf")}
    with torch.device("meta"):
        model = registered("model_classes", values["model"])(**arguments)
    stages.apply(model, config)
    counts: dict[str, dict[str, int]] = {}
    for name, parameter in model.named_parameters():
        component = LORA if ".lora_" in name else name.partition(".")[0]
        module = counts.setdefault(component, {"parameters": 0, "trainable": 0})
        module["parameters"] += parameter.numel()
        module["trainable"] += parameter.numel() * parameter.requires_grad
    return {name: counts[name] for name in (*COMPONENTS, LORA) if name in counts}
