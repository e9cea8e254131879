"""The parts that all documents are made of: typed tables, words, a page."""

from __future__ import annotations

import pytest

from conf.document.language import CHINESE, ENGLISH, Name, Said
from conf.document.page import table
from conf.document.tables import Column, Section, grid_of, left, markdown_table, markdown_text, say

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
    page = table(_SECTION, CHINESE, open=True)
    assert '<details id="table-rules" open><summary>被剔除的内容</summary>' in page
    assert '<td class=right data-v="0.25">25.00 %</td>' in page


def test_markdown_shows_what_stands_there() -> None:
    assert markdown_text("a|b\n<ERR> < 0.001 </i> <!-- x") == (
        "a\\|b &lt;ERR> < 0.001 &lt;/i> &lt;!-- x"
    )
    assert markdown_table((["a", "b"], [["<x>", "1"]]), {0}) == (
        "| a | b |\n| :-- | --: |\n| &lt;x> | 1 |"
    )


def test_values() -> None:
    assert say("mark", True, CHINESE) == "是"
    assert say("interval", (0.1, 0.2), CHINESE) == "10.00 至 20.00"
    assert say("text", Said("yes"), ENGLISH) == "yes"
