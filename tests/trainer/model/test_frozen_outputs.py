"""Outputs of frozen parts, kept instead of computed again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conf.errors import WorkError
from conf.load import Config
from trainer.data.batch import Level, collate, make_example
from trainer.data.manifest import Utterance, read_data_list
from trainer.finetune.run import finetune
from trainer.model import stages
from trainer.model.build import Nano, build
from trainer.model.frozen_outputs import FrozenOutputs, example_source, kept_level
from trainer.model.losses import Objective
from trainer.tracking.event_log import NullTracker

Prepared = tuple[Nano, Config, Objective, list[Utterance]]


@pytest.fixture
def prepared(tiny_config: Callable[..., Config], tmp_path: Path) -> Callable[..., Prepared]:
    def make(stage: str, **overrides: Any) -> Prepared:
        settings = {
            "specaug": None,
            "finetune_conf__feature_cache_dir": str(tmp_path / "cache"),
            **overrides,
        }
        config = tiny_config(stage, **settings)
        nano = build(config)
        stages.apply(nano.model, config)
        utterances = list(read_data_list(config["train_data_set_list"])[:8])
        return nano, config, Objective(nano.model, config), utterances

    return make


@pytest.mark.parametrize(
    ("stage", "overrides", "level"),
    [
        ("8k", {}, "features"),
        ("s1", {}, "features"),
        ("s2", {}, "encoded"),
        ("s3", {}, "adapted"),
        ("s3", {"ctc_decoder_conf__freeze": False}, "encoded"),
        ("s2", {"specaug": "SpecAugLFR"}, "features"),
        ("s2", {"frontend_conf__dither": 1.0}, "features"),
        ("s2", {"finetune_conf__frozen_dropout": True}, "features"),
        ("s2", {"finetune_conf__feature_cache_mb": 0}, "features"),
        ("s2", {"finetune_conf__zero_padding": False}, "features"),
        ("s2", {"finetune_conf__cache_frozen_outputs": False}, "features"),
    ],
)
def test_what_never_changes_is_kept(
    prepared: Callable[..., Prepared],
    stage: str,
    overrides: dict[str, Any],
    level: str,
) -> None:
    nano, config, objective, _ = prepared(stage, **overrides)
    assert kept_level(nano, config, objective) == level


@pytest.mark.parametrize(("stage", "level"), [("s2", "encoded"), ("s3", "adapted")])
def test_outputs_of_a_batch_are_those_of_each_utterance_alone(
    prepared: Callable[..., Prepared], tmp_path: Path, stage: str, level: Level
) -> None:
    """But for the order in which a product's terms are added up."""
    found = []
    for batch_size in (1, 64):
        nano, config, _, utterances = prepared(
            stage,
            finetune_conf__eval_batch_size=batch_size,
            finetune_conf__feature_cache_dir=str(tmp_path / str(batch_size)),
        )
        assert nano.extractor.store is not None
        outputs = FrozenOutputs(nano, config, nano.extractor.store, level)
        assert outputs.fill(utterances)
        found.append([outputs(utterance).features_TF for utterance in utterances])
    assert len({len(alone_TD) for alone_TD in found[0]}) > 1  # so that there was padding
    for alone_TD, batched_TD in zip(*found, strict=True):
        torch.testing.assert_close(batched_TD, alone_TD, rtol=1e-5, atol=1e-5)


