"""Utterances to batches: which go together, and how they are padded.

Shape suffixes: B utterances, T feature frames (60 ms after stacking), F feature values,
L positions of the LLM's input, U CTC labels.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

import numpy
import torch
from torch.nn.utils.rnn import pad_sequence

from trainer.data.manifest import Audio, Audios, Ints, Utterance
from trainer.data.text import TextCodec

IGNORED_LABEL = -100
TYPICAL_FRAMES = 128
"""Stacked frames of a recording, 7.7 s, of which evaluation takes `eval_batch_size` at once."""
WINDOW_BATCHES = 8
"""Batches of utterances whose features are in memory at once where nothing learns; within them
utterances are sorted by length."""

Level = Literal["features", "encoded", "adapted"]
"""How far the audio has come: fbank features, the encoder's output, or the adaptor's."""


@dataclass(frozen=True)
class Example:
    """One utterance, ready to be padded; ``features_TF`` are of its level."""

    key: str
    features_TF: torch.Tensor
    prompt: tuple[list[int], list[int]]
    target: list[int]
    ctc_labels: list[int]
    level: Level = "features"

    @property
    def num_audio_tokens(self) -> int:
        if self.level == "adapted":
            return self.features_TF.shape[0]
        return num_audio_tokens(self.features_TF.shape[0])


@dataclass(frozen=True)
class Batch:
    """Padded tensors of some utterances.

    Attributes:
        features_BTF: Of the batch's level; zero beyond each utterance's ``num_frames_B``.
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
    num_target_tokens: int
    level: Level = "features"

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


def make_example(
    utterance: Utterance, extractor: Callable[[Utterance], torch.Tensor], codec: TextCodec
) -> Example:
    return Example(
        key=utterance.key,
        features_TF=extractor(utterance),
        prompt=(codec.before_audio, codec.after_audio),
        target=codec.target_ids(utterance.target),
        ctc_labels=codec.ctc_ids(utterance.target),
    )


def text_lengths(utterances: Sequence[Utterance], codec: TextCodec) -> Ints:
    """LLM tokens of each transcript, without the end of the turn."""
    lengths = (len(codec.target_ids(utterance.target)) - 1 for utterance in utterances)
    return numpy.fromiter(lengths, dtype=numpy.int64, count=len(utterances))


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
        num_target_tokens=0 if for_decoding else sum(len(example.target) for example in examples),
        level=examples[0].level,
    )


def decoded_together(num_frames: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Indices of utterances in batches for evaluation, the longest first.

    Args:
        num_frames: Stacked frames of each utterance.
        batch_size: Utterances at once (`finetune_conf.eval_batch_size`); of those above
            `TYPICAL_FRAMES` fewer, as many frames in all.

    Example:
        >>> list(decoded_together([256, 100, 300, 100], 2))
        [[2], [0], [1, 3]]
    """
    order = sorted(range(len(num_frames)), key=num_frames.__getitem__, reverse=True)
    while order:
        rows = rows_at_once(num_frames[order[0]], batch_size)
        yield order[:rows]
        order = order[rows:]


def rows_at_once(longest: int, batch_size: int) -> int:
    """How many utterances are evaluated at once beside one of so many stacked frames."""
    return max(1, batch_size * TYPICAL_FRAMES // max(longest, TYPICAL_FRAMES))


class BatchSampler:
    """Groups utterances of similar length; the same seed and epoch give the same batches.

    As in FunASR an utterance's length is its 10 ms frames plus its text tokens, utterances are
    shuffled, sorted by length within windows of ``sort_size``, and cut into batches of
    ``batch_size`` utterances (``batch_type: example``) or of at most ``batch_size`` padded length
    units (``token``). The latter also hold at most ``batch_size_sample_max`` utterances and
    ``batch_size_token_max`` positions of the LLM's input, padding included; where stock drops the
    last utterances of a batch with more, it is cut here. A single utterance above these makes a
    batch of its own. ``drop_last`` and ``length_scale_source`` change nothing here.

    Utterances outside the configured lengths are left out and kept in ``left_out``, as those whose
    header shows a problem; nothing else is dropped.

    Args:
        utterances: The training set.
        audios: Their headers, in the same order.
        text_lengths: LLM tokens of their transcripts, in the same order.
        conf: ``dataset_conf``.
        seed: Of the shuffle.
        prompt_length: LLM tokens around the audio, for ``batch_size_token_max``.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        audios: Sequence[Audio],
        text_lengths: Sequence[int] | Ints,
        conf: Mapping[str, Any],
        seed: int,
        prompt_length: int = 0,
    ) -> None:
        self._conf = conf
        self._seed = seed
        num_frames, problems = _frames(audios)
        text = numpy.asarray(text_lengths, dtype=numpy.int64)
        if not len(utterances) == len(num_frames) == len(text):
            raise ValueError(f"got {len(utterances)=}, {len(num_frames)=}, {len(text)=}")
        self._lengths = num_frames + text
        self._positions = prompt_length + text + _audio_positions(num_frames)
        self.left_out = LeftOuts(
            utterances, _reasons_to_leave_out(num_frames, text, problems, conf)
        )
        used = numpy.ones(len(utterances), dtype=bool)
        used[self.left_out.indices] = False
        self._used = numpy.flatnonzero(used)

    def __len__(self) -> int:
        """Utterances in an epoch."""
        return len(self._used)

    def epoch(self, number: int) -> list[list[int]]:
        """Batches of indices into ``utterances`` for one epoch."""
        if not self._conf["shuffle"]:
            return self._cut(self._used)
        generator = random.Random(f"{self._seed}:{number}")
        # Python's own shuffle, whose results stay the same from version to version.
        shuffled: list[int] = self._used.tolist()
        generator.shuffle(shuffled)
        order = numpy.array(shuffled, dtype=numpy.int64)
        batches: list[list[int]] = []
        window = max(1, int(self._conf["sort_size"]))
        for start in range(0, len(order), window):
            near = order[start : start + window]
            batches += self._cut(near[numpy.argsort(self._lengths[near], kind="stable")])
        generator.shuffle(batches)
        return batches

    def _cut(self, order: Ints) -> list[list[int]]:
        """Consecutive batches, each as large as the limits allow."""
        limit: int = self._conf["batch_size"]
        indices: list[int] = order.tolist()
        if self._conf["batch_type"] == "example":
            return [indices[start : start + limit] for start in range(0, len(indices), limit)]
        most = self._conf.get("batch_size_sample_max") or len(indices)
        most_positions = self._conf.get("batch_size_token_max") or math.inf
        batches: list[list[int]] = []
        current: list[int] = []
        longest = widest = 0
        for index, length, positions in zip(
            indices, self._lengths[order].tolist(), self._positions[order].tolist(), strict=True
        ):
            longest, widest = max(longest, length), max(widest, positions)
            size = len(current) + 1
            if current and (
                size > most or longest * size > limit or widest * size > most_positions
            ):
                batches.append(current)
                current, longest, widest = [], length, positions
            current.append(index)
        return [*batches, current] if current else batches


