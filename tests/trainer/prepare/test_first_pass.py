"""What is found of a line before its audio is read: path, header, part and side."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conf.errors import DataError
from tests.conftest import BASE
from tests.trainer.prepare.given import GOOD, corpus, write_lines, write_wav
from tests.trainer.prepare.prepared import check, kept, left_out, lines, run

pytestmark = pytest.mark.quick


# Paths


def test_paths_by_home_root_and_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for number, place in enumerate(("home/a.wav", "root/sub/b.wav", "in/c.wav", "d.wav")):
        write_wav(tmp_path / place, seed=number)
    monkeypatch.chdir(tmp_path)

    def keys(*sources: str, **changes: object) -> list[str]:
        lines = [{"key": s[-5:], "source": s, "target": "好"} for s in sources]
        run(tmp_path / "out", write_lines(tmp_path / "in/m.jsonl", *lines), **changes)
        return sorted(kept(tmp_path / "out"))

    assert keys("~/a.wav", "c.wav", "d.wav") == ["a.wav", "c.wav", "d.wav"]
    assert keys("sub/b.wav", "../d.wav", "c.wav", root=tmp_path / "root") == ["b.wav"]
    rules = [line["rule"] for line in left_out(tmp_path / "out")]
    assert rules == ["outside --root", "no such file"]
    mapped = (("D:\\calls\\", str(tmp_path) + "/"), ("/srv", str(tmp_path / "in")))
    assert keys("D:\\calls\\d.wav", "/srv/c.wav", map_paths=mapped) == ["c.wav", "d.wav"]


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


# Headers


def _cut_off(path: Path) -> None:
    write_wav(path)
    with path.open("rb+") as file:
        file.truncate(8000)


@pytest.mark.parametrize(
    ("make", "rule", "why"),
    [
        (lambda path: None, "no such file", "no such file"),
        (Path.mkdir, "not a file", "a directory"),
        (os.mkfifo, "not a file", "no file"),
        (Path.touch, "empty audio", "expected a recording"),
        (lambda path: write_wav(path, 0), "empty audio", "0 samples"),
        (_cut_off, "cut off audio", "8044 bytes are missing"),
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


# Texts


def test_tokens_are_counted_by_the_models_tokenizer(tmp_path: Path) -> None:
    given = write_lines(tmp_path / "m.jsonl", *corpus(tmp_path, 1))
    run(tmp_path / "out", given, model=BASE)
    [chat] = lines(tmp_path / "out/chat/train.jsonl")
    assert chat["text_length"] == kept(tmp_path / "out")["u0"]["target_len"]
    with pytest.raises(DataError, match="got 0 folders with a tokenizer.json"):
        run(tmp_path / "again", given, model=tmp_path)
