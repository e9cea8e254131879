"""Sentences of calls: each in one split, the same from the same seed, diverse."""

import random
from itertools import islice

import numpy as np
import pytest

from trainer.demo.sentences import INVENTORY, SPLIT_BUCKETS, draw_sentence, sentences, split_of


@pytest.mark.quick
def test_splits_take_every_bucket_once() -> None:
    buckets = [bucket for range_ in SPLIT_BUCKETS.values() for bucket in range_]
    assert sorted(buckets) == list(range(100))


@pytest.mark.quick
def test_sentences_repeat_and_belong_to_their_split() -> None:
    drawn = {split: list(islice(sentences(split, 0), 200)) for split in SPLIT_BUCKETS}
    assert all(split_of(text) == split for split, texts in drawn.items() for text in texts)
    assert all(len(set(texts)) == 200 for texts in drawn.values())
    assert drawn["valid"] == list(islice(sentences("valid", 0), 200))
    assert drawn["valid"] != list(islice(sentences("valid", 1), 200))


@pytest.mark.quick
def test_sentences_are_diverse_but_of_few_characters() -> None:
    rng = random.Random(0)
    texts = [draw_sentence(rng) for _ in range(5000)]
    assert set("".join(texts)) == set(INVENTORY)
    assert len(INVENTORY) <= 210
    # Of the pairs of neighbouring characters in new text, most single sentences hold a new one.
    known = {text[i : i + 3] for text in texts[:1000] for i in range(len(text) - 2)}
    new = [any(t[i : i + 3] not in known for i in range(len(t) - 2)) for t in texts[4000:]]
    assert np.mean(new) > 0.5
