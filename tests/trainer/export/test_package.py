"""Packaging: LoRA folded into the weights gives what LoRA beside them gave."""

from __future__ import annotations

from collections.abc import Callable

import torch

from conf.load import Config
from trainer.data.batch import collate, make_example
from trainer.data.manifest import read_data_list
from trainer.export.package import merged_state
from trainer.model import stages
from trainer.model.build import build
from trainer.model.losses import Objective


def test_merged_lora_is_applied_lora(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config("s3")
    applied = build(config)
    stages.apply(applied.model, config)
    torch.manual_seed(1)
    for name, parameter in applied.model.named_parameters():
        if ".lora_B" in name:  # starts at zero, where LoRA changes nothing
            torch.nn.init.normal_(parameter, std=0.05)
    plain_config = config.replace({"llm_conf.use_lora": False}, "test")
    plain, merged = build(plain_config), build(plain_config)
    merged.model.load_state_dict(merged_state(applied.model))
    utterances = read_data_list(config["valid_data_set_list"])
    examples = [make_example(u, applied.extractor, applied.codec) for u in utterances]
    losses = []
    for nano in (applied, merged, plain):
        nano.model.eval()
        with torch.no_grad():
            losses.append(Objective(nano.model, config)(collate(examples), training=False).ce)
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=0)
    assert not torch.isclose(losses[2], losses[0], rtol=1e-3)
