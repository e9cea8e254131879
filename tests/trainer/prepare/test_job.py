"""A preparation as a whole, from what people have to manifests: nothing disappears."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from conf.errors import DataError
from tests.conftest import ROOT
from tests.trainer.prepare.given import GOOD, corpus, write_lines, write_wav
from tests.trainer.prepare.prepared import left_out, run
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


# Splits


# The directory


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


def test_mixed_rates_are_told_with_their_first_lines(tmp_path: Path) -> None:
    write_wav(tmp_path / "good.wav")
    write_wav(tmp_path / "wide.wav", rate_hz=16000)
    given = write_lines(tmp_path / "m.jsonl", GOOD, {"source": "wide.wav", "target": "再见"})
    prepared = run(tmp_path / "out", given, valid_share=0.5)
    [warning] = prepared.warnings
    assert f"1 of 16000 Hz (first {given}:2)" in warning
    with pytest.raises(DataError, match="mixed sample rates"):
        run(tmp_path / "strict", given, valid_share=0.5, strict=True)
    run(tmp_path / "out", given, rates_hz=(8000,))
    [line] = left_out(tmp_path / "out")
    assert (line["rule"], line["place"]) == ("sample rate", f"{given}:2")
    assert line["why"] == "got 16000 Hz, expected 8000"
