"""Tables as facts: a title, typed columns and plain values, whatever they are drawn as.

One form for all who draw them: Markdown, console, CSV, JSON and HTML pages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from conf.document.language import ENGLISH, Language, Said
from conf.document.numbers import NOTHING, ends, hours, number, p_value, points, rate, setting
from conf.writing import format_value

Kind = Literal[
    "text", "value", "count", "number", "hours", "rate", "interval", "points", "span", "p", "mark"
]
"""How a value is printed: a config's value as there, seconds as hours, rates and points
(differences of rates) in percent, an interval as the pair of ends of a rate, a span as those of
a difference, a mark as yes or nothing."""
PAIRS = ("interval", "span")
LEFT = ("text", "value", "mark")
"""Kinds that stand on the left of their column; numbers stand on the right."""

Grid = tuple[list[str], list[list[str]]]
"""Headings, and the cells under them."""


@dataclass(frozen=True)
class Column:
    """A column: its name in every format, and what stands in it."""

    name: str
    kind: Kind = "text"


def columns_of(kind: Kind, *names: str) -> tuple[Column, ...]:
    """Return neighbouring columns of one kind."""
    return tuple(Column(name, kind) for name in names)


@dataclass(frozen=True)
class Section:
    """One table.

    Attributes:
        name: In JSON and on the command line.
        title: Its heading.
        columns: What stands where.
        rows: Values; None where nothing is known; an interval is a pair.
        notes: What a reader must know to read it.
    """

    name: str
    title: Said
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    notes: tuple[Said, ...] = ()


def spaced(name: str) -> str:
    """A column's name as a heading."""
    return name.replace("_", " ")


def show(kind: Kind, value: Any) -> str:
    """A value of a section as a person reads it."""
    if kind == "mark":
        return "yes" if value else ""
    if value is None:
        return NOTHING
    if kind in PAIRS:
        return ends(value, signed=kind == "span")
    shown: Mapping[str, Callable[[Any], str]] = {
        "rate": rate,
        "points": points,
        "p": p_value,
        "number": number,
        "value": setting,
        "hours": hours,
    }
    if kind in shown:
        return shown[kind](value)
    return value if isinstance(value, str) else format_value(value)


def say(kind: Kind, value: Any, words: Language) -> str:
    """A value as `show` gives it, in a language; texts are data, unless they are `Said`."""
    if isinstance(value, Said):
        return words(value)
    text = show(kind, value)
    if kind in PAIRS and value:
        return words(span(text))
    return words(Said(text)) if kind == "mark" and text else text


def span(text: str) -> Said:
    """The ends of an interval, with a word between them."""
    low, _, high = text.partition(" to ")
    return Said("{low} to {high}", low=low, high=high)


def filled(section: Section) -> list[tuple[int, Column]]:
    """The columns in which something stands, each with its index; others say nothing."""
    return [
        (index, column)
        for index, column in enumerate(section.columns)
        if any(row[index] not in (None, "") for row in section.rows)
    ]


def grid_of(
    section: Section, words: Language = ENGLISH, heading: Callable[[str], str] = spaced
) -> Grid:
    """A section's headings, and its values as a person reads them."""
    columns = filled(section)
    headings = [words(Said(heading(column.name))) for _, column in columns]
    rows = [
        [say(column.kind, row[index], words) for index, column in columns] for row in section.rows
    ]
    return headings, rows


def left(section: Section) -> set[int]:
    """Which columns of a section's grid stand on the left."""
    return {index for index, (_, column) in enumerate(filled(section)) if column.kind in LEFT}


def markdown_table(table: Grid, left: set[int]) -> str:
    """A grid in Markdown."""
    headings, rows = table
    rule = [":--" if i in left else "--:" for i in range(len(headings))]
    escaped = [[markdown_text(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [headings, rule, *escaped])


def markdown_text(text: str) -> str:
    """A text as it may stand in a table's cell: on one line, and what looks like HTML as it is."""
    return re.sub(r"<(?=[A-Za-z/!|])", "&lt;", " ".join(text.split("\n"))).replace("|", "\\|")


def markdown_notes(notes: Iterable[Said], words: Language = ENGLISH) -> str:
    """Notes under a table, as a list."""
    return "\n".join(f"- {words(note)}" for note in notes)


def cell(value: Any) -> str:
    """A value in a Markdown table."""
    return f"`{format_value(value)}`".replace("|", "\\|")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    separator = ["---"] * len(head)
    return [f"| {' | '.join(row)} |" for row in (head, separator, *rows)]
