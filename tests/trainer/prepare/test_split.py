"""Which split each line goes to: no call and no speaker is in two."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from conf.errors import DataError
from tests.trainer.prepare.given import GOOD, corpus, write_lines, write_wav
from tests.trainer.prepare.prepared import check, kept, left_out, run
from trainer.prepare.settings import Given

pytestmark = pytest.mark.quick


def test_the_split_does_not_depend_on_order_or_workers(tmp_path: Path) -> None:
    made = corpus(tmp_path, 40, call=lambda n: f"c{n // 4}", speaker=lambda n: f"s{n // 8}")
    orders: list[tuple[str, list[dict[str, Any]], int]] = [
        ("a", made, 1),
        ("b", random.Random(1).sample(made, len(made)), 2),
    ]
    for name, order, workers in orders:
        given = write_lines(tmp_path / f"{name}.jsonl", *order)
        run(tmp_path / name, given, workers=workers, valid_share=0.2, test_share=0.2)
    first, second = ({k: v["split"] for k, v in kept(tmp_path / name).items()} for name in "ab")
    assert first == second
    assert sorted(first.values()) == ["test"] * 8 + ["train"] * 24 + ["valid"] * 8


def test_no_call_and_no_speaker_is_in_two_splits(tmp_path: Path) -> None:
    made = corpus(tmp_path, 60, call=lambda n: f"c{n // 2}", speaker=lambda n: f"s{n // 3}")
    given = write_lines(tmp_path / "m.jsonl", *made)
    prepared = run(tmp_path / "out", given, valid_share=0.2, test_share=0.2)
    assert prepared.utterances == {"train": 36, "valid": 12, "test": 12}
    told = json.loads((tmp_path / "out/prepare.json").read_bytes())
    assert told["split_by"] == "call and speaker"
    for name in ("call", "speaker_id"):
        splits: dict[str, set[str]] = {}
        for line in kept(tmp_path / "out").values():
            splits.setdefault(line[name], set()).add(line["split"])
        assert {len(found) for found in splits.values()} == {1}


def test_an_agent_in_every_call_does_not_join_them(tmp_path: Path) -> None:
    made = corpus(
        tmp_path,
        40,
        call=lambda n: f"c{n // 4}",
        speaker=lambda n: "agent" if n % 2 else f"customer-{n // 4}",
    )
    prepared = run(tmp_path / "out", write_lines(tmp_path / "m.jsonl", *made), valid_share=0.2)
    assert prepared.utterances == {"train": 32, "valid": 8}
    assert prepared.warnings == (
        "calls and speakers hang together (the largest group by call and speaker holds 40 of 40 "
        "utterances), so that calls alone are kept apart; --split_by speaker keeps speakers apart "
        "instead",
        "1 speakers of valid are in train too (4 utterances of valid)",
    )


def test_agents_who_join_most_calls_leave_no_split_empty(tmp_path: Path) -> None:
    """Groups of 30 and 10 are below the share of training, but too large for the others."""
    made = corpus(
        tmp_path, 40, call=lambda n: f"c{n // 2}", speaker=lambda n: "a" if n < 30 else "b"
    )
    given = write_lines(tmp_path / "m.jsonl", *made)
    prepared = run(tmp_path / "out", given, valid_share=0.1, test_share=0.1)
    assert prepared.utterances == {"train": 32, "valid": 4, "test": 4}
    assert "the largest group by call and speaker holds 30 of 40" in prepared.warnings[0]
    with pytest.raises(DataError, match="got nothing for valid and test, since the largest group"):
        run(tmp_path / "out", given, valid_share=0.1, test_share=0.1, split_by="speaker")


def test_one_call_cannot_be_split(tmp_path: Path) -> None:
    given = write_lines(tmp_path / "m.jsonl", *corpus(tmp_path, 20, call=lambda n: "c"))
    with pytest.raises(DataError) as caught:
        run(tmp_path / "out", given)
    assert str(caught.value) == (
        "--split_by: got nothing for valid, since the largest group by call holds 20 of 20 "
        "utterances; expected smaller groups, another --split_by (key splits within them), or "
        "given splits"
    )


def test_given_splits_are_taken_and_checked(tmp_path: Path) -> None:
    made = corpus(tmp_path, 8, call=lambda n: f"c{n}")
    train = [*made[:5], {**made[5], "key": "of-valids-call"}, {**made[6], "call": "own"}]
    train[5]["source"] = str(write_wav(tmp_path / "other.wav", seed=99))
    train.append({**made[0], "key": "copy", "source": made[7]["source"], "call": "c0"})
    given = [
        Given(write_lines(tmp_path / f"{split}.jsonl", *of), split)
        for split, of in (("train", train), ("valid", made[5:7]), ("test", made[7:]))
    ]
    prepared = run(tmp_path / "out", *given)
    assert prepared.utterances == {"train": 5, "valid": 2, "test": 1}
    found = {line["key"]: (line["rule"], line["why"]) for line in left_out(tmp_path / "out")}
    assert found == {
        "of-valids-call": (
            "call in another split",
            f"got it also at {tmp_path}/valid.jsonl:1, kept there",
        ),
        "u6": ("duplicate key", f"got it also at {tmp_path}/valid.jsonl:2, kept there"),
        "copy": ("content in another split", f"got it also at {tmp_path}/test.jsonl:1, kept there"),
    }


def test_a_given_test_set_and_the_rest_to_be_split(tmp_path: Path) -> None:
    made = corpus(tmp_path, 20)
    rest = write_lines(tmp_path / "rest.jsonl", *made)
    test = write_lines(tmp_path / "test.jsonl", *made[:2])
    prepared = run(tmp_path / "out", rest, Given(test, "test"))
    assert prepared.utterances == {"train": 16, "valid": 2, "test": 2}
    assert prepared.left_out == {"duplicate key": 2}


def test_a_key_twice(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", seed=5)
    given = write_lines(tmp_path / "m.jsonl", GOOD, {**GOOD, "source": "x.wav"})
    check(tmp_path, given, "duplicate key", f"got it also at {given}:1")


def test_strict_stops_at_a_call_in_two_splits(tmp_path: Path) -> None:
    given = []
    for number, split in enumerate(("train", "valid")):
        write_wav(tmp_path / f"{split}.wav", seed=number)
        line = {"key": split, "source": f"{split}.wav", "target": "好", "call": "c"}
        given.append(Given(write_lines(tmp_path / f"{split}.jsonl", line), split))
    with pytest.raises(DataError, match=r"train.jsonl:1: call in another split: got it also at .*"):
        run(tmp_path / "out", *given, strict=True)
