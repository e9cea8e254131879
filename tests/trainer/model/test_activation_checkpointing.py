"""Activation checkpointing and number formats: the same step, in less memory or other digits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from conf.load import Config
from trainer.data.batch import collate, make_example
from trainer.data.manifest import read_data_list
from trainer.model import stages
from trainer.model.build import Nano, apply_backends, build
from trainer.model.losses import Objective


@pytest.fixture
def backends() -> Iterator[None]:
    """The process's settings are put back."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32)
    yield
    cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32 = before


def _step(nano: Nano, config: Config, *, bf16: bool = False) -> tuple[float, dict[str, Any], int]:
    """Loss, gradients, and bytes kept for the backward pass; weights themselves not counted."""
    stages.apply(nano.model, config)
    stages.set_training_mode(nano.model)
    weights = {p.untyped_storage().data_ptr() for p in nano.model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    utterances = list(read_data_list(config["train_data_set_list"]))[:4]
    batch = collate([make_example(u, nano.extractor, nano.codec) for u in utterances])
    torch.manual_seed(7)
    objective = Objective(nano.model, config)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        loss = objective(batch, training=True).total
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad for name, p in nano.model.named_parameters() if p.grad is not None}
    return loss.item(), gradients, sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("part", ["audio_encoder", "llm"])
@pytest.mark.parametrize("stage", ["8k", "s1", "s2", "s3"])
def test_layers_computed_again_give_the_same_step(
    tiny_config: Callable[..., Config], stage: str, part: str
) -> None:
    plain = tiny_config(stage, detach_ctc_decoder=False)
    config = tiny_config(
        stage, detach_ctc_decoder=False, **{f"{part}_conf__activation_checkpoint": True}
    )
    nano = build(config)
    expected = build(plain)
    assert list(nano.model.state_dict()) == list(expected.model.state_dict())
    nano.model.load_state_dict(expected.model.state_dict())  # LoRA starts at random
    loss, gradients, kept = _step(nano, config)
    expected_loss, expected_gradients, expected_kept = _step(expected, plain)
    assert loss == expected_loss
    assert gradients.keys() == expected_gradients.keys()
    for name, value in gradients.items():
        assert torch.equal(value, expected_gradients[name]), name
    if part == "llm" or stage in ("8k", "s1"):
        assert kept < 0.9 * expected_kept
    else:  # a frozen encoder keeps nothing anyway
        assert kept == expected_kept


def test_a_copy_computes_with_its_own_layers(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config("s1", audio_encoder_conf__activation_checkpoint=True)
    nano = build(config)
    copied = copy.deepcopy(nano.model)
    features = torch.randn(1, 20, 560)
    lengths = torch.tensor([20])
    with torch.no_grad():
        for parameter in nano.model.audio_encoder.parameters():
            parameter.zero_()
    ours, _ = nano.model.encode(features.clone(), lengths)
    other, _ = copied.encode(features.clone(), lengths)
    assert not ours.any()
    assert other.any()


@pytest.mark.parametrize(
    ("settings", "autocast"),
    [({"train_conf__use_bf16": True}, True), ({"llm_conf__llm_dtype": "bf16"}, False)],
)
def test_a_step_in_bf16(
    tiny_config: Callable[..., Config], settings: dict[str, Any], autocast: bool
) -> None:
    """The weights that learn and their gradients stay in float32."""
    config = tiny_config("s1", audio_encoder_conf__dropout_rate=0.0)
    expected, _, _ = _step(build(config), config)
    half = tiny_config("s1", audio_encoder_conf__dropout_rate=0.0, **settings)
    assert half["train_conf.use_bf16"] == autocast
    nano = build(half)
    loss, gradients, _ = _step(nano, half, bf16=autocast)
    assert loss == pytest.approx(expected, rel=0.02)
    assert loss != expected
    assert gradients
    assert {value.dtype for value in gradients.values()} == {torch.float32}
    assert all(torch.isfinite(value).all() for value in gradients.values())


@pytest.mark.usefixtures("backends")
@pytest.mark.parametrize("tf32", [True, False])
def test_backends_are_set_as_configured(tiny_config: Callable[..., Config], tf32: bool) -> None:
    torch.backends.cudnn.deterministic = False
    apply_backends(tiny_config(enable_tf32=tf32))
    assert torch.backends.cuda.matmul.allow_tf32 is tf32
    assert torch.backends.cudnn.allow_tf32 is tf32
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cuda.cudnn_sdp_enabled()
