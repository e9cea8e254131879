"""Activation checkpointing: a layer's inner values are computed again instead of being kept.

FunASR's own checkpoints the whole encoder, which scales its input in place and so raises in the
backward pass; transformers' acts in train mode only, and a frozen LLM stays in eval mode although
gradients pass through it. Here it is done layer by layer, in either mode; names of weights do not
change, and random numbers are drawn again as they were (Chen et al. 2016, arXiv 1604.06174).
"""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint as checkpoint


def checkpoint_activations(model: Any, *, audio_encoder: bool, llm: bool) -> None:
    """Makes the layers of a FunASRNano keep nothing but their input for the backward pass.

    Args:
        model: FunASRNano.
        audio_encoder: The encoder's layers (``audio_encoder_conf.activation_checkpoint``).
        llm: The LLM's (``llm_conf.activation_checkpoint``).
    """
    layers: list[torch.nn.Module] = []
    if audio_encoder:
        encoder = model.audio_encoder
        layers += [*encoder.encoders0, *encoder.encoders, *encoder.tp_encoders]
    if llm:
        layers += model.llm.model.layers
    for layer in layers:
        # Bound to the layer, so that a copy of the model calls its own layers.
        layer.forward = types.MethodType(_checkpointed_forward, layer)


def _checkpointed_forward(layer: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward = functools.partial(type(layer).forward, layer)
    if not torch.is_grad_enabled() or not _needs_gradient(layer, args, kwargs):
        return forward(*args, **kwargs)
    if "past_key_values" in kwargs:
        # Computed a second time a layer would add its keys to the cache a second time.
        kwargs["past_key_values"] = None
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def _needs_gradient(layer: torch.nn.Module, args: Any, kwargs: Any) -> bool:
    """A frozen layer before all that learns keeps nothing; to keep its input would be a loss."""
    tensors = [*args, *kwargs.values(), *layer.parameters()]
    return any(torch.is_tensor(tensor) and tensor.requires_grad for tensor in tensors)