class LeftOuts(Sequence[LeftOut]):
    """What training leaves out, in the set's order, however many there are.

    Attributes:
        indices: Into the set.
    """

    def __init__(self, utterances: Sequence[Utterance], reasons: Mapping[int, str]) -> None:
        self._utterances = utterances
        self._reasons = reasons
        self.indices: Ints = numpy.array(sorted(reasons), dtype=numpy.int64)

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> LeftOut: ...

    @overload
    def __getitem__(self, index: slice) -> list[LeftOut]: ...

    def __getitem__(self, index: int | slice) -> LeftOut | list[LeftOut]:
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        at = int(self.indices[index])
        return LeftOut(self._utterances[at], self._reasons[at])

    def by_reason(self) -> Counter[str]:
        """How many there are for each reason."""
        return Counter(self._reasons.values())


def _frames(audios: Sequence[Audio]) -> tuple[Ints, Mapping[int, str]]:
    """Lengths in 10 ms frames, and the problems of files that cannot be used."""
    if isinstance(audios, Audios):
        return audios.num_frames, audios.problems
    return numpy.array([audio.num_frames for audio in audios], dtype=numpy.int64), {}


def _audio_positions(num_frames: Ints) -> Ints:
    """LLM positions of audio by its 10 ms frames, six of which the frontend stacks into one."""
    stacked = -(-num_frames // 6)
    return -(-stacked // 8)


def _reasons_to_leave_out(
    num_frames: Ints, text: Ints, problems: Mapping[int, str], conf: Mapping[str, Any]
) -> dict[int, str]:
    """Why utterances are left out, by index; the first reason counts."""
    rules = (
        (num_frames < conf["min_source_length"], "audio shorter than", "min_source_length"),
        (num_frames > conf["max_source_length"], "audio longer than", "max_source_length"),
        (text < 1, "empty transcript", ""),
        (text < conf.get("min_target_length", 0), "text shorter than", "min_target_length"),
        (text > conf["max_target_length"], "text longer than", "max_target_length"),
        (num_frames + text > conf["max_token_length"], "longer than", "max_token_length"),
    )
    reasons: dict[int, str] = {}
    for applies, reason, key in reversed(rules):
        said = f"{reason} dataset_conf.{key} {conf.get(key)}" if key else reason
        reasons |= dict.fromkeys(numpy.flatnonzero(applies).tolist(), said)
    return reasons | {index: f"audio: {problem}" for index, problem in problems.items()}
