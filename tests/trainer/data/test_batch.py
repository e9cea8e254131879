"""Batches: what goes together, what is left out, and how it is padded."""

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.batch import BatchSampler, Example, collate, joined, num_audio_tokens
from trainer.data.manifest import Audio, Utterance

pytestmark = pytest.mark.quick

CONF = {
    "batch_type": "token",
    "batch_size": 1000,
    "shuffle": True,
    "sort_size": 64,
    "min_source_length": 10,
    "max_source_length": 900,
    "max_target_length": 50,
    "max_token_length": 3500,
}


def _sampler(
    frames: list[int], text: int | list[int] = 5, prompt_length: int = 0, **conf: object
) -> BatchSampler:
    utterances = [
        Utterance(str(i), Path("x.wav"), "好", Path("m.jsonl"), i + 1) for i in range(len(frames))
    ]
    # Half a frame more than counted: at whole frames 1.13 s * 100 is 112.99 in floating point.
    audios = [Audio(8000, count * 80 + 40) for count in frames]
    texts = [text] * len(frames) if isinstance(text, int) else text
    return BatchSampler(utterances, audios, texts, {**CONF, **conf}, 3, prompt_length)


def test_every_utterance_is_in_exactly_one_batch() -> None:
    sampler = _sampler([100 + 7 * (i % 40) for i in range(200)])
    for epoch in (1, 2):
        assert sorted(i for batch in sampler.epoch(epoch) for i in batch) == list(range(200))
    assert sampler.epoch(1) == sampler.epoch(1) != sampler.epoch(2)


def test_token_batches_hold_at_most_batch_size_padded_units() -> None:
    frames = [100 + 13 * (i % 50) for i in range(100)]
    for batch in _sampler(frames, batch_size=2000).epoch(1):
        assert len(batch) == 1 or max(frames[i] + 5 for i in batch) * len(batch) <= 2000


def test_example_batches_count_utterances() -> None:
    sizes = [len(b) for b in _sampler([100] * 50, batch_type="example", batch_size=16).epoch(1)]
    assert sorted(sizes) == [2, 16, 16, 16]


