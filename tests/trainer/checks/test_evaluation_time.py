"""How long evaluations take: which sets are scored when, and what a set counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from conf.load import Config
from trainer.checks.data_checks import survey
from trainer.checks.evaluation_time import (
    ASSUMED_TOKEN_S,
    FORWARD_SHARE,
    EvaluationTime,
    counted,
    decoding_steps,
    evaluation_time,
)

Make = Callable[..., Config]


def test_sets_are_counted_where_they_are_scored(
    tiny_config: Make, cut: Callable[..., Path]
) -> None:
    """The test set once; all of the validation set too, where a part of it chooses."""
    sets = {
        "finetune_conf__wideband_data_set_list": str(cut("wideband", 2)),
        "finetune_conf__test_data_set_list": str(cut("test", 3)),
    }

    def of(config: Config) -> EvaluationTime:
        return evaluation_time(config, survey(config), lambda items, audios: float(len(audios)))

    assert of(tiny_config("8k", valid=6, **sets)) == EvaluationTime(6, 8, 3)
    part = tiny_config("8k", valid=6, finetune_conf__valid_subset=4, **sets)
    assert of(part) == EvaluationTime(4, 6, 9)
    assert of(tiny_config("8k", valid=6)) == EvaluationTime(6, 6, 0)


@pytest.mark.quick
def test_rows_are_taken_again_and_no_text_takes_more_steps_than_the_cap() -> None:
    frames, tokens = numpy.array([30, 10, 20, 40]), numpy.array([9, 1, 3, 2])
    # Two begin; after the text of 2, that of 3 begins, then that of 1, beside that of 9.
    assert decoding_steps(frames, tokens, 2, 100) == 1 + 9 + 1 + 1
    assert decoding_steps(frames, tokens, 1, 100) == (1 + 2) + (1 + 9) + (1 + 3) + (1 + 1)
    assert decoding_steps(frames, tokens, 2, 6) == 1 + 7 + 1 + 1  # the last text ends the last
    assert decoding_steps(frames, tokens, 64, 100) == 1 + 9


def test_a_set_takes_its_tokens_and_a_part_of_a_training_step(tiny_config: Make) -> None:
    config = tiny_config("8k", valid=6, finetune_conf__eval_batch_size=6)
    data = survey(config)
    items, audios = data.utterances["valid"], data.audios["valid"]
    assert data.codec is not None
    longest = max(len(data.codec.target_ids(item.target)) for item in items)
    tokens_alone = counted(config, data, frame_flops=1e9, flops_per_s=math.inf)
    assert tokens_alone(items, audios) == pytest.approx(ASSUMED_TOKEN_S * min(longest, 32))
    both = counted(config, data, frame_flops=1e9, flops_per_s=1e12)
    forward_s = FORWARD_SHARE * int(audios.num_frames.sum()) / 1000
    assert both(items, audios) - tokens_alone(items, audios) == pytest.approx(forward_s)
