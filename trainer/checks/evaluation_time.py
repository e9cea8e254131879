"""What the evaluations of a fine-tune take, set by set: measured here, or counted.

Counted, each text takes as many steps as its reference has tokens, in the rows that decoding has. A
step is bound by the start of its kernels and takes as long whatever the rows. Encoder, CTC and loss
are counted as a part of a training step on as much audio.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy

from conf.load import Config
from trainer.checks.data_checks import Survey, evenly
from trainer.data.batch import text_lengths
from trainer.data.manifest import Audios, Ints, Utterance, read_headers
from trainer.data.sets import fixed_subset
from trainer.evaluation.decode import REFILLED_SHARE
from trainer.evaluation.evaluate import evaluate
from trainer.model.build import Nano
from trainer.model.losses import Objective

ASSUMED_TOKEN_S = 0.02
"""Of a decoding step where nothing is measured: 1,600 kernels of 12.1 us, the figure of one public
profile of the released model (FunASR's pull request 3705)."""
FORWARD_SHARE = 0.5
"""Part of a training step's operations that an evaluation of as much audio takes, loss included: a
third where all parts train, more where the encoder is frozen and has no backward pass."""
_MAX_TIMED = 32


@dataclass(frozen=True)
class EvaluationTime:
    """Seconds that it takes to score the sets once.

    Attributes:
        subset_s: The utterances of the validation set that choose the checkpoint.
        epoch_s: Those and the wideband set: before training and after each epoch.
        end_s: What is scored only with the checkpoint that would be exported: the test set, and
            where a part of the validation set chooses, all of it.
    """

    subset_s: float
    epoch_s: float
    end_s: float


def evaluation_time(config: Config, data: Survey, of_set: Callable[..., float]) -> EvaluationTime:
    """Look at the sets of a configuration.

    Args:
        config: What will be trained.
        data: Its lists.
        of_set: Seconds of a set, given its utterances and audio headers: `measured` or `counted`.
    """
    sets: Mapping[str, Sequence[Utterance]] = {
        split: items for split, items in data.utterances.items() if split != "train"
    }
    found = {split: of_set(items, data.audios[split]) for split, items in sets.items()}
    subset = fixed_subset(sets["valid"], config["finetune_conf.valid_subset"])
    subset_s, end_s = found["valid"], found.get("test", 0.0)
    if len(subset) < len(sets["valid"]):
        subset_s, end_s = of_set(subset, read_headers(subset)), end_s + found["valid"]
    return EvaluationTime(subset_s, subset_s + found.get("wideband", 0.0), end_s)


def measured(nano: Nano, config: Config, data: Survey) -> Callable[..., float]:
    """Time a batch of the validation set; a set takes as long for each second of its audio."""
    batch_size = config["finetune_conf.eval_batch_size"]
    sample = evenly(data.utterances["valid"], min(batch_size, _MAX_TIMED))
    objective = Objective(nano.model, config)
    seconds = []
    for _ in range(2):  # the first pays for what is set up once
        started_s = time.perf_counter()
        evaluate(
            nano,
            sample,
            max_new_tokens=config["finetune_conf.max_new_tokens"],
            batch_size=batch_size,
            objective=objective,
        )
        seconds.append(time.perf_counter() - started_s)
    per_second = min(seconds) / float(read_headers(sample).durations_s.sum())
    return lambda _, audios: per_second * float(audios.durations_s.sum())


def counted(
    config: Config, data: Survey, *, frame_flops: float, flops_per_s: float
) -> Callable[..., float]:
    """Count tokens and operations.

    Args:
        config: Says how sets are decoded.
        data: Gives the tokenizer.
        frame_flops: Operations of a training step for each 10 ms frame of its batch.
        flops_per_s: That a GPU does.
    """
    assert data.codec is not None, "a forecast has a model directory"
    codec, batch_size = data.codec, config["finetune_conf.eval_batch_size"]

    def of_set(items: Sequence[Utterance], audios: Audios) -> float:
        steps = decoding_steps(
            *(audios.num_frames, text_lengths(items, codec)),
            *(batch_size, config["finetune_conf.max_new_tokens"]),
        )
        flops = FORWARD_SHARE * frame_flops * float(audios.num_frames.sum())
        return ASSUMED_TOKEN_S * steps + flops / flops_per_s

    return of_set


def decoding_steps(num_frames: Ints, text_tokens: Ints, batch_size: int, most: int) -> int:
    """Count the passes through the LLM that decode a set: beginnings of texts, and steps.

    Args:
        num_frames: Length of each recording.
        text_tokens: Length of each text; the end of the turn takes a step too, the first token the
            beginning.
        batch_size: Texts written at once.
        most: Tokens at which a text is cut.

    Example:
        >>> decoding_steps(numpy.array([30, 10, 20]), numpy.array([9, 1, 3]), 2, 8)
        9
    """
    tokens: Ints = text_tokens[numpy.argsort(-num_frames, kind="stable")]
    waiting = deque(numpy.minimum(tokens, most - 1).tolist())
    ends: list[int] = []
    begun = steps = 0
    while waiting or ends:
        free = min(batch_size - len(ends), len(waiting))
        if free and (free == len(waiting) or free >= REFILLED_SHARE * batch_size):
            begun += 1
            for _ in range(free):
                heapq.heappush(ends, steps + waiting.popleft())
        while ends and ends[0] == steps:
            heapq.heappop(ends)
        steps += bool(ends)
    return begun + steps