def test_what_is_filled_in_two_goes_is_the_same_bit_by_bit(
    prepared: Callable[..., Prepared], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is interrupted in the middle of a batch."""
    found = []
    for name in ("whole", "interrupted"):
        cache = str(tmp_path / name)
        nano, config, _, utterances = prepared("s2", finetune_conf__feature_cache_dir=cache)
        store = nano.extractor.store
        assert store is not None
        outputs = FrozenOutputs(nano, config, store, "encoded")
        if name == "interrupted":
            for utterance in utterances:
                nano.extractor(utterance)
            with monkeypatch.context() as patched:
                patched.setattr(store, "put", _interrupted(store.put, after=3))
                with pytest.raises(KeyboardInterrupt):
                    outputs.fill(utterances)
        outputs.fill(utterances)
        found.append([outputs(utterance).features_TF for utterance in utterances])
    for whole_TD, interrupted_TD in zip(*found, strict=True):
        assert torch.equal(whole_TD, interrupted_TD)


def _interrupted(put: Callable[..., None], after: int) -> Callable[..., None]:
    left = iter(range(after))

    def putting(key: bytes, tensor: torch.Tensor) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        put(key, tensor)

    return putting


@pytest.mark.parametrize(
    ("stage", "overrides", "level"),
    [
        ("s2", {"train_conf__use_bf16": True}, "encoded"),
        ("s3", {"llm_conf__llm_dtype": "bf16"}, "adapted"),
    ],
)
def test_outputs_in_sixteen_bits_lose_nothing(
    prepared: Callable[..., Prepared],
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    overrides: dict[str, Any],
    level: Level,
) -> None:
    """They are half as large, and losses are exactly those from outputs in 32 bits."""
    nano, config, objective, utterances = prepared(stage, **overrides)
    store = nano.extractor.store
    assert store is not None
    halves = FrozenOutputs(nano, config, store, level)
    wholes = FrozenOutputs(nano, config, store, level)
    monkeypatch.setattr(wholes, "_dtype", torch.float32)
    monkeypatch.setattr(wholes, "_identity", "in 32 bits")
    losses = []
    for outputs, dtype in ((halves, torch.bfloat16), (wholes, torch.float32)):
        outputs.fill(utterances)
        examples = [outputs(utterance) for utterance in utterances]
        assert {example.features_TF.dtype for example in examples} == {dtype}
        with torch.autocast("cpu", torch.bfloat16, enabled=config["train_conf.use_bf16"]):
            found = objective(collate(examples), training=True)
        losses.append((found.ce.item(), None if found.ctc is None else found.ctc.item()))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("stage", ["s2", "s3"])
def test_losses_and_gradients_are_those_from_features(
    prepared: Callable[..., Prepared], stage: str
) -> None:
    """Kept outputs are of one utterance alone, those of a batch are rounded in another order."""
    nano, config, objective, utterances = prepared(stage)
    source = example_source(nano, config, objective, utterances)
    assert isinstance(source, FrozenOutputs)
    plain = functools.partial(make_example, extractor=nano.extractor, codec=nano.codec)
    stages.set_training_mode(nano.model)
    found = []
    for load in (plain, source):
        torch.manual_seed(0)  # dropout
        nano.model.zero_grad()
        losses = objective(collate([load(utterance) for utterance in utterances]), training=True)
        losses.total.backward()
        gradients = {n: p.grad for n, p in nano.model.named_parameters() if p.grad is not None}
        found.append((losses.total.detach(), gradients))
    (loss, gradients), (kept_loss, kept_gradients) = found
    torch.testing.assert_close(kept_loss, loss, rtol=1e-5, atol=0)
    assert kept_gradients.keys() == gradients.keys()
    norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients.values()]))
    for name, gradient in gradients.items():
        assert (kept_gradients[name] - gradient).abs().max() <= 1e-5 * norm


def test_a_second_run_repeats_bit_by_bit(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    """The first fills the store, the second reads it."""
    results = []
    for name in ("first", "second"):
        config = tiny_config(
            "s2",
            specaug=None,
            output_dir=str(tmp_path / name),
            finetune_conf__feature_cache_dir=str(tmp_path / "cache"),
            finetune_conf__max_new_tokens=8,
        )
        metrics = finetune(config, NullTracker()).metrics
        results.append({n: v for n, v in metrics.items() if n != "train/utterances_per_s"})
    assert results[0] == results[1]


def test_without_room_nothing_is_kept(prepared: Callable[..., Prepared]) -> None:
    nano, config, objective, _ = prepared("s2", finetune_conf__feature_cache_mb=1)
    utterances = read_data_list(config["train_data_set_list"])
    source = example_source(nano, config, objective, utterances)
    assert not isinstance(source, FrozenOutputs)
    assert source(utterances[0]).level == "features"


def test_what_was_emptied_in_use_is_said(prepared: Callable[..., Prepared]) -> None:
    nano, config, _, utterances = prepared("s2")
    assert nano.extractor.store is not None
    outputs = FrozenOutputs(nano, config, nano.extractor.store, "encoded")
    with pytest.raises(WorkError, match="the kept outputs were emptied while in use"):
        outputs(utterances[0])
