"""What the optimizer holds, and the names that it is chosen by."""

from collections.abc import Callable

from conf.load import Config
from trainer.model import stages
from trainer.model.build import build
from trainer.model.optim import build_optimizer


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
