"""Greedy decoding in batches, of both outputs: the LLM's text (what users get) and CTC's.

Stock FunASR decodes one utterance at a time while a CTC decoder is there, through HF's
``generate``. Here a batch is padded on the left and the encoder's output beyond an utterance's end
is zero, so the texts are those of one-by-one decoding; and a loop of our own writes the very ids
that ``generate(do_sample=False)`` writes, in less time:

- the prompt before the audio is the same for all, so its keys and values are computed once;
- only the last position is projected to the vocabulary;
- a finished utterance leaves the batch, so one that rambles to the cap does not keep the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from transformers.cache_utils import DynamicCache

from trainer.data.batch import Batch, Example, collate
from trainer.model.build import Nano
from trainer.model.losses import ctc_best, embed, encode, llm_autocast

_ENCODED_ROWS_ON_CPU = 16
"""Utterances that go through encoder and CTC at once there: more of them no longer fit into the
processor's cache and cost up to half as much again each, while the LLM gains by every further row.
"""


@dataclass(frozen=True)
class Hypothesis:
    """What the model heard in one utterance.

    Attributes:
        capped: The LLM was stopped at the cap, before it ended its turn.
    """

    key: str
    text: str
    ctc_text: str
    capped: bool = False


@torch.inference_mode()
def decode(nano: Nano, examples: Sequence[Example], max_new_tokens: int) -> list[Hypothesis]:
    """Decodes one batch; the model must be in eval mode.

    Args:
        nano: Model with its tokenizers.
        examples: Of level ``features`` or ``encoded``; of similar length, or padding is computed
            for nothing.
        max_new_tokens: Where generation stops if no end of turn comes (stock: ``max_length``).
    """
    model = nano.model
    ctc_texts: list[str] = []
    embeddings, masks = [], []
    for part in parts(nano, encode_examples(nano, examples)):
        batch = _after_prefix(part).to(nano.device)
        encoded_BTD, num_frames_B = batch.features_BTF, batch.num_frames_B
        best_BT = ctc_best(model, encoded_BTD, num_frames_B)
        ctc_texts += map(nano.codec.ctc_text, _collapsed(best_BT, num_frames_B, model.blank_id))
        embeddings.append(embed(model, batch, encoded_BTD, num_frames_B))
        masks.append(batch.attention_mask_BL)
    length = max(mask_BL.shape[1] for mask_BL in masks)
    before_audio, _ = examples[0].prompt
    with llm_autocast(model, nano.device):
        generated = greedy(
            model.llm,
            before_audio,
            torch.cat([F.pad(e_BLD, (0, 0, length - e_BLD.shape[1], 0)) for e_BLD in embeddings]),
            torch.cat([F.pad(mask_BL, (length - mask_BL.shape[1], 0)) for mask_BL in masks]),
            max_new_tokens,
        )
    return [
        Hypothesis(example.key, nano.codec.llm_text(ids), ctc_text, capped)
        for example, (ids, capped), ctc_text in zip(examples, generated, ctc_texts, strict=True)
    ]


@torch.inference_mode()
def encode_examples(nano: Nano, examples: Sequence[Example]) -> list[Example]:
    """The same utterances behind the encoder; those that are there already stay as they are."""
    encoded: list[Example] = []
    for part in parts(nano, examples):
        if part[0].level == "encoded":
            encoded += part
            continue
        batch = collate(part).to(nano.device)
        # The encoder writes into its input, which may be a kept feature's own memory.
        output_BTD, lengths_B = encode(nano.model, batch.features_BTF.clone(), batch.num_frames_B)
        encoded += [
            replace(example, features_TF=output_TD[:length], level="encoded")
            for example, output_TD, length in zip(part, output_BTD, lengths_B.tolist(), strict=True)
        ]
    return encoded


def parts(nano: Nano, examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    """A batch in parts that are computed fastest without a loop behind them: on a GPU, whole."""
    rows = rows_encoded(nano.device.type, len(examples))
    for start in range(0, len(examples), rows):
        yield examples[start : start + rows]


def rows_encoded(device: str, batch_size: int) -> int:
    """How many utterances of a batch go through encoder and CTC at once."""
    return min(batch_size, _ENCODED_ROWS_ON_CPU) if device == "cpu" else batch_size


def _after_prefix(examples: Sequence[Example]) -> Batch:
    """A batch that starts with the audio: the prompt before it comes from the cache."""
    bare = [replace(example, prompt=([], example.prompt[1])) for example in examples]
    return collate(bare, for_decoding=True)


@torch.inference_mode()
def greedy(
    llm: Any,
    prefix: Sequence[int],
    embeddings_BLD: torch.Tensor,
    attention_mask_BL: torch.Tensor,
    max_new_tokens: int,
) -> list[tuple[list[int], bool]]:
    """What ``llm.generate(do_sample=False)`` writes after a shared prefix and each row's own input.

    Of the LLM's generation settings only the end-of-turn ids count: FunASR builds the LLM from its
    config.json, which holds no others.

    Args:
        llm: A causal language model of transformers.
        prefix: Token ids before every row; may be empty.
        embeddings_BLD: The rows' own input, padded on the left.
        attention_mask_BL: 1 where it is meant.
        max_new_tokens: The most ids a row may get.

    Returns:
        Each row's ids without the one that ends the turn, and whether the cap cut it short.
    """
    num_rows, length = attention_mask_BL.shape
    device = embeddings_BLD.device
    end = llm.generation_config.eos_token_id
    ends = {end} if isinstance(end, int) else set(end or ())
    cache = DynamicCache(config=llm.config)
    mask_BL = attention_mask_BL
    if prefix:
        prefix_1P = torch.tensor([prefix], device=device)
        llm.model(input_ids=prefix_1P, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(num_rows)
        mask_BL = torch.cat([mask_BL.new_ones(num_rows, len(prefix)), mask_BL], dim=1)
    # Padding stands between prefix and input, so positions count what is meant, as in `generate`.
    positions_BL = (mask_BL.cumsum(1) - 1).clamp(min=0)
    hidden_BLD = llm.model(
        inputs_embeds=embeddings_BLD,
        attention_mask=mask_BL,
        position_ids=positions_BL[:, -length:],
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    position_B = positions_BL[:, -1]
    ids: list[list[int]] = [[] for _ in range(num_rows)]
    rows = list(range(num_rows))  # still writing, in the batch's order
    for count in range(1, max_new_tokens + 1):
        next_B = llm.lm_head(hidden_BLD[:, -1]).argmax(dim=-1)
        tokens: list[int] = next_B.tolist()  # the one wait for the device in each step
        ended = [token in ends for token in tokens]
        for row, token in zip(rows, tokens, strict=True):
            if token not in ends:
                ids[row].append(token)
        if any(ended):
            rows = [row for row, over in zip(rows, ended, strict=True) if not over]
            if not rows:
                break
            kept = torch.tensor([n for n, over in enumerate(ended) if not over], device=device)
            cache.batch_select_indices(kept)
            next_B, mask_BL, position_B = next_B[kept], mask_BL[kept], position_B[kept]
        if count == max_new_tokens:
            break
        mask_BL = torch.cat([mask_BL, mask_BL.new_ones(len(rows), 1)], dim=1)
        position_B = position_B + 1
        hidden_BLD = llm.model(
            input_ids=next_B[:, None],
            attention_mask=mask_BL,
            position_ids=position_B[:, None],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
    capped = set(rows)
    return [(row_ids, row in capped) for row, row_ids in enumerate(ids)]


def _collapsed(best_BT: torch.Tensor, num_frames_B: torch.Tensor, blank_id: int) -> list[list[int]]:
    """Best label per frame, repetitions collapsed, blanks dropped."""
    sequences = []
    for best_T, num_frames in zip(best_BT.cpu(), num_frames_B.tolist(), strict=True):
        collapsed = torch.unique_consecutive(best_T[:num_frames])
        sequences.append(collapsed[collapsed != blank_id].tolist())
    return sequences
