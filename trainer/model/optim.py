"""Optimizer and learning-rate schedule of a configuration.

Unlike stock, the optimizer holds trainable parameters only, and weight decay leaves out norms and
biases (every parameter of one dimension) unless ``finetune_conf.decay_norm_and_bias`` is set.
With ``finetune_conf.fused`` all of its weights are updated in one operation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from conf.errors import ConfigError
from conf.load import Config
from trainer.funasr_parts import load

_OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def build_optimizer(model: torch.nn.Module, config: Config) -> torch.optim.Optimizer:
    """The optimizer that ``optim`` names, over the parameters that train.

    Raises:
        ConfigError: ``optim`` names none that is known here.
    """
    name = config["optim"]
    if name not in _OPTIMIZERS:
        raise ConfigError(f"optim: got {name!r}, expected one of {', '.join(_OPTIMIZERS)}")
    conf = dict(config["optim_conf"])
    weight_decay = conf.pop("weight_decay", 0.0)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    undecayed = [] if config["finetune_conf.decay_norm_and_bias"] else _one_dimensional(parameters)
    spared = {id(parameter) for parameter in undecayed}
    decayed = [parameter for parameter in parameters if id(parameter) not in spared]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": undecayed, "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer = _OPTIMIZERS[name](
        [group for group in groups if group["params"]], fused=config["finetune_conf.fused"], **conf
    )
    return optimizer


def build_scheduler(
    optimizer: torch.optim.Optimizer, config: Config
) -> torch.optim.lr_scheduler.LRScheduler:
    """FunASR's own scheduler class; stepped once per update.

    Raises:
        ConfigError: ``scheduler`` names none of FunASR's.
    """
    classes = load("funasr.schedulers").scheduler_classes
    name = config["scheduler"]
    if name not in classes:
        raise ConfigError(f"scheduler: got {name!r}, expected one of {', '.join(classes)}")
    scheduler: torch.optim.lr_scheduler.LRScheduler = classes[name](
        optimizer, **config["scheduler_conf"]
    )
    return scheduler


def _one_dimensional(parameters: Iterable[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    return [parameter for parameter in parameters if parameter.ndim <= 1]
