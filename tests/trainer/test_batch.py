"""Batches: what goes together, what is left out, and how it is padded."""

from pathlib import Path

import pytest
import torch

from trainer.batch import BatchSampler, Example, collate, num_audio_tokens
from trainer.manifest import Audio, Utterance

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


def _sampler(frames: list[int], text: int = 5, **conf: object) -> BatchSampler:
    utterances = [
        Utterance(str(i), Path("x.wav"), "好", Path("m.jsonl"), i + 1) for i in range(len(frames))
    ]
    audios = [Audio(8000, count * 80) for count in frames]
    return BatchSampler(utterances, audios, [text] * len(frames), {**CONF, **conf}, seed=3)


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


def test_number_of_audio_tokens_is_an_eighth_rounded_up() -> None:
    assert [num_audio_tokens(n) for n in (1, 8, 9, 16, 17, 160)] == [1, 1, 2, 2, 3, 20]
