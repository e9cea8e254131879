"""Utterances to batches: which go together, and how they are padded.

Shape suffixes: B utterances, T feature frames (60 ms after stacking), F feature values,
L positions of the LLM's input, U CTC labels.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from trainer.features import FeatureExtractor
from trainer.manifest import Audio, Utterance
from trainer.text import TextCodec

IGNORED_LABEL = -100


@dataclass(frozen=True)
class Example:
    """One utterance, ready to be padded."""

    key: str
    features_TF: torch.Tensor
    prompt: tuple[list[int], list[int]]
    target: list[int]
    ctc_labels: list[int]

    @property
    def num_audio_tokens(self) -> int:
        return num_audio_tokens(self.features_TF.shape[0])


@dataclass(frozen=True)
class Batch:
    """Padded tensors of some utterances.

    Attributes:
        features_BTF: Zero beyond each utterance's ``num_frames_B``.
        input_ids_BL: Prompt, zeros where audio goes, prompt, then the target if training.
        attention_mask_BL: 1 where ``input_ids_BL`` is meant.
        audio_mask_BL: True where the adaptor's output goes.
        labels_BL: The target's ids, -100 elsewhere.
        ctc_labels_BU: CTC labels, 0 beyond ``num_ctc_labels_B``.
    """

    keys: tuple[str, ...]
    features_BTF: torch.Tensor
    num_frames_B: torch.Tensor
    num_audio_tokens_B: torch.Tensor
    input_ids_BL: torch.Tensor
    attention_mask_BL: torch.Tensor
    audio_mask_BL: torch.Tensor
    labels_BL: torch.Tensor
    ctc_labels_BU: torch.Tensor
    num_ctc_labels_B: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        tensors: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if torch.is_tensor(value)
        }
        return replace(self, **tensors)


@dataclass(frozen=True)
class LeftOut:
    """An utterance that training does not use, and why."""

    utterance: Utterance
    reason: str


def num_audio_tokens(num_frames: int) -> int:
    """LLM positions that ``num_frames`` encoder frames take: FunASR halves them three times."""
    halved = 1 + (num_frames - 1) // 2
    halved = 1 + (halved - 1) // 2
    return (halved - 1) // 2 + 1


def make_example(utterance: Utterance, extractor: FeatureExtractor, codec: TextCodec) -> Example:
    return Example(
        key=utterance.key,
        features_TF=extractor(utterance),
        prompt=(codec.before_audio, codec.after_audio),
        target=codec.target_ids(utterance.target),
        ctc_labels=codec.ctc_ids(utterance.target),
    )


def collate(examples: Sequence[Example], *, for_decoding: bool = False) -> Batch:
    """Pads examples into one batch.

    Args:
        examples: At least one.
        for_decoding: Leave out the targets and pad on the left, so that generation of every
            utterance starts at the last position.
    """
    ids, audio, labels = [], [], []
    for example in examples:
        before, after = example.prompt
        target = [] if for_decoding else example.target
        num_audio = example.num_audio_tokens
        ids.append(torch.tensor(before + [0] * num_audio + after + target))
        mask = torch.zeros(len(ids[-1]), dtype=torch.bool)
        mask[len(before) : len(before) + num_audio] = True
        audio.append(mask)
        labels.append(torch.tensor([IGNORED_LABEL] * (len(ids[-1]) - len(target)) + target))
    side = "left" if for_decoding else "right"

    def pad(rows: list[torch.Tensor], value: float) -> torch.Tensor:
        return pad_sequence(rows, batch_first=True, padding_value=value, padding_side=side)

    return Batch(
        keys=tuple(example.key for example in examples),
        features_BTF=pad_sequence([example.features_TF for example in examples], batch_first=True),
        num_frames_B=torch.tensor([example.features_TF.shape[0] for example in examples]),
        num_audio_tokens_B=torch.tensor([example.num_audio_tokens for example in examples]),
        input_ids_BL=pad(ids, 0),
        attention_mask_BL=pad([torch.ones_like(row) for row in ids], 0),
        audio_mask_BL=pad(audio, 0),
        labels_BL=pad(labels, IGNORED_LABEL),
        ctc_labels_BU=pad_sequence(
            [torch.tensor(example.ctc_labels, dtype=torch.long) for example in examples],
            batch_first=True,
        ),
        num_ctc_labels_B=torch.tensor([len(example.ctc_labels) for example in examples]),
    )


class BatchSampler:
    """Groups utterances of similar length; the same seed and epoch give the same batches.

    As in FunASR an utterance's length is its 10 ms frames plus its text tokens, utterances are
    shuffled, sorted by length within windows of ``sort_size``, and cut into batches of
    ``batch_size`` utterances (``batch_type: example``) or of at most ``batch_size`` padded length
    units (``token``, ``length``). Utterances outside the configured lengths are left out and kept
    in ``left_out``; nothing else is dropped.

    Args:
        utterances: The training set.
        audios: Their headers, in the same order.
        text_lengths: LLM tokens of their transcripts, in the same order.
        conf: ``dataset_conf``.
        seed: Of the shuffle.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        audios: Sequence[Audio],
        text_lengths: Sequence[int],
        conf: Mapping[str, Any],
        seed: int,
    ) -> None:
        self._conf = conf
        self._seed = seed
        self.left_out: list[LeftOut] = []
        self._lengths: dict[int, int] = {}
        for index, (utterance, audio, text) in enumerate(
            zip(utterances, audios, text_lengths, strict=True)
        ):
            if reason := _reason_to_leave_out(audio.num_frames, text, conf):
                self.left_out.append(LeftOut(utterance, reason))
            else:
                self._lengths[index] = audio.num_frames + text

    def __len__(self) -> int:
        """Utterances in an epoch."""
        return len(self._lengths)

    def epoch(self, number: int) -> list[list[int]]:
        """Batches of indices into ``utterances`` for one epoch."""
        generator = random.Random(f"{self._seed}:{number}")
        order = list(self._lengths)
        if not self._conf["shuffle"]:
            return list(self._cut(order))
        generator.shuffle(order)
        batches: list[list[int]] = []
        window = max(1, int(self._conf["sort_size"]))
        for start in range(0, len(order), window):
            near = sorted(order[start : start + window], key=lambda index: self._lengths[index])
            batches += self._cut(near)
        generator.shuffle(batches)
        return batches

    def _cut(self, order: Sequence[int]) -> list[list[int]]:
        batches: list[list[int]] = []
        current: list[int] = []
        for index in order:
            if current and self._is_full([*current, index]):
                batches.append(current)
                current = []
            current.append(index)
        return [*batches, current] if current else batches

    def _is_full(self, indices: Sequence[int]) -> bool:
        limit: int = self._conf["batch_size"]
        if self._conf["batch_type"] == "example":
            return len(indices) > limit
        return max(self._lengths[index] for index in indices) * len(indices) > limit


def _reason_to_leave_out(num_frames: int, text_length: int, conf: Mapping[str, Any]) -> str | None:
    if num_frames < conf["min_source_length"]:
        return f"audio shorter than dataset_conf.min_source_length {conf['min_source_length']}"
    if num_frames > conf["max_source_length"]:
        return f"audio longer than dataset_conf.max_source_length {conf['max_source_length']}"
    if text_length < 1:
        return "empty transcript"
    if text_length > conf["max_target_length"]:
        return f"text longer than dataset_conf.max_target_length {conf['max_target_length']}"
    if text_length + num_frames // 48 > conf["max_token_length"]:
        return f"prompt longer than dataset_conf.max_token_length {conf['max_token_length']}"
    return None
