"""Greedy decoding in batches, of both outputs: the LLM's text (what users get) and CTC's.

Stock FunASR decodes one utterance at a time while a CTC decoder is there. Here a batch is padded
on the left and the encoder's output beyond an utterance's end is zero, so the texts are those of
one-by-one decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainer.batch import Example, collate
from trainer.losses import ctc_log_probs, embed, encode, llm_autocast
from trainer.model import Nano


@dataclass(frozen=True)
class Hypothesis:
    """What the model heard in one utterance."""

    key: str
    text: str
    ctc_text: str


@torch.inference_mode()
def decode(nano: Nano, examples: Sequence[Example], max_new_tokens: int) -> list[Hypothesis]:
    """Decodes one batch; the model must be in eval mode.

    Args:
        nano: Model with its tokenizers.
        examples: Of similar length, or padding is computed for nothing.
        max_new_tokens: Where generation stops if no end of turn comes (stock: ``max_length``).
    """
    model = nano.model
    batch = collate(examples, for_decoding=True).to(nano.device)
    encoded_BTD, num_frames_B = encode(model, batch.features_BTF.clone(), batch.num_frames_B)
    ctc_texts = [
        nano.codec.ctc_text(ids)
        for ids in _ctc_greedy(model, ctc_log_probs(model, encoded_BTD, num_frames_B), num_frames_B)
    ]
    embeddings_BLD = embed(model, batch, encoded_BTD, num_frames_B)
    config = model.llm.config
    with llm_autocast(model, nano.device):
        generated_BL = model.llm.generate(
            inputs_embeds=embeddings_BLD,
            attention_mask=batch.attention_mask_BL,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=config.pad_token_id or config.eos_token_id,
        )
    texts = [nano.codec.llm_text(ids) for ids in generated_BL.tolist()]
    return [
        Hypothesis(example.key, text, ctc_text)
        for example, text, ctc_text in zip(examples, texts, ctc_texts, strict=True)
    ]


def _ctc_greedy(
    model: Any, log_probs_BTV: torch.Tensor, num_frames_B: torch.Tensor
) -> list[list[int]]:
    """Best label per frame, repetitions collapsed, blanks dropped."""
    best_BT = log_probs_BTV.argmax(dim=-1).cpu()
    sequences = []
    for best_T, num_frames in zip(best_BT, num_frames_B.tolist(), strict=True):
        collapsed = torch.unique_consecutive(best_T[:num_frames])
        sequences.append(collapsed[collapsed != model.blank_id].tolist())
    return sequences
