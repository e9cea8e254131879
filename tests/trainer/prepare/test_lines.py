"""One line of any input: what it says, or what is wrong with it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.prepare.given import GOOD, write_wav
from tests.trainer.prepare.prepared import check, kept, run
from trainer.prepare.lines import from_record

pytestmark = pytest.mark.quick


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


def test_a_gzipped_manifest_that_swells_does_not_fill_the_memory(tmp_path: Path) -> None:
    bomb = tmp_path / "m.jsonl.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as file:
        file.write(json.dumps(GOOD).encode() + b"\n")
        for _ in range(64):
            file.write(b"a" * 2**20)
    check(tmp_path, bomb, "line too long", "more than 1,048,576 bytes")


@pytest.mark.parametrize(
    ("fields", "side", "span_s", "call"),
    [
        ({}, None, None, None),
        ({"side": "B"}, 1, None, "x.wav"),
        ({"channel": "left"}, 0, None, "x.wav"),
        ({"channel": "gsm"}, None, None, None),
        ({"channel_index": 3}, 3, None, "x.wav"),
        ({"start_s": 1}, None, (1.0, float("inf")), "x.wav"),
        ({"end_s": "2.5"}, None, (0.0, 2.5), "x.wav"),
        ({"side": "A", "call": "c7"}, 0, None, "c7"),
    ],
    ids=str,
)
def test_where_an_utterance_is_in_its_recording(
    fields: dict[str, Any],
    side: int | None,
    span_s: tuple[float, float] | None,
    call: str | None,
) -> None:
    """Sides and parts of one recording are of one call, also where that is not named."""
    record = {"source": "x.wav", "target": "好", **fields}
    line = from_record(record, "m.jsonl:1", "m-1", Path("/d"), None)
    assert line.mistake is None
    assert (line.key, line.side, line.span_s, line.call) == ("m-1", side, span_s, call)


def test_what_nobody_knows_goes_into_the_manifest_and_what_is_measured_does_not() -> None:
    record = {"source": "x.wav", "target": "好", "age": 30, "channel": "gsm", "duration_s": 9.0}
    line = from_record(record, "m.jsonl:1", "m-1", Path("/d"), None)
    assert line.fields == {"age": 30, "channel": "gsm"}
