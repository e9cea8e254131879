"""Manifests in JSON lines and tables in CSV or TSV."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.prepare.given import write_lines, write_wav
from tests.trainer.prepare.prepared import check, kept, left_out, run
from trainer.data.manifest import chat_line

pytestmark = pytest.mark.quick


def test_funasrs_chat_form(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav")
    line = chat_line("k", "a.wav", "你好", num_frames=1, num_tokens=1)
    run(tmp_path / "out", write_lines(tmp_path / "m.jsonl", {**line, "speaker_id": "s"}))
    found = kept(tmp_path / "out")["k"]
    assert (found["target"], found["source_len"], found["speaker_id"]) == ("你好", 100, "s")
    assert "messages" not in found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'file,说话人,text\na.wav,张,"你好, 世界"\n'),
        ("a.csv", '\ufefffile;说话人;text\r\na.wav;张;"你好, 世界"\r\n'),
        ("a.tsv", "file\t说话人\ttext\na.wav\t张\t你好, 世界\n"),
        ("a.txt", 'file,说话人,text\na.wav,张,"你好, 世界"\n'),
    ],
)
def test_tables_by_the_names_of_their_columns(tmp_path: Path, name: str, text: str) -> None:
    write_wav(tmp_path / "a.wav")
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    columns = (("source", "file"), ("target", "text"), ("speaker", "说话人"))
    run(tmp_path / "out", tmp_path / name, columns=columns)
    [(key, line)] = kept(tmp_path / "out").items()
    assert (key, line["target"], line["speaker_id"]) == ("a-2", "你好, 世界", "张")


def test_a_row_over_several_lines(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav")
    text = 'key,source,target\nk1,a.wav,"one\ntwo"\nk2,a.wav,\n'
    (tmp_path / "a.csv").write_text(text)
    run(tmp_path / "out", tmp_path / "a.csv")
    assert kept(tmp_path / "out")["k1"]["target"] == "one two"
    assert [line["place"] for line in left_out(tmp_path / "out")] == [f"{tmp_path}/a.csv:4"]


def test_texts_in_another_encoding(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav")
    (tmp_path / "a.csv").write_text("source,target\na.wav,你好\n", encoding="gb18030")
    run(tmp_path / "out", tmp_path / "a.csv", encoding="gb18030")
    assert [line["target"] for line in kept(tmp_path / "out").values()] == ["你好"]


@pytest.mark.parametrize(
    ("row", "rule", "why"),
    [
        (b"x.wav", "missing column", "got 1 fields, expected 2 (source, target)"),
        (b"x.wav," + "你".encode("gb18030"), "not UTF-8", "not UTF-8 at 6"),
        (b"x.wav,one,two", "malformed line", "got 3 fields"),
        (b'x.wav,"open', "malformed line", "unexpected end of data"),
        (b'x.wav,"one"two', "malformed line", "expected after"),
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
