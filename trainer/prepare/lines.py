"""One line of any input, and texts read line by line however they were damaged."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from conf.errors import DataError
from trainer.data.manifest import BOM, CALL_KEYS, Malformed, fields_of, one_line

MAX_LINE_BYTES = 2**20
"""No transcript is longer; a file without line ends shall not fill the memory."""
_SIDES = {"a": 0, "left": 0, "l": 0, "1": 0, "b": 1, "right": 1, "r": 1, "2": 1}
_OURS = ("key", "source", "target", "messages", "speaker", "speaker_id", *CALL_KEYS)
_WHERE = ("side", "channel_index", "start_s", "end_s")
_COMPUTED = (
    *("source_len", "target_len", "speech_length", "text_length", "duration_s", "sample_rate_hz"),
    *("bandwidth_hz", "level_dbfs", "peak_dbfs", "clipped", "sha256"),
)
_NOT_KEPT = frozenset((*_OURS, *_WHERE, *_COMPUTED))


@dataclass(frozen=True, slots=True)
class Line:
    """What a line of the input says, or what is wrong with it.

    Attributes:
        place: ``FILE:LINE``.
        key: The utterance's name; "" if the line has none that can be read.
        source: The recording, as it is written there.
        text: What is said, as it is written there.
        directory: Where relative paths are looked for first.
        split: One of `SPLITS` where the input is one.
        speaker: Who speaks.
        call: Of which call it is a part.
        side: Channel of the recording, from 0.
        span_s: Begin and end in the recording; an end of infinity is the recording's.
        fields: What else is known; goes into the manifest.
        mistake: Rule and reason, if the line cannot be used.
    """

    place: str
    key: str = ""
    source: str = ""
    text: str = ""
    directory: str = ""
    split: str | None = None
    speaker: str | None = None
    call: str | None = None
    side: int | None = None
    span_s: tuple[float, float] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    mistake: tuple[str, str] | None = None


class Mistake(ValueError):
    """A line that cannot be used: the rule that leaves it out, and why."""

    def __init__(self, rule: str, why: str) -> None:
        self.rule, self.why = rule, why
        super().__init__(why)


def from_record(
    record: dict[str, Any], place: str, default_key: str, directory: Path, split: str | None
) -> Line:
    """The line that a JSON object or a row of a table makes.

    Args:
        record: By our names; ``side`` or ``channel_index`` names a channel of the recording,
            ``start_s`` and ``end_s`` a part.
        place: ``FILE:LINE``.
        default_key: Where it has none.
        directory: Of the file.
        split: Of the file.
    """
    key = str(record.get("key") or default_key)
    try:
        found, source, target = fields_of(record)
        key = found or default_key
        side, span_s = _side(record), _span(record)
    except Malformed as error:
        rule = "malformed line" if "messages" in record else "missing column"
        return Line(place, key, mistake=(rule, str(error)), split=split)
    except Mistake as error:
        mistake = error.rule, error.why
        return Line(place, key, source, target, mistake=mistake, split=split)
    call = next((str(record[name]) for name in CALL_KEYS if _is_named(record, name)), None)
    if call is None and (side is not None or span_s is not None):
        call = source  # the other side and the other parts are of the same call
    names = (name for name in ("speaker_id", "speaker") if _is_named(record, name))
    speaker = next((str(record[name]) for name in names), None)
    others = {
        name: value
        for name, value in record.items()
        if name not in _NOT_KEPT and not (name == "channel" and _is_side(value))
    }
    return Line(
        place, key, source, target, str(directory), split, speaker, call, side, span_s, others
    )


def side_of(name: str) -> int:
    """The channel, from 0, of A, B, left, right, 1 or 2.

    Raises:
        Mistake: It is called otherwise.
    """
    try:
        return _SIDES[name.strip().lower()]
    except KeyError:
        raise Mistake(
            "no such side",
            f"side: got {name!r}, expected A, B, left, right, 1 or 2 (channel_index counts from 0)",
        ) from None


def seconds(name: str, value: object) -> float:
    """A time in a recording.

    Raises:
        Mistake: It is no number, or negative.
    """
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < float("inf"):
        raise Mistake("malformed line", f"{name}: got {value!r}, expected seconds")
    return number


def placed_lines(path: Path) -> Iterator[tuple[int, int, bytes | None]]:
    """Number, first byte and bytes of each line, without its end; None for one that is too long.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with open_bytes(path) as file:
            number = start = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                size = len(line)
                if size <= MAX_LINE_BYTES or line.endswith(b"\n"):
                    mark = len(BOM) if number == 1 and line.startswith(BOM) else 0
                    yield number, start + mark, line[mark:].rstrip(b"\r\n")
                else:
                    while line and not line.endswith(b"\n"):
                        line = file.readline(MAX_LINE_BYTES)
                        size += len(line)
                    yield number, start, None
                start += size
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: got {one_line(error)}, expected a readable file") from error


