"""Runs under watch: values are changed whatever they are, and a refusal is something seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conf.load import Config, load_config, stage_config_path
from tests.conftest import BASE
from trainer.effects.engines import changed, compare, observe, present


@pytest.mark.quick
def test_values_are_changed_in_a_copy_and_blocks_are_made_for_new_ones() -> None:
    values = {"optim": "adamw", "optim_conf": {"lr": 1e-4}}
    assert changed(values, {"optim_conf.lr": "no number", "llm_conf.lora_conf.r": 8}) == {
        "optim": "adamw",
        "optim_conf": {"lr": "no number"},
        "llm_conf": {"lora_conf": {"r": 8}},
    }
    assert values == {"optim": "adamw", "optim_conf": {"lr": 1e-4}}


@pytest.mark.quick
def test_stock_is_not_given_what_is_ours() -> None:
    config = load_config(stage_config_path("8k"), model=BASE)
    ours = {key for key in present(config, "here") if key.startswith("finetune_conf.")}
    assert ours
    assert not ours & present(config, "stock").keys()


def test_a_refused_value_is_a_difference_and_not_an_error(
    tiny_config: Callable[..., Config],
) -> None:
    config = tiny_config("8k", train=2, valid=1, train_conf__max_epoch=1)
    refused = observe("here", config, {"optim": "nobody's"})
    assert compare("here", config, {"optim": "nobody's"}, refused) is None
    assert compare("here", config, {}, refused) is not None
