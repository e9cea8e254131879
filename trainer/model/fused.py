"""Layers of FunASR and transformers in fewer operations, with their weights and their results.

A training step of the released model is bound by the start of its kernels, not by arithmetic, and
three quarters of them come from layers that are there seventy times. What is done here otherwise
than in the classes' own `forward`: attention in one operation, its mask made once for all layers;
no multiplication by one; the positions' encoding kept; no question to the device about lengths.
Random numbers are drawn in the same order and shapes, so that dropout on a CPU is theirs too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from trainer.funasr_parts import load


class Padding(NamedTuple):
    """Which frames of a padded batch are meant.

    Attributes:
        kept_BT1: 1 where a frame is meant, else 0.
        bias_B11T: What attention adds to its scores: 0 there, else minus infinity.
    """

    kept_BT1: torch.Tensor
    bias_B11T: torch.Tensor


def fuse(model: Any) -> None:
    """Give a built FunASRNano's layers a `forward` of fewer operations, in place."""
    model.fused = True
    forwards = _forwards()
    for module in model.modules():
        own: Any = type(module)
        if forward := forwards.get(own):
            module.__class__ = with_forward(own, forward)


@functools.cache
def with_forward(own: Any, forward: Callable[..., Any]) -> Any:
    """A class of modules that differs in its `forward`."""
    return type(own.__name__, (own,), {"forward": forward})


def is_fused(model: Any) -> bool:
    """Whether a model may compute otherwise than its classes do, with the same results."""
    return getattr(model, "fused", False)


def padding(lengths_B: torch.Tensor, num_frames: int) -> Padding:
    """Masks of a batch of so many frames."""
    frame_T = torch.arange(num_frames, device=lengths_B.device)
    kept_BT = frame_T < lengths_B[:, None]
    zero = torch.zeros((), device=lengths_B.device)
    return Padding(
        kept_BT[:, :, None].float(), torch.where(kept_BT, zero, -torch.inf)[:, None, None]
    )


def _forwards() -> dict[type, Callable[..., Any]]:
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

    sense_voice = load("funasr.models.sense_voice.model")
    return {
        sense_voice.SenseVoiceEncoderSmall: _encoder,
        sense_voice.EncoderLayerSANM: _encoder_layer,
        sense_voice.MultiHeadedAttentionSANM: _encoder_attention,
        load("funasr.models.llm_asr.adaptor").Transformer: _adaptor,
        load("funasr.models.transformer.encoder").EncoderLayer: _adaptor_layer,
        load("funasr.models.transformer.attention").MultiHeadedAttention: _adaptor_attention,
        Qwen3RMSNorm: _rms_norm,
    }


# The encoder


def _encoder(
    self: Any, xs_pad: torch.Tensor, ilens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    x_BTD = torch.add(_positions(self, xs_pad), xs_pad, alpha=self.output_size() ** 0.5)
    masks = padding(ilens, xs_pad.shape[1])
    for layer in (*self.encoders0, *self.encoders):
        x_BTD = layer(x_BTD, masks)[0]
    x_BTD = self.after_norm(x_BTD)
    for layer in self.tp_encoders:
        x_BTD = layer(x_BTD, masks)[0]
    return self.tp_norm(x_BTD), ilens.int()


def _positions(encoder: Any, x_BTF: torch.Tensor) -> torch.Tensor:
    """What `SinusoidalPositionEncoder` adds; to make it, FunASR copies to the device each time."""
    _, num_frames, width = x_BTF.shape
    kept = getattr(encoder, "kept_positions", None)
    if kept is None or kept.shape[1] < num_frames or kept.device != x_BTF.device:
        with torch.inference_mode(False), torch.no_grad():
            position_1T = torch.arange(1, num_frames + 1, device=x_BTF.device)[None]
            kept = encoder.embed.encode(position_1T, width, x_BTF.dtype)
        encoder.kept_positions = kept
    positions_1TF: torch.Tensor = kept[:, :num_frames]
    return positions_1TF


def _encoder_layer(
    self: Any, x: torch.Tensor, mask: Padding, *_: Any
) -> tuple[torch.Tensor, Padding]:
    attended = self.dropout(self.self_attn(self.norm1(x), mask))
    x = x + attended if self.in_size == self.size else attended
    return x + self.dropout(self.feed_forward(self.norm2(x))), mask


def _encoder_attention(self: Any, x: torch.Tensor, mask: Padding) -> torch.Tensor:
    query, key, value = self.linear_q_k_v(x).split(self.h * self.d_k, dim=-1)
    kept = value * mask.kept_BT1
    memory = self.fsmn_block(self.pad_fn(kept.transpose(1, 2))).transpose(1, 2) + kept
    memory = self.dropout(memory)
    attended = self.linear_out(_attended(self, query, key, value, mask.bias_B11T))
    return torch.addcmul(attended, memory, mask.kept_BT1)


def _attended(
    module: Any,
    query_BTD: torch.Tensor,
    key_BTD: torch.Tensor,
    value_BTD: torch.Tensor,
    bias_B11T: torch.Tensor,
) -> torch.Tensor:
    """Attention of a module of `h` heads of `d_k` values."""
    size = (*query_BTD.shape[:-1], module.h, module.d_k)
    attended_BHTK = F.scaled_dot_product_attention(
        query_BTD.view(size).transpose(1, 2),
        key_BTD.view(size).transpose(1, 2),
        value_BTD.view(size).transpose(1, 2),
        attn_mask=bias_B11T,
        dropout_p=module.dropout.p if module.training else 0.0,
    )
    return attended_BHTK.transpose(1, 2).flatten(-2)


# Adaptor and CTC decoder


def _adaptor(self: Any, x: torch.Tensor, ilens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    utterances, num_frames, width = x.shape
    chunks = (num_frames - 1) // self.k + 1
    x = F.pad(x, (0, 0, 0, chunks * self.k - num_frames)) if num_frames % self.k else x
    x = self.linear2(self.relu(self.linear1(x.reshape(utterances, chunks, self.k * width))))
    olens = (ilens - 1) // self.k + 1
    masks = padding(olens, chunks)
    for block in self.blocks or ():
        x, masks = block(x, masks)
    return x, olens


def _adaptor_layer(self: Any, x: torch.Tensor, mask: Padding) -> tuple[torch.Tensor, Padding]:
    normed = self.norm1(x)
    x = x + self.dropout(self.self_attn(normed, normed, normed, mask))
    return x + self.dropout(self.feed_forward(self.norm2(x))), mask


def _adaptor_attention(
    self: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Padding
) -> torch.Tensor:
    attended: torch.Tensor = self.linear_out(
        _attended(
            self,
            self.linear_q(query),
            self.linear_k(key),
            self.linear_v(value),
            mask.bias_B11T,
        )
    )
    return attended


# The LLM


def _rms_norm(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    # In bf16 it is rounded once and not twice: what is decoded stays what stock decodes.
    if torch.is_grad_enabled() and hidden_states.dtype == self.weight.dtype:
        return F.rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)
    normed: torch.Tensor = super(type(self), self).forward(hidden_states)
    return normed
