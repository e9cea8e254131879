"""Manifests from what people have: what is used, what is left out and why, and the splits."""

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile

from conf.errors import DataError, UserError
from tests.conftest import BASE, ROOT
from tests.trainer.prepare.prepared import (
    corpus,
    kept,
    left_out,
    lines,
    run,
    write_lines,
    write_wav,
)
from trainer.data.manifest import read_data_list, read_headers
from trainer.prepare.settings import Given

pytestmark = pytest.mark.quick


@pytest.fixture
def folder(tmp_path: Path) -> Given:
    texts = {
        "hello": "Hello, Asterisk!",
        "letters/at": "at [@]",
        "long": "a long story",
        "gone": "no such recording",
        "year": "in 1999",
        "marked": "uh <ANNOTATION_ERROR>",
        "silent": "…",
        **{f"word-{number}": f"Word {number}." for number in range(9)},
    }
    for seed, name in enumerate(texts):
        if name != "gone":
            write_wav(tmp_path / "sounds" / f"{name}.wav", 31 if name == "long" else 1, seed=seed)
    with gzip.open(tmp_path / "names.txt.gz", "wt", encoding="utf-8") as file:
        file.write("; a comment\n\n")
        file.writelines(f"{name}: {text}\n" for name, text in texts.items())
    return Given(tmp_path / "names.txt.gz", wav_dir=tmp_path / "sounds")


def test_a_folder_becomes_manifests_and_nothing_disappears(folder: Given, tmp_path: Path) -> None:
    prepared = run(tmp_path / "out", folder, valid_share=0.2, spoken=True)
    assert prepared.utterances == {"train": 8, "valid": 2}
    assert prepared.left_out == {
        "symbols without a spoken form": 1,
        "too long": 1,
        "no such file": 1,
        "numeral that can be read in several ways": 1,
        "annotation error": 1,
        "empty text": 1,
    }
    train = read_data_list(tmp_path / "out" / "train.jsonl")
    valid = read_data_list(tmp_path / "out" / "valid.jsonl")
    read_headers([*train, *valid])
    assert {u.target for u in (*train, *valid) if u.key == "hello"} == {"hello asterisk"}
    first = left_out(tmp_path / "out")[0]
    assert first["place"] == f"{folder.path}:4"
    assert first["rule"] == "symbols without a spoken form"
    assert first["text"] == "at [@]"


def test_what_is_written_of_an_utterance(tmp_path: Path) -> None:
    extra = {"speaker": "s1", "call": 7, "domain": "bank", "channel": "gsm", "age": 30}
    line = {"key": "k", "source": "wav/a.wav", "target": " 你好  hello ", **extra}
    write_wav(tmp_path / "in/wav/a.wav", 1.2345)
    given = write_lines(tmp_path / "in/m.jsonl", {**line, "source_len": 9})
    run(tmp_path / "out", given)
    written = kept(tmp_path / "out")["k"]
    measured = {name: written.pop(name) for name in ("level_dbfs", "peak_dbfs", "sha256")}
    assert written == {
        "key": "k",
        "source": str(tmp_path / "in/wav/a.wav"),
        "target": "你好 hello",
        "source_len": 123,
        "target_len": 8,
        "duration_s": 1.2345,
        "sample_rate_hz": 8000,
        "speaker_id": "s1",
        "call": "7",
        "domain": "bank",
        "channel": "gsm",
        "age": 30,
        "bandwidth_hz": 4000,
        "clipped": 0.0,
        "split": "train",
    }
    # Noise spread evenly over half of full scale.
    assert measured["level_dbfs"] == pytest.approx(-10.8, abs=0.1)
    assert measured["peak_dbfs"] == pytest.approx(-6.0, abs=0.1)
    assert len(measured["sha256"]) == 64
    [utterance] = read_data_list(tmp_path / "out/train.jsonl")
    assert (utterance.speaker, utterance.tags["call"]) == ("s1", "7")


