"""Exactly the stage's weights change, and frozen parts stay as they were loaded."""

import weakref
from collections.abc import Callable, Iterator

import pytest
import torch

from conf.errors import ConfigError
from conf.load import Config
from trainer.data.batch import collate, make_example
from trainer.data.manifest import read_data_list
from trainer.model import stages
from trainer.model.build import build
from trainer.model.losses import Objective
from trainer.model.optim import build_optimizer

TRAINED = {
    "8k": {"audio_encoder", "ctc_decoder", "ctc"},
    "s1": {"audio_encoder"},
    "s2": {"audio_adaptor", "ctc_decoder", "ctc"},
    "s3": {"llm"},
}


@pytest.mark.parametrize("llm_dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", TRAINED)
def test_one_step_changes_exactly_the_stages_weights(
    tiny_config: Callable[..., Config], stage: str, llm_dtype: str
) -> None:
    config = tiny_config(stage, llm_conf__llm_dtype=llm_dtype)
    nano = build(config)
    stages.apply(nano.model, config)
    stages.set_training_mode(nano.model)
    before = {name: value.clone() for name, value in nano.model.state_dict().items()}
    optimizer = build_optimizer(nano.model, config)
    batch = collate(
        [
            make_example(utterance, nano.extractor, nano.codec)
            for utterance in read_data_list(config["train_data_set_list"])[:8]
        ]
    )
    for _ in range(2):  # LoRA's A gets its first gradient once B is not zero
        Objective(nano.model, config)(batch, training=True).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    changed = {
        name
        for name, value in nano.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert {name.split(".")[0] for name in changed} == TRAINED[stage]
    expected = {name for name, p in nano.model.named_parameters() if p.requires_grad}
    # A bias in front of a softmax over keys has no gradient but rounding; all others must move.
    assert changed <= expected
    assert len(expected - changed) <= 0.1 * len(expected)
    if stage == "s3":
        assert all(".lora_" in name for name in changed)


@pytest.mark.parametrize("stage", TRAINED)
def test_frozen_parts_stay_in_eval_mode(tiny_config: Callable[..., Config], stage: str) -> None:
    config = tiny_config(stage)
    model = build(config).model
    stages.apply(model, config)
    stages.set_training_mode(model)
    for component in ("audio_encoder", "audio_adaptor", "ctc_decoder", "ctc"):
        assert getattr(model, component).training == (component in TRAINED[stage])
    lora = [module for module in model.llm.modules() if hasattr(module, "lora_A")]
    assert all(module.lora_dropout.training for module in lora)
    assert not model.llm.training


def test_a_stage_that_trains_nothing_is_refused(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config("s3").replace({"llm_conf.lora_conf.freeze_lora": True}, "test")
    with pytest.raises(ConfigError, match="got every component frozen"):
        stages.apply(build(config).model, config)


def test_norms_are_of_each_component_and_hold_one_difference_at_a_time() -> None:
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()

    def differences() -> Iterator[tuple[str, torch.Tensor]]:
        for name, value in (("llm.a", 3.0), ("ctc.a", 2.0), ("llm.b", 4.0)):
            assert len(alive) <= 1
            difference = torch.full((1, 4), value, dtype=torch.bfloat16)
            alive.add(difference)
            yield name, difference

    assert stages.component_norms(differences()) == {"llm": 10.0, "ctc": 4.0}
    assert stages.component_norms([]) == {}
