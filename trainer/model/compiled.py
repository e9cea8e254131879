"""Regional compilation: the layers that are there many times are compiled, one for all of a kind.

Off unless `finetune_conf.compile_layers` says so: it needs a compiler on the machine and a minute
at the start, dropout draws other numbers than without, and what it gains shows on a GPU only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from trainer.model.fused import with_forward


def compile_layers(model: Any) -> None:
    """Compile the encoder's and the LLM's layers of a FunASRNano for training, in place.

    Where nothing learns they compute as before: decoding has other shapes at each step.
    """
    encoder = model.audio_encoder
    layers = [*encoder.encoders0, *encoder.encoders, *encoder.tp_encoders, *model.llm.model.layers]
    kinds = {own: with_forward(own, _compiled_forward(own)) for own in set(map(type, layers))}
    for layer in layers:
        layer.__class__ = kinds[type(layer)]


def _compiled_forward(own: Any) -> Callable[..., Any]:
    compiled = torch.compile(own.forward, dynamic=True)

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        chosen = compiled if torch.is_grad_enabled() else own.forward
        return chosen(self, *args, **kwargs)

    return forward
