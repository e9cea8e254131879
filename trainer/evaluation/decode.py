"""Greedy decoding of both outputs: the LLM's text (what users get) and CTC's.

Stock FunASR decodes one utterance at a time while a CTC decoder is there. Here many are decoded at
once, and where one ends the next one begins (`trainer.evaluation.greedy`), so a text that rambles
to the cap does not keep the others. The encoder's output beyond an utterance's end is zero, so the
texts are those of one-by-one decoding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from trainer.data.batch import Batch, Example, collate, rows_at_once
from trainer.evaluation.greedy import Writer
from trainer.model.build import Nano
from trainer.model.encoded import encode_examples, parts
from trainer.model.losses import ctc_best, embed, llm_autocast

REFILLED_SHARE = 0.25
"""Of the rows that must be free before texts begin in them: the beginning of one takes as long as
that of many, while a row that waits costs next to nothing."""


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


@dataclass(frozen=True)
class _Heard:
    """An utterance before the LLM writes its text; ``prompt_LD`` is the LLM's input."""

    key: str
    ctc_text: str
    num_frames: int
    prompt_LD: torch.Tensor


@torch.inference_mode()
def decode(
    nano: Nano, batches: Iterable[Sequence[Example]], max_new_tokens: int, batch_size: int
) -> Iterator[Hypothesis]:
    """Decodes utterances and gives each when its text ends; the model must be in eval mode.

    Args:
        nano: Model with its tokenizers.
        batches: Of level ``features`` or ``encoded``, each of similar lengths. The next one is
            asked for when all utterances of those before have a row.
        max_new_tokens: Where generation stops if no end of turn comes (stock: ``max_length``).
        batch_size: Texts written at once, fewer where recordings are long (`rows_at_once`).
    """
    coming = iter(batches)
    waiting = deque(_heard(nano, first := next(coming, ())))
    if not first:
        return
    before_audio, _ = first[0].prompt
    with llm_autocast(nano.model, nano.device):
        writer: Writer[_Heard] = Writer(nano.model.llm, before_audio, max_new_tokens)
    while waiting or writer.rows:
        free = _free_rows(writer, waiting, batch_size)
        while free == len(waiting) and (batch := next(coming, None)):
            waiting += _heard(nano, batch)
            free = _free_rows(writer, waiting, batch_size)
        with llm_autocast(nano.model, nano.device):
            at_once = free + len(writer.rows)
            if free == len(waiting) > 0 or free >= REFILLED_SHARE * at_once:
                begun = [waiting.popleft() for _ in range(free)]
                writer.add([(heard, heard.prompt_LD) for heard in begun])
            ended = writer.step()
        for row in ended:
            text = nano.codec.llm_text(row.ids)
            yield Hypothesis(row.name.key, text, row.name.ctc_text, row.capped)


def _free_rows(writer: Writer[_Heard], waiting: Iterable[_Heard], batch_size: int) -> int:
    """How many of those that wait can be written beside those that are."""
    longest = max((row.name.num_frames for row in writer.rows), default=0)
    free = 0
    for heard in waiting:
        longest = max(longest, heard.num_frames)
        if len(writer.rows) + free >= rows_at_once(longest, batch_size):
            break
        free += 1
    return free


def _heard(nano: Nano, examples: Sequence[Example]) -> Iterator[_Heard]:
    """A batch through encoder, CTC and adaptor."""
    model = nano.model
    for part in parts(nano, encode_examples(nano, examples)):
        batch = _after_prefix(part).to(nano.device)
        encoded_BTD, num_frames_B = batch.features_BTF, batch.num_frames_B
        best_BT = ctc_best(model, encoded_BTD, num_frames_B)
        labels = _collapsed(best_BT, num_frames_B, model.blank_id)
        prompts_BLD = embed(model, batch, encoded_BTD, num_frames_B)
        for example, ids, prompt_LD in zip(part, labels, prompts_BLD, strict=True):
            length = example.num_audio_tokens + len(example.prompt[1])
            frames = len(example.features_TF)
            yield _Heard(example.key, nano.codec.ctc_text(ids), frames, prompt_LD[-length:])


def _after_prefix(examples: Sequence[Example]) -> Batch:
    """A batch that starts with the audio: the prompt before it comes from the cache."""
    bare = [replace(example, prompt=([], example.prompt[1])) for example in examples]
    return collate(bare, for_decoding=True)


def _collapsed(best_BT: torch.Tensor, num_frames_B: torch.Tensor, blank_id: int) -> list[list[int]]:
    """Best label per frame, repetitions collapsed, blanks dropped."""
    sequences = []
    for best_T, num_frames in zip(best_BT.cpu(), num_frames_B.tolist(), strict=True):
        collapsed = torch.unique_consecutive(best_T[:num_frames])
        sequences.append(collapsed[collapsed != blank_id].tolist())
    return sequences
