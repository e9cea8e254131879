"""Layers in fewer operations: FunASR's and transformers' results, but for rounding."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch

from conf.load import STAGES, Config
from trainer.data.batch import Batch, collate, make_example
from trainer.data.manifest import read_data_list
from trainer.model import losses, stages
from trainer.model.build import Nano, build
from trainer.model.losses import Objective

ROUNDING = 5e-7
"""Four times the distance of neighbouring float32 numbers, relative to the loss or to the norm of
the whole gradient: sums of as many numbers in another order. 1.4e-7 was measured at most."""


def _plain(nano: Nano, config: Config) -> Any:
    """The same weights in layers as their classes have them."""
    model = build(config.replace({"finetune_conf.fused": False}, "test")).model
    model.load_state_dict(nano.model.state_dict())
    return model


def _batch(nano: Nano, config: Config, count: int = 6) -> Batch:
    utterances = read_data_list(config["train_data_set_list"])[:count]
    return collate([make_example(u, nano.extractor, nano.codec) for u in utterances])


def _step(model: Any, config: Config, batch: Batch) -> tuple[float, dict[str, torch.Tensor]]:
    stages.apply(model, config)
    stages.set_training_mode(model)
    torch.manual_seed(7)  # dropout is on
    own = replace(batch, features_BTF=batch.features_BTF.clone())  # FunASR's encoder writes into it
    loss = Objective(model, config)(own, training=True).total
    loss.backward()  # type: ignore[no-untyped-call]
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss.item(), found


def _apart(one: Iterable[torch.Tensor], other: Iterable[torch.Tensor]) -> float:
    """The largest difference of an entry, relative to the norm of all."""
    pairs = list(zip(one, other, strict=True))
    norm = torch.stack([theirs.norm() for _, theirs in pairs]).norm()
    return max(float((ours - theirs).abs().max() / norm) for ours, theirs in pairs)


@pytest.mark.quick
@pytest.mark.parametrize("stage", STAGES)
def test_a_step_is_that_of_the_classes_own_layers(
    tiny_config: Callable[..., Config], stage: str
) -> None:
    config = tiny_config(stage, detach_ctc_decoder=False)
    nano = build(config)
    if stage == "s3":  # adapters begin at zero, and nothing would reach what is before them
        for name, parameter in nano.model.named_parameters():
            if ".lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
    plain, batch = _plain(nano, config), _batch(nano, config)
    assert not batch.attention_mask_BL.all(), "padding must be seen"
    loss, gradients = _step(nano.model, config, batch)
    expected, expected_gradients = _step(plain, config, batch)
    assert gradients.keys() == expected_gradients.keys()
    assert loss == pytest.approx(expected, rel=ROUNDING)
    assert _apart(gradients.values(), expected_gradients.values()) <= ROUNDING


@pytest.mark.quick
def test_without_gradients_the_encoders_output_and_the_llms_are_the_classes_own(
    tiny_config: Callable[..., Config],
) -> None:
    """The LLM's to the last bit: what it decodes is what stock decodes, in bf16 too."""
    config = tiny_config()
    nano = build(config)
    plain, batch = _plain(nano, config), _batch(nano, config)
    with torch.no_grad():
        for lengths_B in (batch.num_frames_B, batch.num_frames_B - 3):
            ours, our_lengths = nano.model.encode(batch.features_BTF.clone(), lengths_B)
            theirs, their_lengths = plain.encode(batch.features_BTF.clone(), lengths_B)
            assert our_lengths.tolist() == their_lengths.tolist()
            for mine, yours, length in zip(ours, theirs, our_lengths, strict=True):
                torch.testing.assert_close(mine[:length], yours[:length], rtol=1e-5, atol=1e-5)
        hidden = [model.llm.model(input_ids=batch.input_ids_BL)[0] for model in (nano.model, plain)]
    assert torch.equal(*hidden)


