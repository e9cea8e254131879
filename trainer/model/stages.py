"""Which parameters a stage trains: decided by the ``freeze`` keys, held here.

Stock FunASR freezes in the constructor only: its trainer switches the dropout of frozen parts on
again, puts frozen parameters into the optimizer, and never freezes the CTC output layer. Here a
frozen part stays in eval mode and outside the optimizer, and ``ctc`` goes with its decoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from conf.errors import ConfigError
from conf.load import Config

_FREEZE_KEYS = {
    "audio_encoder": "audio_encoder_conf.freeze",
    "audio_adaptor": "audio_adaptor_conf.freeze",
    "llm": "llm_conf.freeze",
    "ctc_decoder": "ctc_decoder_conf.freeze",
    "ctc": "ctc_decoder_conf.freeze",
}


def apply(model: torch.nn.Module, config: Config) -> dict[str, int]:
    """Sets ``requires_grad`` everywhere. With LoRA the LLM's own weights stay frozen.

    Returns:
        Trainable parameters per component.

    Raises:
        ConfigError: Nothing is left to train.
    """
    for component, key in _FREEZE_KEYS.items():
        getattr(model, component).requires_grad_(not config[key])
    if config["llm_conf.use_lora"]:
        trains = not config["llm_conf.lora_conf.freeze_lora"]
        for name, parameter in model.get_submodule("llm").named_parameters():
            parameter.requires_grad = trains and ".lora_" in name
    counts = {
        component: sum(
            parameter.numel()
            for parameter in getattr(model, component).parameters()
            if parameter.requires_grad
        )
        for component in _FREEZE_KEYS
    }
    if not any(counts.values()):
        raise ConfigError("freeze: got every component frozen, expected one that trains")
    return counts


def learning_components(model: torch.nn.Module) -> frozenset[str]:
    """The components with a parameter that trains."""
    return frozenset(
        component
        for component in _FREEZE_KEYS
        if any(parameter.requires_grad for parameter in getattr(model, component).parameters())
    )


def set_training_mode(model: torch.nn.Module, *, frozen_dropout: bool = False) -> None:
    """Train mode for the components that learn, eval mode for the others.

    Args:
        model: FunASRNano in its stage.
        frozen_dropout: Train mode for the frozen ones too, as stock's trainer sets it.
    """
    if frozen_dropout:
        model.train()
        return
    model.eval()
    for component in learning_components(model):
        module = getattr(model, component)
        if component == "llm" and _has_lora(module):
            for part in module.modules():
                if hasattr(part, "lora_A"):
                    part.train()
        else:
            module.train()


def trainable_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights that this stage changes, by name, detached copies on the CPU."""
    return {
        name: parameter.detach().cpu().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def load_trainable_state(model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Puts weights of :func:`trainable_state` back, in place."""
    own: dict[str, Any] = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)


def component_norms(weights: Iterable[tuple[str, torch.Tensor]]) -> dict[str, float]:
    """L2 norm of each component's part of some weights, taken where they lie and fetched at once.

    Args:
        weights: Names and values; those that are made on the way are held one at a time.
    """
    norms: dict[str, list[torch.Tensor]] = {}
    for name, value in weights:
        norm = torch.linalg.vector_norm(value, dtype=torch.float64)
        norms.setdefault(name.partition(".")[0], []).append(norm)
    if not norms:
        return {}
    found = torch.stack([torch.linalg.vector_norm(torch.stack(part)) for part in norms.values()])
    return dict(zip(norms, found.tolist(), strict=True))


def _has_lora(module: torch.nn.Module) -> bool:
    return any(".lora_" in name for name, _ in module.named_parameters())
