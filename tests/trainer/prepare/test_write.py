"""The files that a preparation leaves behind, line by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.prepare.given import corpus, write_lines, write_wav
from tests.trainer.prepare.prepared import kept, left_out, lines, run
from trainer.data.manifest import read_data_list
from trainer.prepare.write import Outcome, Writer

pytestmark = pytest.mark.quick


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


def test_audio_beside_the_manifests_is_named_relative_to_them(tmp_path: Path) -> None:
    given = write_lines(tmp_path / "m.jsonl", *corpus(tmp_path / "out", 1))
    run(tmp_path / "out", given)
    assert kept(tmp_path / "out")["u0"]["source"] == "wav/u0.wav"
    [utterance] = read_data_list(tmp_path / "out/train.jsonl")
    assert utterance.source.is_file()
    [chat] = lines(tmp_path / "out/chat/train.jsonl")
    assert str(tmp_path / "out/wav/u0.wav") in chat["messages"][1]["content"]


def test_nothing_is_in_its_place_before_all_is_written(tmp_path: Path) -> None:
    output_dir, around = tmp_path / "out", tmp_path / "around"
    output_dir.mkdir()
    for name in ("train.jsonl", "test.jsonl"):  # of an earlier preparation, with a test set
        (output_dir / name).write_text("old\n")
    record = {"key": "k", "place": "m.jsonl:1", "source": "a.wav", "text": "好"}
    with Writer(output_dir, around, ("train", "valid")) as writer:
        writer.add(Outcome(record, reason=("too long", "got 31 s")))
        assert (output_dir / "train.jsonl").read_text() == "old\n"
        writer.finish()
    assert left_out(output_dir) == [record | {"rule": "too long", "why": "got 31 s"}]
    assert sorted(path.name for path in output_dir.glob("*.jsonl")) == [
        "left_out.jsonl",
        "train.jsonl",
        "valid.jsonl",
    ]
    assert lines(output_dir / "train.jsonl") == []


def test_what_is_counted(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    record = {"key": "k", "place": "m.jsonl:1", "source": "a.wav", "text": "好"}
    line = {"key": "k", "source": "/a.wav", "target": "好", "source_len": 360_000}
    line |= {"target_len": 1, "duration_s": 3600.0, "sample_rate_hz": 8000}
    with Writer(tmp_path / "out", tmp_path / "around", ("train",)) as writer:
        for _ in range(2):
            writer.add(Outcome(record, "train", line))
        writer.add(Outcome(record | {"duration_s": 36.0}, reason=("too long", "")))
        writer.add(Outcome(record, reason=("no such file", "")))
        assert writer.summary() == {
            "splits": {"train": {"utterances": 2, "hours": 2.0}},
            "left_out": {
                "no such file": {"lines": 1, "hours": 0.0, "bad_input": True},
                "too long": {"lines": 1, "hours": 0.01, "bad_input": False},
            },
            "sample_rates_hz": {"8000": 2},
        }