def raw_lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """The number and bytes of each line, as `placed_lines`."""
    return ((number, raw) for number, _, raw in placed_lines(path))


def text_lines(path: Path, encoding: str) -> Iterator[tuple[int, str | Mistake]]:
    """The number and text of each line, or what is wrong with it."""
    for number, raw in raw_lines(path):
        try:
            yield number, decoded(raw, encoding)
        except Mistake as mistake:
            yield number, mistake


def decoded(raw: bytes | None, encoding: str) -> str:
    """The text of a line of `raw_lines`.

    Raises:
        Mistake: It is too long, or in another encoding.
    """
    if raw is None:
        raise Mistake("line too long", f"got more than {MAX_LINE_BYTES:,} bytes without an end")
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            why = f"got bytes that are not {encoding} at {error.start}"
            raise Mistake("not UTF-8", why) from None
        why = f"got bytes that are not UTF-8 at {error.start}{_hint(raw)}"
        raise Mistake("not UTF-8", why) from None


def open_bytes(path: Path) -> BinaryIO | gzip.GzipFile:
    """The file's bytes, also of a gzipped one.

    Raises:
        DataError: It is not there, is no file, is empty, or is in UTF-16.
        OSError: It cannot be read.
    """
    if path.is_dir():
        raise DataError(f"{path}: got a directory, expected a file")
    if not path.is_file():
        raise DataError(f"{path}: got no such file, expected a file to read")
    if os.path.getsize(path) == 0:
        raise DataError(f"{path}: got a file of 0 bytes, expected lines")
    with path.open("rb") as file:
        start = file.read(2)
    if start in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path}:1: got UTF-16, expected UTF-8 (iconv -f UTF-16 -t UTF-8)")
    return gzip.open(path, "rb") if start == b"\x1f\x8b" else path.open("rb")


def _hint(raw: bytes) -> str:
    try:
        text = raw.decode("gb18030")
    except UnicodeDecodeError:
        return ""
    sample = next((char for char in text if "\u4e00" <= char <= "\u9fff"), "")
    return "; as GB18030 it is readable (--encoding gb18030)" if sample else ""


def _side(record: Mapping[str, Any]) -> int | None:
    if _is_named(record, "channel_index"):
        index = record["channel_index"]
        if str(index).isascii() and str(index).isdigit():
            return int(index)
        raise Mistake("no such side", f"channel_index: got {index!r}, expected 0 or 1")
    if _is_named(record, "side"):
        return side_of(str(record["side"]))
    channel = record.get("channel")
    return side_of(channel) if _is_side(channel) else None


def _is_side(channel: Any) -> TypeGuard[str]:
    """In corpora of calls a channel is a side; in ours it is what a call went through."""
    return isinstance(channel, str) and channel.lower() in ("a", "b", "left", "right")


def _span(record: Mapping[str, Any]) -> tuple[float, float] | None:
    if not (_is_named(record, "start_s") or _is_named(record, "end_s")):
        return None
    start_s = seconds("start_s", record.get("start_s") or 0)
    end = record.get("end_s")
    return start_s, float("inf") if end in (None, "") else seconds("end_s", end)


def _is_named(record: Mapping[str, Any], name: str) -> bool:
    return record.get(name) not in (None, "")
