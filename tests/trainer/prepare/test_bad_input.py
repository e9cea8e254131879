"""Every mistake in what is handed to `trainer prepare`: named by rule, file and line."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import soundfile

from conf.errors import DataError, UserError
from tests.trainer.prepare.prepared import kept, left_out, run, write_lines, write_wav
from trainer.__main__ import main
from trainer.prepare.settings import Given

pytestmark = pytest.mark.quick

GOOD = {"key": "good", "source": "good.wav", "target": "你好"}


def check(
    tmp_path: Path, given: Path, rule: str, why: str, *, line: int = 2, **changes: Any
) -> None:
    """One line is good; the other is left out by that rule, and stops a strict preparation."""
    write_wav(tmp_path / "good.wav")
    run(tmp_path / "out", given, **changes)
    assert [each["target"] for each in kept(tmp_path / "out").values()] == ["你好"]
    [found] = left_out(tmp_path / "out")
    assert found["rule"] == rule
    assert found["place"] == f"{given}:{line}"
    assert why in found["why"]
    with pytest.raises(DataError) as caught:
        run(tmp_path / "strict", given, strict=True, **changes)
    assert str(caught.value).startswith(f"{found['place']}: {rule}: ")
    assert "\n" not in str(caught.value)


# Lines


@pytest.mark.parametrize(
    ("line", "rule", "why"),
    [
        (b"{not json", "malformed line", "got no JSON"),
        (b"[1]", "malformed line", "got list, expected a JSON object"),
        (b'{"key": "k", "source": "x"}', "missing column", "target: got key, source"),
        (b'{"source": "x", "target": null}', "missing column", "target: got"),
        (b'{"messages": []}', "malformed line", "messages: got no user turn"),
        ("{'source': '你'}".encode("gb18030"), "not UTF-8", "--encoding gb18030"),
        (b'{"target": "\xff"}', "not UTF-8", "not UTF-8 at 12"),
        (b'{"source": "a", "target": "\\ud800"}', "malformed line", "not UTF-8"),
        (b"[" * 100_000, "malformed line", "nested too deeply"),
        (b'{"target": "' + b"a" * 2**21, "line too long", "more than 1,048,576 bytes"),
        (b'{"source": "x", "target": "a", "start_s": "soon"}', "malformed line", "start_s: got"),
        (b'{"source": "x", "target": "a", "side": "top"}', "no such side", "expected A, B, left"),
    ],
)
def test_lines(tmp_path: Path, line: bytes, rule: str, why: str) -> None:
    given = tmp_path / "m.jsonl"
    given.write_bytes(json.dumps(GOOD).encode() + b"\n" + line + b"\n")
    check(tmp_path, given, rule, why)


def test_a_mark_in_front_and_windows_line_ends_are_no_mistake(tmp_path: Path) -> None:
    write_wav(tmp_path / "good.wav")
    (tmp_path / "m.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\r\n")
    run(tmp_path / "out", tmp_path / "m.jsonl", strict=True, valid_share=0.0, test_share=0.5)
    assert list(kept(tmp_path / "out")) == ["good"]


@pytest.mark.parametrize(
    ("row", "rule", "why"),
    [
        (b"x.wav", "missing column", "got 1 fields, expected 2 (source, target)"),
        (b"x.wav,one,two", "malformed line", "got 3 fields"),
        (b'x.wav,"open', "malformed line", "unexpected end of data"),
        (b'x.wav,"one"two', "malformed line", "expected after"),
        (b"x.wav," + "你".encode("gb18030"), "not UTF-8", "not UTF-8 at 6"),
        (b"x.wav,\xff\xfe", "not UTF-8", "not UTF-8 at 6"),
        (b"x.wav," + b"a" * 2**18, "line too long", "field larger than field limit"),
        (b'x.wav,"' + (b"a" * 999 + b"\n") * 150, "line too long", "(lines 3 to"),
        (b"x.wav," + b"a," * 2**20, "line too long", "more than 1,048,576 bytes"),
    ],
)
def test_rows(tmp_path: Path, row: bytes, rule: str, why: str) -> None:
    write_wav(tmp_path / "good.wav")
    given = tmp_path / "t.csv"
    given.write_bytes("source,target\ngood.wav,你好\n".encode() + row + b"\n")
    if b"\n" in row:  # what follows the field that is never closed is read as rows again
        run(tmp_path / "out", given)
        first = left_out(tmp_path / "out")[0]
        assert (first["rule"], first["place"]) == (rule, f"{given}:3")
        assert why in first["why"]
    else:
        check(tmp_path, given, rule, why, line=3)


def test_a_row_that_is_damaged_does_not_take_the_next_with_it(tmp_path: Path) -> None:
    write_wav(tmp_path / "good.wav")
    field = b"a" * 2**18
    given = tmp_path / "t.csv"
    given.write_bytes(b"source,target\nx.wav," + field + "\ngood.wav,你好\n".encode())
    check(tmp_path, given, "line too long", "field larger", line=2)


def test_names_without_text(tmp_path: Path) -> None:
    write_wav(tmp_path / "good.wav")
    (tmp_path / "names").write_text("good: 你好\nno colon here\n", encoding="utf-8")
    run(tmp_path / "out", Given(tmp_path / "names", wav_dir=tmp_path))
    [line] = left_out(tmp_path / "out")
    assert (line["rule"], line["place"]) == ("malformed line", f"{tmp_path}/names:2")


def test_a_key_twice(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", seed=5)
    given = write_lines(tmp_path / "m.jsonl", GOOD, {**GOOD, "source": "x.wav"})
    check(tmp_path, given, "duplicate key", f"got it also at {given}:1")


# Recordings


def _cut_off(path: Path) -> None:
    write_wav(path)
    with path.open("rb+") as file:
        file.truncate(8000)


def _no_numbers(path: Path) -> None:
    soundfile.write(path, numpy.full(8000, numpy.nan), 8000, subtype="FLOAT")


@pytest.mark.parametrize(
    ("make", "rule", "why"),
    [
        (lambda path: None, "no such file", "no such file"),
        (Path.mkdir, "not a file", "a directory"),
        (os.mkfifo, "not a file", "no file"),
        (Path.touch, "empty audio", "expected a recording"),
        (lambda path: write_wav(path, 0), "empty audio", "0 samples"),
        (_cut_off, "cut off audio", "8044 bytes are missing"),
        (_no_numbers, "samples that are no numbers", "expected samples that are numbers"),
        (lambda path: path.write_text("你好 " * 99), "no readable audio", "Format not recognised"),
        (lambda path: path.write_text("RIFF not"), "no readable audio", "; it begins like a text"),
        (
            lambda path: path.write_bytes(b"\0\0\0\x20ftypM4A \xff" + bytes(99)),
            "no readable audio",
            "MPEG-4: ffmpeg -i makes a WAV of it",
        ),
        (
            lambda path: path.write_bytes(b"#!AMR\n\xff" + bytes(99)),
            "no readable audio",
            "begins like AMR",
        ),
        (lambda path: path.symlink_to(path), "no readable audio", "symbolic links"),
    ],
)
def test_recordings(tmp_path: Path, make: Callable[[Path], object], rule: str, why: str) -> None:
    make(tmp_path / "bad.wav")
    given = write_lines(tmp_path / "m.jsonl", GOOD, {"source": "bad.wav", "target": "好"})
    check(tmp_path, given, rule, why)


def test_another_ending_is_no_mistake(tmp_path: Path) -> None:
    write_wav(tmp_path / "good.wav")
    (tmp_path / "good.wav").rename(tmp_path / "x.mp3")
    given = write_lines(tmp_path / "m.jsonl", {"source": "x.mp3", "target": "你好"})
    run(tmp_path / "out", given)
    assert len(kept(tmp_path / "out")) == 1


@pytest.mark.parametrize(
    ("source", "rule", "why", "changes"),
    [
        ("/home/nobody/x.wav", "absolute path not on this machine", "--map_path", {}),
        ("D:\\calls\\x.wav", "absolute path not on this machine", "no D:\\ here", {}),
        ("\\\\server\\calls\\x.wav", "absolute path not on this machine", "--map_path", {}),
        ("../x.wav", "outside --root", "expected a path below", {"root": True}),
        ("/etc/passwd", "outside --root", "got '/etc/passwd'", {"root": True}),
        ("sub/../../x.wav", "outside --root", "expected a path below", {"root": True}),
        ("m.jsonl", "manifest instead of audio", "expected a recording", {}),
        ("a\0b.wav", "no readable audio", "null byte", {}),
        ("x" * 300 + ".wav", "no readable audio", "File name too long", {}),
    ],
)
def test_paths(tmp_path: Path, source: str, rule: str, why: str, changes: dict[str, Any]) -> None:
    given = write_lines(tmp_path / "m.jsonl", GOOD, {"source": source, "target": "好"})
    check(tmp_path, given, rule, why, **({"root": tmp_path} if changes else {}))


@pytest.mark.parametrize(
    ("fields", "rule", "why"),
    [
        ({"source": "stereo.wav"}, "stereo without a side", "got 2 channels"),
        ({"source": "stereo.wav", "channel_index": 2}, "no such side", "there are 2"),
        ({"source": "stereo.wav", "channel": "1"}, "stereo without a side", "got 2 channels"),
        (
            {"source": "good.wav", "start_s": 0.5, "end_s": 1.5},
            "span outside the recording",
            "1.00",
        ),
        ({"source": "good.wav", "start_s": 0.5, "end_s": 0.5}, "span outside the recording", ""),
    ],
)
def test_sides_and_spans(tmp_path: Path, fields: dict[str, Any], rule: str, why: str) -> None:
    write_wav(tmp_path / "stereo.wav", channels=2)
    given = write_lines(tmp_path / "m.jsonl", GOOD, {"target": "好", **fields})
    check(tmp_path, given, rule, why)


# Between lines


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


def test_strict_stops_at_a_call_in_two_splits(tmp_path: Path) -> None:
    given = []
    for number, split in enumerate(("train", "valid")):
        write_wav(tmp_path / f"{split}.wav", seed=number)
        line = {"key": split, "source": f"{split}.wav", "target": "好", "call": "c"}
        given.append(Given(write_lines(tmp_path / f"{split}.jsonl", line), split))
    with pytest.raises(DataError, match=r"train.jsonl:1: call in another split: got it also at .*"):
        run(tmp_path / "out", *given, strict=True)


# Files


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.jsonl", None, "m.jsonl: got no such file"),
        ("m.jsonl", b"", "m.jsonl: got a file of 0 bytes, expected lines"),
        ("m.jsonl", "{}".encode("utf-16"), "m.jsonl:1: got UTF-16, expected UTF-8 (iconv"),
        ("m.json", b'[{"source": "a"}]', "m.json:1: got one JSON list"),
        ("m.md", b"some text", "m.md:1: got 'some text', expected a manifest"),
        ("m.txt", b"gone.jsonl", "m.txt:1: got 'gone.jsonl', expected a manifest"),
        ("t.csv", b"wav,text\n", "t.csv:1: source: got the columns wav, text, expected 'source'"),
        ("t.csv", b"source,text\n", "(--column target=COLUMN names it)"),
        ("t.csv", b'"source', "t.csv:1: got a row that ends in a mistake: unexpected end"),
        ("t.csv", b"\xff,a\n", "t.csv:1: got bytes that are not UTF-8 at 0"),
        ("m.jsonl.gz", gzip.compress(b"{}" * 999)[:-20], "m.jsonl.gz: got Compressed file ended"),
    ],
)
def test_files(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        run(tmp_path / "out", tmp_path / name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_directory_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").mkdir()
    with pytest.raises(DataError, match=r"m\.jsonl: got no wav\.scp in it, expected a manifest"):
        run(tmp_path / "out", tmp_path / "m.jsonl")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = write_lines(tmp_path / "m.jsonl", GOOD)

    def refuse(*_: object) -> None:  # root may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(DataError, match=r"m\.jsonl: got \[Errno 13\] Permission denied"):
        run(tmp_path / "out", given)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("all.txt", "list names itself"),
        ("gone.jsonl", "no such manifest"),
        ("other.txt", "no such manifest"),
    ],
)
def test_lists(tmp_path: Path, name: str, rule: str) -> None:
    write_lines(tmp_path / "m.jsonl", GOOD)
    (tmp_path / "other.txt").write_text("m.jsonl\n")
    given = tmp_path / "all.txt"
    given.write_text(f"m.jsonl\n{name}\n")
    check(tmp_path, given, rule, f"got '{name}'")


def test_a_gzipped_manifest_that_swells_does_not_fill_the_memory(tmp_path: Path) -> None:
    bomb = tmp_path / "m.jsonl.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as file:
        file.write(json.dumps(GOOD).encode() + b"\n")
        for _ in range(64):
            file.write(b"a" * 2**20)
    check(tmp_path, bomb, "line too long", "more than 1,048,576 bytes")


# Flags


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "prepare: got nothing to read"),
        (["--wav_scp", "x"], "one of --wav_scp and --text"),
        (["--wav_dir", "x"], "one of --wav_dir and --transcripts"),
        (["--input", "x", "--column", "target"], "--column: got 'target'"),
        (["--input", "x", "--encoding", "utf-16"], "--encoding: got 'utf-16'"),
        (["--input", "x", "--encoding", "no-such"], "--encoding: got 'no-such'"),
        (["--input", "x", "--valid_share", "1"], "--valid_share: got 1.0"),
        (["--input", "x", "--valid_share", "0.5", "--test_share", "0.5"], "below 1 together"),
        (["--input", "x", "--keep", "everything"], "--keep: got 'everything', expected one of"),
        (["--input", "x", "--workers", "0"], "--workers: got 0, expected 1 or more"),
        (["--input", "x", "--min_s", "2", "--max_s", "1"], "--min_s: got 2, expected less than"),
    ],
)
def test_flags(tmp_path: Path, flags: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        main(["prepare", "--output_dir", str(tmp_path / "out"), *flags])
    assert message in str(caught.value)


def test_a_recording_that_turns_out_bad_counts_nowhere(tmp_path: Path) -> None:
    write_wav(tmp_path / "good.wav")
    _no_numbers(tmp_path / "bad.wav")
    bad = {"source": "bad.wav", "target": "好", "speaker": "s", "call": "c"}
    run(tmp_path / "out", write_lines(tmp_path / "m.jsonl", GOOD, bad))
    told = json.loads((tmp_path / "out/prepare.json").read_bytes())
    train = told["splits"]["train"]
    assert (train["utterances"], train["speakers"], train["calls"]) == (1, 0, 0)