@pytest.mark.quick
@pytest.mark.parametrize("stage", ["8k", "s2", "s3"])
def test_no_mask_gives_the_step_with_the_mask(
    tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    config = tiny_config(stage)
    nano = build(config)
    batch = _batch(nano, config)
    masks = []

    def note(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        masks.append(kwargs["attention_mask"])

    for layer in nano.model.llm.model.layers:
        layer.self_attn.register_forward_pre_hook(note, with_kwargs=True)
    loss, gradients = _step(nano.model, config, batch)
    gradients = {name: value.clone() for name, value in gradients.items()}
    assert {mask is None for mask in masks} == {True}
    masks.clear()
    nano.model.zero_grad()
    monkeypatch.setattr(losses, "_causal_alone", lambda _: False)
    expected, expected_gradients = _step(nano.model, config, batch)
    assert {mask is None for mask in masks} == {False}
    assert loss == pytest.approx(expected, rel=ROUNDING)
    assert _apart(gradients.values(), expected_gradients.values()) <= ROUNDING


@pytest.mark.quick
def test_attention_that_needs_a_mask_gets_one(tiny_config: Callable[..., Config]) -> None:
    """Without flash attention transformers' layers are causal by their mask alone."""
    config = tiny_config()
    nano = build(config)
    batch = _batch(nano, config)
    expected, _ = _step(nano.model, config, batch)
    nano.model.llm.set_attn_implementation("eager")
    eager, _ = _step(nano.model, config, batch)
    assert eager == pytest.approx(expected, rel=ROUNDING)


@pytest.mark.quick
def test_a_copy_has_layers_of_its_own(tiny_config: Callable[..., Config]) -> None:
    nano = build(tiny_config())
    copied = copy.deepcopy(nano.model)
    with torch.no_grad():
        for parameter in nano.model.audio_encoder.parameters():
            parameter.zero_()
    features, lengths = torch.randn(1, 20, 560), torch.tensor([20])
    assert not nano.model.encode(features, lengths)[0].any()
    assert copied.encode(features, lengths)[0].any()


@pytest.mark.quick
@pytest.mark.parametrize("stage", STAGES)
def test_frames_added_to_the_encoders_input_change_no_gradient(
    tiny_config: Callable[..., Config], stage: str
) -> None:
    settings = {
        "specaug": None,
        "detach_ctc_decoder": False,
        "audio_encoder_conf__dropout_rate": 0.0,
        "audio_encoder_conf__attention_dropout_rate": 0.0,
    }
    config = tiny_config(stage, **settings)
    nano = build(config)
    batch = _batch(nano, config)
    padded_config = tiny_config(stage, **settings, finetune_conf__pad_frames_to=64)
    padded = Objective(nano.model, padded_config).prepared(batch)
    assert padded.features_BTF.shape[1] == 64 * -(-batch.features_BTF.shape[1] // 64)
    assert padded.features_BTF.shape[1] > batch.features_BTF.shape[1]
    expected, expected_gradients = _step(nano.model, config, batch)
    expected_gradients = {name: value.clone() for name, value in expected_gradients.items()}
    nano.model.zero_grad()
    loss, gradients = _step(nano.model, config, padded)
    # Sums of other lengths, in another order.
    assert loss == pytest.approx(expected, rel=1e-6)
    assert _apart(gradients.values(), expected_gradients.values()) <= 1e-6


def test_compiled_layers_give_the_same_step(
    tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced and differentiated as a compiler gets them, whether or not one is here."""
    traced = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", traced)
    settings = {
        "audio_encoder_conf__dropout_rate": 0.0,
        "audio_encoder_conf__attention_dropout_rate": 0.0,
    }
    config = tiny_config("8k", **settings)
    compiled_config = config.replace({"finetune_conf.compile_layers": True}, "test")
    nano, compiled = build(config), build(compiled_config)
    assert list(compiled.model.state_dict()) == list(nano.model.state_dict())
    batch = _batch(nano, config)
    expected, expected_gradients = _step(nano.model, config, batch)
    loss, gradients = _step(compiled.model, compiled_config, batch)
    assert loss == pytest.approx(expected, rel=ROUNDING)
    assert gradients.keys() == expected_gradients.keys()
    assert _apart(gradients.values(), expected_gradients.values()) <= ROUNDING
