"""Tables as facts, and the same table in Markdown and in words of a language."""

from __future__ import annotations

import pytest

from conf.document import tables
from conf.document.language import CHINESE, ENGLISH, Name, Said
from conf.document.tables import Column, Kind, Section, grid_of, left, say, show

pytestmark = pytest.mark.quick

_SECTION = Section(
    "rules",
    Said("What was left out"),
    (Column("rule"), Column("lines", "count"), Column("unused"), Column("share", "rate")),
    ((Name("too long"), 3, None, 0.25), (Name("{mine}"), 1, None, None)),
)


def test_a_section_in_both_languages() -> None:
    assert grid_of(_SECTION) == (
        ["rule", "lines", "share"],
        [["too long", "3", "25.00 %"], ["{mine}", "1", "-"]],
    )
    assert grid_of(_SECTION, CHINESE) == (
        ["规则", "行数", "占比"],
        [["太长", "3", "25.00 %"], ["{mine}", "1", "-"]],
    )
    assert left(_SECTION) == {0}


def test_markdown_shows_what_stands_there() -> None:
    assert tables.markdown_text("a|b\n<ERR> < 0.001 </i> <!-- x") == (
        "a\\|b &lt;ERR> < 0.001 &lt;/i> &lt;!-- x"
    )
    assert tables.markdown_table((["a", "b"], [["<x>", "1"]]), {0}) == (
        "| a | b |\n| :-- | --: |\n| &lt;x> | 1 |"
    )


def test_values() -> None:
    assert say("mark", True, CHINESE) == "是"
    assert say("interval", (0.1, 0.2), CHINESE) == "10.00 至 20.00"
    assert say("text", Said("yes"), ENGLISH) == "yes"


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("rate", 0.08246, "8.25 %"),
        ("points", -0.0125, "-1.25"),
        ("span", (-0.01, 0.02), "-1.00 to +2.00"),
        ("hours", 5400, "1.50"),
        ("value", 5e-5, "5e-5"),
        ("count", 12, "12"),
        ("mark", False, ""),
        ("rate", None, "-"),
    ],
)
def test_a_kind_says_how_a_value_is_printed(kind: Kind, value: object, text: str) -> None:
    assert show(kind, value) == text


def test_notes_are_a_list() -> None:
    assert tables.markdown_notes([Said("yes"), Said("all")], CHINESE) == "- 是\n- 全部"
