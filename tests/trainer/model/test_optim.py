"""What the optimizer holds, and the rate that the schedule gives it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from conf.load import Config, load_config, stage_config_path
from trainer.model import stages
from trainer.model.build import build
from trainer.model.optim import build_optimizer, build_scheduler


def test_norms_and_biases_do_not_decay(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config("8k")
    model = build(config).model
    stages.apply(model, config)
    decayed, spared = build_optimizer(model, config).param_groups
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert all(parameter.ndim <= 1 for parameter in spared["params"])
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.01, 0.0)
    stocks_way = config.replace({"finetune_conf.decay_norm_and_bias": True}, "test")
    assert len(build_optimizer(model, stocks_way).param_groups) == 1


@pytest.mark.quick
@pytest.mark.parametrize("optim", ["adam", "adamw"])
def test_one_operation_for_all_weights_updates_them_alike(optim: str) -> None:
    settings = {"optim": optim, "optim_conf.lr": 1e-3, "optim_conf.weight_decay": 0.01}
    plain = load_config(
        stage_config_path("8k"), layers=[("test", {**settings, "finetune_conf.fused": False})]
    )
    models = []
    for config in (plain, plain.replace({"finetune_conf.fused": True}, "test")):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.LayerNorm(30))
        optimizer = build_optimizer(model, config)
        assert optimizer.param_groups[0]["fused"] == config["finetune_conf.fused"]
        for _ in range(20):
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
        models.append(model)
    for ours, theirs in zip(*(model.parameters() for model in models), strict=True):
        # 20 updates of 1e-3, each rounded once and not after every operation.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.quick
def test_what_is_frozen_is_not_held() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 4))
    model[0].requires_grad_(False)
    groups = build_optimizer(model, load_config(stage_config_path("8k"))).param_groups
    held = [parameter for group in groups for parameter in group["params"]]
    assert {id(parameter) for parameter in held} == {id(p) for p in model[1].parameters()}


@pytest.mark.quick
def test_the_schedule_warms_up_to_the_rate_once_per_update() -> None:
    settings = {"optim_conf.lr": 1e-3, "scheduler_conf.warmup_steps": 4}
    config = load_config(stage_config_path("8k"), layers=[("test", settings)])
    optimizer = build_optimizer(torch.nn.Linear(2, 3), config)
    scheduler = build_scheduler(optimizer, config)
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:4] == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3])
    assert rates[4] < 1e-3
