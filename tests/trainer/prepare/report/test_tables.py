"""The data report's tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conf.document.language import Name
from tests.trainer.prepare.report.made import line, write_prepared
from trainer.prepare.report.facts import SCALES, Facts
from trainer.prepare.report.gather import gather
from trainer.prepare.report.tables import (
    QUANTITIES,
    SHOWN_TEXT,
    examples,
    overview,
    sections,
    settings,
)

pytestmark = pytest.mark.quick


def made(tmp_path: Path, left_out: list[dict[str, Any]], **said: Any) -> Facts:
    return gather(write_prepared(tmp_path, {"train": [line("a", "你好 OK")]}, left_out, said))


def test_only_tables_that_have_something_to_say_are_there(tmp_path: Path) -> None:
    names = [section.name for section in sections(made(tmp_path, []))]
    assert names == ["sets", "quantities", "bandwidth", "languages", "characters", "tags"]


def test_how_much_there_is(tmp_path: Path) -> None:
    section = overview(made(tmp_path, []))
    [row] = section.rows
    assert dict(zip((column.name for column in section.columns), row, strict=True)) == {
        "set": "train",
        "utterances": 1,
        "hours": 3.0,  # in seconds, as columns of hours are kept
        "speakers": None,
        "calls": None,
        "characters": 4,
        "words": 3,
    }


def test_an_example_fits_into_its_cell(tmp_path: Path) -> None:
    out = [{"rule": "too long", "place": "f:1", "text": "好\n" * 99, "why": "31 s"}]
    [(rule, why, text, place)] = examples(made(tmp_path, out)).rows
    assert (rule, why, place) == (Name("too long"), "31 s", "f:1")
    assert len(text) == SHOWN_TEXT
    assert text.startswith("好 好")
    assert text.endswith("…")


def test_settings_are_said_on_one_line_each_and_unset_ones_not_at_all(tmp_path: Path) -> None:
    given = [{"path": "a.csv", "split": None}, {"path": "b.csv", "split": "test"}]
    facts = made(tmp_path, [], given=given, valid_share=0.1, root=None, keep=[], spoken=True)
    assert dict(settings(facts).rows) == {
        "given": "path: a.csv, path: b.csv, split: test",
        "valid_share": "0.1",
        "spoken": "true",
    }


def test_every_quantity_has_a_name() -> None:
    assert QUANTITIES.keys() == SCALES.keys()
