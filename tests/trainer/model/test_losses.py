"""Losses: CTC as torch has it, gradients where they should go, no leak between utterances."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.load import Config, load_config, stage_config_path
from tests.conftest import BASE
from trainer.data.batch import Example, collate, make_example
from trainer.data.manifest import read_data_list
from trainer.model import losses as module
from trainer.model import stages
from trainer.model.build import Nano, build
from trainer.model.losses import HEAD_ROWS, Objective, ctc_best, ctc_log_probs, encode


@pytest.fixture
def prepared(
    tiny_config: Callable[..., Config],
) -> Callable[..., tuple[Nano, Config, list[Example]]]:
    def make(**overrides: Any) -> tuple[Nano, Config, list[Example]]:
        config = tiny_config("8k", **overrides)
        nano = build(config)
        stages.apply(nano.model, config)
        utterances = read_data_list(config["train_data_set_list"])[:8]
        return nano, config, [make_example(u, nano.extractor, nano.codec) for u in utterances]

    return make


def test_ctc_is_torchs_loss_on_the_same_logits(prepared: Callable[..., Any]) -> None:
    nano, config, examples = prepared()
    batch = collate(examples)
    losses = Objective(nano.model, config)(batch, training=False)
    encoded, lengths = encode(nano.model, batch.features_BTF.clone(), batch.num_frames_B)
    log_probs = ctc_log_probs(nano.model, encoded, lengths).transpose(0, 1)
    expected = F.ctc_loss(
        log_probs,
        torch.cat([torch.tensor(example.ctc_labels) for example in examples]),
        lengths,
        batch.num_ctc_labels_B,
        blank=log_probs.shape[-1] - 1,
        zero_infinity=True,
    )
    assert losses.ctc is not None
    torch.testing.assert_close(losses.ctc, expected)
    torch.testing.assert_close(losses.total, losses.ce + config["ctc_weight"] * losses.ctc)


@pytest.mark.parametrize(("detach", "reaches"), [(True, False), (False, True)])
def test_detach_ctc_decoder_decides_whether_ctc_reaches_the_encoder(
    prepared: Callable[..., Any], detach: bool, reaches: bool
) -> None:
    nano, config, examples = prepared(detach_ctc_decoder=detach)
    losses = Objective(nano.model, config)(collate(examples), training=True)
    losses.ctc.backward()
    gradients = [parameter.grad for parameter in nano.model.audio_encoder.parameters()]
    assert any(gradient is not None for gradient in gradients) == reaches
    assert nano.model.ctc.ctc_lo.weight.grad is not None


def test_specaug_is_for_training_only(prepared: Callable[..., Any]) -> None:
    nano, config, examples = prepared()
    objective = Objective(nano.model, config)
    batch = collate(examples)
    before = batch.features_BTF.clone()
    losses = {objective(objective.prepared(batch), training=True).total.item() for _ in range(3)}
    assert len(losses) == 3
    assert torch.equal(batch.features_BTF, before)
    without = {objective(batch, training=True).total.item() for _ in range(3)}
    assert len(without) == 1


def test_a_batchs_loss_is_that_of_its_utterances(prepared: Callable[..., Any]) -> None:
    nano, config, examples = prepared()
    objective = Objective(nano.model, config)
    together = objective(collate(examples), training=False)
    alone = [objective(collate([example]), training=False) for example in examples]
    tokens = sum(losses.num_tokens for losses in alone)
    ce = sum(losses.ce.item() * losses.num_tokens for losses in alone) / tokens
    ctc = sum(losses.ctc.item() for losses in alone) / len(alone)
    assert together.num_tokens == tokens
    assert together.ce.item() == pytest.approx(ce, rel=1e-5)
    assert together.ctc.item() == pytest.approx(ctc, rel=1e-5)


@pytest.fixture(scope="module")
def whole_sets(corpus: Path) -> tuple[Nano, Objective, list[Example], list[tuple[Any, Any]]]:
    """Examples of many lengths from two sets, and each one's losses alone."""
    config = load_config(stage_config_path("8k"), init_param=BASE / "model.pt")
    nano = build(config)
    stages.apply(nano.model, config)
    objective = Objective(nano.model, config)
    utterances = [
        utterance
        for split in ("valid", "wideband")
        for utterance in read_data_list(corpus / f"{split}.jsonl")[:20]
    ]
    examples = [make_example(u, nano.extractor, nano.codec) for u in utterances]
    with torch.no_grad():
        alone = [objective(collate([example]), training=False) for example in examples]
    return nano, objective, examples, [(losses.ce, losses.ctc) for losses in alone]


