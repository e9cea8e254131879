"""A model that was made without memory is, bit by bit, the one that FunASR's constructor fills."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from conf.load import Config
from tests.conftest import BASE
from trainer.model import build as module
from trainer.model.build import build
from trainer.model.without_memory import WithoutMemory


def _tensors(model: Any) -> dict[str, torch.Tensor]:
    """All that it holds, tables and buffers that no file has among them."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


@pytest.mark.parametrize("llm_dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", ["8k", "s1", "s2", "s3"])
def test_every_tensor_is_what_it_would_have_been(
    tiny_config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    llm_dtype: str,
) -> None:
    config = tiny_config(stage, llm_conf__llm_dtype=llm_dtype)
    torch.manual_seed(7)
    found = _tensors(build(config).model)
    monkeypatch.setattr(module, "WithoutMemory", nullcontext)
    torch.manual_seed(7)
    expected = _tensors(build(config).model)
    assert found.keys() == expected.keys()
    assert any(".lora_A" in name for name in found) == (stage == "s3")
    for name, tensor in found.items():
        other = expected[name]
        assert torch.equal(tensor, other), name
        assert (tensor.dtype, tensor.stride(), tensor.requires_grad, type(tensor)) == (
            *(other.dtype, other.stride(), other.requires_grad),
            type(other),
        )


def test_a_weight_of_two_names_is_one_weight_that_trains_as_one(
    tiny_config: Callable[..., Config],
) -> None:
    model = build(tiny_config()).model
    assert model.llm.lm_head.weight is model.llm.model.embed_tokens.weight


def test_training_writes_to_the_model_and_not_to_the_file(
    tiny_config: Callable[..., Config],
) -> None:
    before = (BASE / "model.pt").read_bytes()
    model = build(tiny_config()).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert (BASE / "model.pt").read_bytes() == before


def test_adapters_are_drawn_after_what_is_drawn_in_a_way_of_its_own() -> None:
    """Few values of a normal distribution are drawn in pairs; of others 16 are drawn again."""

    def made() -> torch.Tensor:
        for size in (3, 15, 16, 24, 1000):
            torch.nn.Parameter(torch.empty(size)).data.normal_()
        return torch.empty(4).new_zeros(5).uniform_()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        expected = made()
        torch.manual_seed(3)
        with WithoutMemory():
            found = made()
    assert torch.equal(found, expected)