@given(
    frames=st.lists(st.integers(10, 900), min_size=1, max_size=120),
    batch_size=st.integers(50, 3000),
    sample_max=st.integers(1, 12),
    token_max=st.integers(20, 400),
    sort_size=st.integers(1, 50),
)
def test_batches_keep_all_limits_and_drop_nothing(
    frames: list[int], batch_size: int, sample_max: int, token_max: int, sort_size: int
) -> None:
    """Stock drops the last utterances of a batch above ``batch_size_token_max``."""
    sampler = _sampler(
        frames,
        prompt_length=20,
        batch_size=batch_size,
        batch_size_sample_max=sample_max,
        batch_size_token_max=token_max,
        sort_size=sort_size,
    )
    plan = sampler.epoch(1)
    assert sorted(index for batch in plan for index in batch) == list(range(len(frames)))
    for batch in plan:
        longest = max(frames[index] for index in batch)
        positions = 20 + 5 + num_audio_tokens(-(-longest // 6))
        if len(batch) > 1:
            assert len(batch) <= sample_max
            assert len(batch) * (longest + 5) <= batch_size
            assert len(batch) * positions <= token_max


@given(
    frames=st.lists(st.integers(10, 900), min_size=1, max_size=80),
    batch_size=st.integers(1, 3000),
    sort_size=st.integers(1, 50),
    epoch=st.integers(0, 3),
    batch_type=st.sampled_from(["token", "example"]),
)
def test_batches_are_those_of_the_plain_algorithm(
    frames: list[int], batch_type: str, batch_size: int, sort_size: int, epoch: int
) -> None:
    order = list(range(len(frames)))
    generator = random.Random(f"3:{epoch}")
    generator.shuffle(order)
    expected: list[list[int]] = []
    for start in range(0, len(order), sort_size):
        current: list[int] = []
        for index in sorted(order[start : start + sort_size], key=lambda each: frames[each]):
            size = (
                len(current) + 1
                if batch_type == "example"
                else (len(current) + 1) * (max(frames[each] for each in [*current, index]) + 5)
            )
            if current and size > batch_size:
                expected.append(current)
                current = []
            current.append(index)
        expected.append(current)
    generator.shuffle(expected)
    sampler = _sampler(frames, batch_type=batch_type, batch_size=batch_size, sort_size=sort_size)
    assert sampler.epoch(epoch) == expected


def test_without_shuffling_batches_follow_the_manifest() -> None:
    sampler = _sampler([100] * 7, batch_type="example", batch_size=3, shuffle=False)
    assert sampler.epoch(1) == sampler.epoch(2) == [[0, 1, 2], [3, 4, 5], [6]]


def test_each_limit_leaves_out_with_its_reason() -> None:
    sampler = _sampler(
        [100, 9, 901, 100, 100, 100, 890, 10],
        [5, 5, 5, 0, 51, 1, 30, 5],
        min_target_length=2,
        max_token_length=915,
    )
    reasons = [(int(left.utterance.key), left.reason) for left in sampler.left_out]
    assert reasons == [
        (1, "audio shorter than dataset_conf.min_source_length 10"),
        (2, "audio longer than dataset_conf.max_source_length 900"),
        (3, "empty transcript"),
        (4, "text longer than dataset_conf.max_target_length 50"),
        (5, "text shorter than dataset_conf.min_target_length 2"),
        (6, "longer than dataset_conf.max_token_length 915"),
    ]
    assert sampler.left_out.by_reason().total() == len(sampler.left_out) == 6
    assert [left.utterance.key for left in sampler.left_out[-2:]] == ["5", "6"]
    assert sorted(index for batch in sampler.epoch(1) for index in batch) == [0, 7]


def test_what_is_left_out_has_its_reason() -> None:
    sampler = _sampler([5, 100, 1000])
    assert len(sampler) == 1
    assert [(left.utterance.key, left.reason) for left in sampler.left_out] == [
        ("0", "audio shorter than dataset_conf.min_source_length 10"),
        ("2", "audio longer than dataset_conf.max_source_length 900"),
    ]


def _example(key: str, frames: int, target: list[int]) -> Example:
    return Example(key, torch.randn(frames, 4), ([7, 8], [9]), target, [1] * len(target))


def test_collate_pads_right_for_training_and_left_for_decoding() -> None:
    examples = [_example("a", 8, [5, 6, 2]), _example("b", 20, [5, 2])]
    assert [e.num_audio_tokens for e in examples] == [1, 3]
    train = collate(examples)
    assert train.input_ids_BL.tolist() == [[7, 8, 0, 9, 5, 6, 2, 0], [7, 8, 0, 0, 0, 9, 5, 2]]
    assert train.labels_BL.tolist() == [
        [-100] * 4 + [5, 6, 2, -100],
        [-100] * 6 + [5, 2],
    ]
    assert train.audio_mask_BL.sum(1).tolist() == [1, 3]
    decode = collate(examples, for_decoding=True)
    assert decode.input_ids_BL.tolist() == [[0, 0, 7, 8, 0, 9], [7, 8, 0, 0, 0, 9]]
    assert decode.attention_mask_BL.tolist() == [[0, 0, 1, 1, 1, 1], [1] * 6]


def test_the_host_says_which_rows_are_meant() -> None:
    examples = [_example("a", 8, [5, 6, 2]), _example("b", 20, [5, 2])]
    for batch in (collate(examples), collate(examples, for_decoding=True)):
        places = batch.audio_mask_BL.flatten().nonzero().flatten()
        assert batch.audio_at_N.tolist() == places.tolist()
        # The second utterance has three audio tokens; the first has one and two to skip.
        assert batch.audio_from_N.tolist() == [0, 3, 4, 5]
    assert collate(examples, for_decoding=True).targets_N.tolist() == []
    batch = collate(examples)
    assert batch.targets_N.tolist() == [5, 6, 2, 5, 2]
    assert batch.num_target_tokens == 5
    # Row after row of 8 positions, one before each token.
    assert batch.predicts_at_N.tolist() == [3, 4, 5, 13, 14]


def test_joined_batches_are_the_batch_of_all_their_examples() -> None:
    examples = [
        _example("a", 8, [5, 6, 2]),
        _example("b", 20, [5, 2]),
        _example("c", 30, [5, 7, 8, 6, 2]),
        _example("d", 3, [2]),
    ]
    whole, parts = collate(examples), joined([collate(examples[:2]), collate(examples[2:])])
    for name, value in vars(whole).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(parts, name)), name
        else:
            assert value == getattr(parts, name), name


def test_number_of_audio_tokens_is_an_eighth_rounded_up() -> None:
    assert [num_audio_tokens(n) for n in (1, 8, 9, 16, 17, 160)] == [1, 1, 2, 2, 3, 20]