@settings(max_examples=25)
@given(indices=st.lists(st.integers(0, 39), min_size=1, max_size=12, unique=True))
def test_neighbours_and_padding_change_no_loss(
    whole_sets: tuple[Nano, Objective, list[Example], list[tuple[Any, Any]]], indices: list[int]
) -> None:
    _, objective, examples, alone = whole_sets
    with torch.no_grad():
        together = objective(collate([examples[index] for index in indices]), training=False)
    tokens = [len(examples[index].target) for index in indices]
    ce = sum(alone[index][0] * count for index, count in zip(indices, tokens, strict=True))
    ctc = sum(alone[index][1] for index in indices)
    # Rounding alone: sums over other shapes run in another order.
    torch.testing.assert_close(together.ce, ce / sum(tokens), rtol=1e-5, atol=0)
    torch.testing.assert_close(together.ctc, ctc / len(indices), rtol=1e-5, atol=0)


def test_heads_in_parts_give_the_losses_and_labels_of_the_whole(
    whole_sets: tuple[Nano, Objective, list[Example], list[tuple[Any, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nano, objective, examples, _ = whole_sets
    # Labels that follow themselves, the blank between them included, and one without any.
    twice = replace(examples[1], ctc_labels=[5, 5, 9, 5])
    batch = collate([examples[0], twice, replace(examples[2], ctc_labels=[]), *examples[3:9]])
    with torch.no_grad():
        encoded, lengths = encode(nano.model, batch.features_BTF.clone(), batch.num_frames_B)
        log_probs = ctc_log_probs(nano.model, encoded, lengths)
        whole_ctc = F.ctc_loss(
            log_probs.transpose(0, 1),
            batch.ctc_labels_BU,
            lengths,
            batch.num_ctc_labels_B,
            blank=nano.model.blank_id,
            zero_infinity=True,
        )
        for rows in (7, 10**6):
            monkeypatch.setattr(module, "HEAD_ROWS", rows)
            parts = objective(batch, training=False)
            # Sums in another order: float32's rounding, no more.
            torch.testing.assert_close(parts.ctc, whole_ctc, rtol=1e-6, atol=0)
            best = ctc_best(nano.model, encoded, lengths)
            assert torch.equal(best, log_probs.argmax(dim=-1))
            if rows == 7:
                few = parts.ce
        torch.testing.assert_close(few, parts.ce, rtol=1e-6, atol=0)


def test_no_head_makes_all_rows_at_once(prepared: Callable[..., Any]) -> None:
    """In evaluation; training needs them for its gradients."""
    nano, config, examples = prepared()
    rows = []
    for head in (nano.model.ctc.ctc_lo, nano.model.llm.lm_head):
        head.register_forward_hook(lambda _, __, output: rows.append(output.shape[:-1].numel()))
    batch = collate(examples * 6)
    with torch.no_grad():
        Objective(nano.model, config)(batch, training=False)
        encoded, lengths = encode(nano.model, batch.features_BTF.clone(), batch.num_frames_B)
        ctc_best(nano.model, encoded, lengths)
    assert sum(rows) > 2 * batch.features_BTF.shape[:2].numel() > 4 * HEAD_ROWS
    assert max(rows) == HEAD_ROWS


@pytest.mark.parametrize("lsm_weight", [0.0, 0.1, 0.5])
def test_label_smoothing_does_nothing_as_in_stock(
    prepared: Callable[..., Any], lsm_weight: float
) -> None:
    """The released model sets it, and stock's loss never sees it: nor does ours."""
    nano, config, examples = prepared(model_conf__lsm_weight=lsm_weight)
    losses = Objective(nano.model, config)(collate(examples), training=False)
    nano, config, examples = prepared()
    assert (
        losses.total.item()
        == Objective(nano.model, config)(collate(examples), training=False).total.item()
    )


def test_ctc_is_left_out_where_it_teaches_nothing(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config("s1")  # CTC frozen and detached
    nano = build(config)
    stages.apply(nano.model, config)
    assert not Objective(nano.model, config).ctc_teaches
