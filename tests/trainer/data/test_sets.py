"""The sets of a fine-tune: what it trains on, and what it is scored on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conf.errors import ConfigError, DataError
from conf.load import Config
from tests.trainer.prepare.given import write_lines, write_wav
from trainer.data.manifest import Utterance
from trainer.data.sets import fixed_subset, read_data

pytestmark = pytest.mark.quick

MakeConfig = Callable[..., Config]


def utterances(*keys: str) -> list[Utterance]:
    return [Utterance(key, Path("x.wav"), "好", Path("m.jsonl"), 1) for key in keys]


def test_sets_are_named_as_their_metrics_are(
    tiny_config: MakeConfig, cut: Callable[..., Path]
) -> None:
    test = str(cut("test", 4))
    data = read_data(tiny_config(finetune_conf__test_data_set_list=test))
    assert (len(data.train), len(data.train_audios)) == (24, 24)
    assert {name: len(found) for name, found in data.evaluation.items()} == {"valid": 6, "test": 4}
    assert data.valid_subset is data.evaluation["valid"]


def test_both_manifests_are_asked_for_at_once(tiny_config: MakeConfig) -> None:
    config = tiny_config(train_data_set_list=None, valid_data_set_list=None)
    with pytest.raises(ConfigError) as caught:
        read_data(config)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "train_data_set_list",
        "valid_data_set_list",
    ]


def test_what_cannot_be_read_stops_an_evaluation_and_not_training(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    write_wav(tmp_path / "a.wav")
    manifest = write_lines(
        tmp_path / "m.jsonl",
        *({"key": name, "source": f"{name}.wav", "target": "好"} for name in ("a", "gone")),
    )
    data = read_data(tiny_config(train_data_set_list=str(manifest)))
    assert len(data.train) == 2
    with pytest.raises(DataError, match=r"m\.jsonl:2: source: got .*no such file"):
        read_data(tiny_config(valid_data_set_list=str(manifest)))


def test_the_digest_tells_other_data_apart(tiny_config: MakeConfig) -> None:
    first, again, other = (read_data(tiny_config(train=count)).sha256 for count in (24, 24, 23))
    assert first == again != other


def test_a_part_of_a_set_is_the_same_for_every_run_and_in_the_sets_order() -> None:
    whole = utterances(*(f"k{number}" for number in range(20)))
    part = fixed_subset(whole, 5)
    assert len(part) == 5
    assert [utterance for utterance in whole if utterance in part] == part
    assert fixed_subset(whole[::-1], 5) == part[::-1]
    assert all(utterance in fixed_subset(whole, 6) for utterance in part)


@pytest.mark.parametrize("count", [None, 3, 4])
def test_a_set_that_is_small_enough_is_taken_whole(count: int | None) -> None:
    whole = utterances("a", "b", "c")
    assert fixed_subset(whole, count) is whole
