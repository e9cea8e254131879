"""What people have, recognised by its ending or content; what is none of it is named."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from conf.errors import DataError
from tests.trainer.prepare.given import GOOD, corpus, write_lines, write_wav
from tests.trainer.prepare.prepared import check, kept, left_out, run
from trainer.prepare.settings import Given

pytestmark = pytest.mark.quick


def test_a_list_of_manifests(tmp_path: Path) -> None:
    made = corpus(tmp_path, 2)
    write_lines(tmp_path / "one.jsonl", made[0])
    write_lines(tmp_path / "two.jsonl", made[1])
    (tmp_path / "all.txt").write_text("one.jsonl\n\ntwo.jsonl\n")
    run(tmp_path / "out", tmp_path / "all.txt")
    assert sorted(kept(tmp_path / "out")) == ["u0", "u1"]


def test_names_without_text(tmp_path: Path) -> None:
    write_wav(tmp_path / "good.wav")
    (tmp_path / "names").write_text("good: 你好\nno colon here\n", encoding="utf-8")
    run(tmp_path / "out", Given(tmp_path / "names", wav_dir=tmp_path))
    [line] = left_out(tmp_path / "out")
    assert (line["rule"], line["place"]) == ("malformed line", f"{tmp_path}/names:2")


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
        (
            "m.jsonl.gz",
            gzip.compress(b"{}" * 999, mtime=0)[:-20],
            "m.jsonl.gz: got Compressed file ended",
        ),
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
