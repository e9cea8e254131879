"""Manifests in JSON lines and tables in CSV or TSV, line by line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conf.errors import DataError
from trainer.data.manifest import Malformed, parse_line
from trainer.prepare.lines import Line, Mistake, decoded, from_record, raw_lines, text_lines
from trainer.prepare.settings import Settings

_DELIMITERS = (",", ";", "\t")
MAX_FIELD = 2**17
"""Characters of a table's field; one that is never closed shall not swallow the file."""


def read_jsonl(path: Path, split: str | None, settings: Settings) -> Iterator[Line]:
    """The utterances of a manifest in either form: plain, or FunASR's chat form."""
    for number, raw in raw_lines(path):
        place = f"{path}:{number}"
        if raw is not None and not raw.strip():
            continue
        try:
            # JSON may hold any character, so it is checked before.
            record = parse_line(decoded(raw, settings.encoding).encode())
        except Mistake as error:
            yield Line(place, split=split, mistake=(error.rule, error.why))
        except Malformed as error:
            yield Line(place, split=split, mistake=("malformed line", str(error)))
        else:
            _rename(record, settings)
            yield from_record(record, place, f"{path.stem}-{number}", path.parent, split)


def read_table(path: Path, split: str | None, settings: Settings) -> Iterator[Line]:
    """The utterances of a table whose first line names the columns.

    In ``.tsv`` quotation marks are characters like others, as such files are written.

    Raises:
        DataError: The first line lacks a column.
    """
    rows = _rows(path, settings.encoding)
    _, names = next(rows, (0, None))
    if not isinstance(names, list):
        found = "got nothing" if names is None else names.why
        raise DataError(f"{path}:1: {found}, expected the names of columns")
    names = [name.strip() for name in names]
    theirs = dict(settings.columns)
    for name in ("source", "target"):
        if theirs.get(name, name) not in names:
            raise DataError(
                f"{path}:1: {name}: got the columns {', '.join(names)}, expected "
                f"{theirs.get(name, name)!r} (--column {name}=COLUMN names it)"
            )
    for number, row in rows:
        place = f"{path}:{number}"
        if isinstance(row, Mistake):
            yield Line(place, split=split, mistake=(row.rule, row.why))
        elif len(row) != len(names):
            rule = "missing column" if len(row) < len(names) else "malformed line"
            why = f"got {len(row)} fields, expected {len(names)} ({', '.join(names)})"
            yield Line(place, split=split, mistake=(rule, why))
        else:
            record: dict[str, Any] = dict(zip(names, row, strict=True))
            _rename(record, settings)
            given = {name: value for name, value in record.items() if value != ""}
            given |= {name: record[name] for name in ("source", "target")}
            yield from_record(given, place, f"{path.stem}-{number}", path.parent, split)


def _rename(record: dict[str, Any], settings: Settings) -> None:
    for ours, theirs in settings.columns:
        if theirs in record:
            record[ours] = record.pop(theirs)


def _rows(path: Path, encoding: str) -> Iterator[tuple[int, list[str] | Mistake]]:
    """The number of each row's first line, and its fields."""
    wrong: dict[int, Mistake] = {}

    def lines() -> Iterator[str]:
        for number, text in text_lines(path, encoding):
            if isinstance(text, Mistake):
                wrong[number] = text
                text = ""
            yield text + "\n"

    delimiter = _delimiter(path, encoding)
    # Strict: a quotation that nobody closes is an error, and does not swallow the rest.
    reader = csv.reader(
        lines(),
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,
        strict=True,
    )
    csv.field_size_limit(MAX_FIELD)
    while True:
        first = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            last = reader.line_num
            span = f" (lines {first} to {last})" if last > first else ""
            large = "field larger than field limit" in str(error)
            rule = "line too long" if large else "malformed line"
            yield first, Mistake(rule, f"got a row that ends in a mistake{span}: {error}")
            wrong.clear()
            continue
        if wrong:
            yield first, next(iter(wrong.values()))
            wrong.clear()
        elif row:
            yield first, row


def _delimiter(path: Path, encoding: str) -> str:
    """What parts the columns' names: a comma unless there are more of another."""
    _, head = next(text_lines(path, encoding), (1, ""))
    if isinstance(head, Mistake):
        raise DataError(f"{path}:1: {head.why}, expected the names of columns")
    return max(_DELIMITERS, key=head.count)


def looks_like_a_table(head: str) -> bool:
    """Whether a first line names columns."""
    return any(mark in head for mark in _DELIMITERS)