def test_the_report_of_a_preparation(tmp_path: Path) -> None:
    given = write_lines(tmp_path / "m.jsonl", *corpus(tmp_path, 10), {"key": "x"}, "{")
    run(tmp_path / "out", given)
    told = json.loads((tmp_path / "out/prepare.json").read_bytes())
    assert told["lines_read"] == 12
    assert told["splits"]["train"] == {"utterances": 9, "hours": 0.0025, "speakers": 0, "calls": 0}
    assert told["left_out"] == {
        "malformed line": {"lines": 1, "hours": 0.0, "bad_input": True},
        "missing column": {"lines": 1, "hours": 0.0, "bad_input": True},
    }
    assert told["sample_rates_hz"] == {"8000": 10}
    assert not (tmp_path / "out/.prepare").exists()


def test_audio_beside_the_manifests_is_named_relative_to_them(tmp_path: Path) -> None:
    given = write_lines(tmp_path / "m.jsonl", *corpus(tmp_path / "out", 1))
    run(tmp_path / "out", given)
    assert kept(tmp_path / "out")["u0"]["source"] == "wav/u0.wav"
    [utterance] = read_data_list(tmp_path / "out/train.jsonl")
    assert utterance.source.is_file()
    [chat] = lines(tmp_path / "out/chat/train.jsonl")
    assert str(tmp_path / "out/wav/u0.wav") in chat["messages"][1]["content"]


def test_tokens_are_counted_by_the_models_tokenizer(tmp_path: Path) -> None:
    given = write_lines(tmp_path / "m.jsonl", *corpus(tmp_path, 1))
    run(tmp_path / "out", given, model=BASE)
    [chat] = lines(tmp_path / "out/chat/train.jsonl")
    assert chat["text_length"] == kept(tmp_path / "out")["u0"]["target_len"]
    with pytest.raises(DataError, match="got 0 folders with a tokenizer.json"):
        run(tmp_path / "again", given, model=tmp_path)


# Splits


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


# The directory


def test_what_is_read_is_not_overwritten(tmp_path: Path) -> None:
    given = write_lines(tmp_path / "train.jsonl", *corpus(tmp_path, 1))
    with pytest.raises(UserError, match="train.jsonl would be overwritten, which is read"):
        run(tmp_path, given)


def test_nothing_usable_is_an_error_and_leaves_no_manifest(tmp_path: Path) -> None:
    given = write_lines(tmp_path / "m.jsonl", {"source": "a.wav", "target": "<ANNOTATION_ERROR>"})
    with pytest.raises(DataError, match="got no usable utterance"):
        run(tmp_path / "out", given)
    assert not (tmp_path / "out/train.jsonl").exists()


def test_the_command(folder: Given, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "trainer", "prepare", "--spoken", "--no_scan"),
            *("--wav_dir", str(folder.wav_dir), "--transcripts", str(folder.path)),
            *("--output_dir", str(tmp_path / "out")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "train 9, valid 1, left out 6 (1 annotation error, 1 empty text" in done.stdout
    for name in ("data_report.html", "data_report.md", "data_report_zh.html", "data_report_zh.md"):
        assert name in done.stdout
        assert (tmp_path / "out" / name).stat().st_size


def test_a_side_of_a_stereo_call_is_cut_out(tmp_path: Path) -> None:
    call = write_wav(tmp_path / "call.wav", 2.0, channels=2)
    given = write_lines(
        tmp_path / "m.jsonl",
        {"key": "a", "source": "call.wav", "target": "你好", "side": "A"},
        {"key": "b", "source": "call.wav", "target": "再见了", "channel_index": 1},
        {"key": "c", "source": "call.wav", "target": "好的"},
        {"key": "d", "source": "call.wav", "target": "好的", "channel_index": 2},
    )
    run(tmp_path / "out", given, valid_share=0.0)
    both, _ = soundfile.read(call)
    found = kept(tmp_path / "out")
    for side, key in enumerate("ab"):
        assert found[key]["source"] == f"wav/train/{key}.wav"
        assert found[key]["call"] == "call.wav"
        cut, rate_hz = soundfile.read(tmp_path / "out" / found[key]["source"])
        assert rate_hz == 8000
        assert cut.tolist() == both[:, side].tolist()
    assert [line["rule"] for line in left_out(tmp_path / "out")] == [
        "stereo without a side",
        "no such side",
    ]
