"""Losses: CTC as torch has it, gradients where they should go, no leak between utterances."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from conf.load import Config
from trainer import stages
from trainer.batch import Example, collate, make_example
from trainer.losses import Objective, ctc_log_probs, encode
from trainer.manifest import read_data_list
from trainer.model import Nano, build


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
    evaluated = {objective(batch, training=False).total.item() for _ in range(3)}
    trained = {objective(batch, training=True).total.item() for _ in range(3)}
    assert len(evaluated) == 1
    assert len(trained) == 3


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


def test_ctc_is_left_out_where_it_teaches_nothing(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config("s1")  # CTC frozen and detached
    nano = build(config)
    stages.apply(nano.model, config)
    assert not Objective(nano.model, config).ctc_teaches
