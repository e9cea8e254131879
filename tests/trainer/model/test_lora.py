"""Adapters in fp32 next to an LLM in 16 bits: they learn, and become part of it rounded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from conf.effects import load_parameters
from conf.load import STAGES, Config
from trainer.data.batch import Batch, collate, make_example
from trainer.data.manifest import read_data_list
from trainer.model import lora, stages
from trainer.model.build import build
from trainer.model.losses import Objective, embed, encode, llm_autocast, target_logits
from trainer.model.optim import build_optimizer

BATCH = 8
IN_BF16 = {"llm_conf__llm_dtype": "bf16"}
STOCKS_WAY = {**IN_BF16, "finetune_conf__lora_dtype": "llm"}


def learn(config: Config, updates: int) -> tuple[float, float]:
    """Train stage 3 on the manifest's batches in turn, with its optimizer and without dropout.

    Returns:
        By how much the loss over all batches fell, and the share of lora_A's entries that moved.
    """
    torch.manual_seed(1)
    nano = build(config)
    model = nano.model
    stages.apply(model, config)
    examples = [
        make_example(utterance, nano.extractor, nano.codec)
        for utterance in read_data_list(config["train_data_set_list"])
    ]
    batches = [collate(examples[n : n + BATCH]) for n in range(0, len(examples), BATCH)]
    with torch.no_grad():  # what is frozen gives the LLM the same input in every epoch
        inputs = [_llm_input(model, batch) for batch in batches]
    optimizer = build_optimizer(model, config)
    start = {n: p.detach().clone() for n, p in model.named_parameters() if ".lora_A" in n}
    before = _mean_loss(model, batches, inputs)
    for update in range(updates):
        _loss(model, batches[update % len(batches)], inputs[update % len(batches)]).backward()
        optimizer.step()
        optimizer.zero_grad()
    own = dict(model.named_parameters())
    moved = sum(int((own[name] != value).sum()) for name, value in start.items())
    total = sum(value.numel() for value in start.values())
    return before - _mean_loss(model, batches, inputs), moved / total


def _llm_input(model: Any, batch: Batch) -> torch.Tensor:
    encoded_BTD, num_frames_B = encode(model, batch.features_BTF.clone(), batch.num_frames_B)
    return embed(model, batch, encoded_BTD, num_frames_B)


def _loss(model: Any, batch: Batch, embeddings_BLD: torch.Tensor) -> torch.Tensor:
    with llm_autocast(model, embeddings_BLD.device):
        logits_NV, labels_N = target_logits(model, batch, embeddings_BLD)
    return F.cross_entropy(logits_NV.float(), labels_N)


@torch.no_grad()
def _mean_loss(model: Any, batches: Sequence[Batch], inputs: Sequence[torch.Tensor]) -> float:
    losses = [_loss(model, *pair).item() for pair in zip(batches, inputs, strict=True)]
    return sum(losses) / len(losses)


@pytest.mark.parametrize(
    ("settings", "least", "most"), [({}, 0.99, 1.0), (IN_BF16, 0.99, 1.0), (STOCKS_WAY, 0.0, 0.1)]
)
def test_adapters_in_fp32_move_where_those_in_bf16_do_not(
    tiny_config: Callable[..., Config], settings: dict[str, str], least: float, most: float
) -> None:
    config = tiny_config("s3", train=BATCH, optim_conf__lr=1e-5, **settings)
    _, moved = learn(config, updates=5)
    assert least <= moved <= most


@pytest.mark.slow
def test_next_to_an_llm_in_bf16_the_loss_falls_as_next_to_one_in_fp32(
    tiny_config: Callable[..., Config],
) -> None:
    fallen, moved = {}, {}
    for name, settings in (("fp32", {}), ("bf16", IN_BF16), ("stock", STOCKS_WAY)):
        config = tiny_config("s3", optim_conf__lr=1e-5, **settings)
        fallen[name], moved[name] = learn(config, updates=1200)
    print(f"loss falls by {fallen}, of lora_A's entries moved {moved}")
    assert fallen["bf16"] == pytest.approx(fallen["fp32"], rel=0.05)
    assert moved["bf16"] > 0.99
    assert fallen["stock"] < 0.95 * fallen["fp32"]
    assert moved["stock"] < 0.5


def test_adapters_are_merged_in_fp32_and_rounded_once(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config("s3", train=2, **IN_BF16)
    model = build(config).model
    torch.manual_seed(1)
    for layer in (layer for layer in model.modules() if hasattr(layer, "lora_A")):
        assert (layer.weight.dtype, layer.lora_A.dtype) == (torch.bfloat16, torch.float32)
        torch.nn.init.normal_(layer.lora_B, std=0.05)
        update = layer.lora_B.double() @ layer.lora_A.double() * layer.scaling
        exact = layer.weight.double() + update
        merged = lora.merged_weight(layer)
        assert merged.dtype == torch.bfloat16
        # Sums in fp32 differ from exact ones in the seventh digit, which seldom tips a rounding.
        once = exact.float().to(torch.bfloat16)
        assert (merged == once).float().mean() > 0.999
        torch.testing.assert_close(merged, once, rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("stage", STAGES)
def test_what_learns_its_gradients_and_moments_are_in_fp32(
    tiny_config: Callable[..., Config], stage: str
) -> None:
    """Next to an LLM in bf16, in every stage; the documents' table says so of full size."""
    config = tiny_config(stage, train=2, optim="adamw", **IN_BF16)
    nano = build(config)
    stages.apply(nano.model, config)
    optimizer = build_optimizer(nano.model, config)
    batch = collate(
        [
            make_example(utterance, nano.extractor, nano.codec)
            for utterance in read_data_list(config["train_data_set_list"])
        ]
    )
    Objective(nano.model, config)(batch, training=True).total.backward()
    optimizer.step()
    moments = [
        value
        for state in optimizer.state.values()
        for name, value in state.items()
        if name in ("exp_avg", "exp_avg_sq")
    ]
    trained = [p for p in nano.model.parameters() if p.requires_grad]
    gradients = [p.grad for p in trained if p.grad is not None]
    assert {value.dtype for value in (*moments, *trained, *gradients)} == {torch.float32}
    assert nano.model.llm.model.norm.weight.dtype == torch.bfloat16
    counted = load_parameters()[stage]
    assert {part.dtype for part in counted.values() if part.trainable} == {"fp32"}
    assert counted["llm"].dtype == "bf16"
