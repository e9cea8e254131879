"""One page of HTML: it stands alone, and text from elsewhere is shown, not obeyed."""

from __future__ import annotations

import base64
import gzip
import json

import pytest

from conf.document.language import CHINESE, ENGLISH, Said
from conf.document.page import packed, page, part, script_words, table
from conf.document.tables import Column, Section

pytestmark = pytest.mark.quick

_SECTION = Section(
    "rules",
    Said("What was left out"),
    (Column("rule"), Column("lines", "count"), Column("unused"), Column("share", "rate")),
    ((Said("too long"), 3, None, 0.25), ("<b>mine</b>", 1, None, None)),
)


def test_a_table_can_be_sorted_by_its_values() -> None:
    made = table(_SECTION, CHINESE, open=True)
    assert '<details id="table-rules" open><summary>被剔除的内容</summary>' in made
    assert '<td class=right data-v="0.25">25.00 %</td>' in made
    assert "unused" not in made, "a column in which nothing stands is left out"


def test_text_from_elsewhere_is_no_markup() -> None:
    assert "&lt;b&gt;mine&lt;/b&gt;" in table(_SECTION, ENGLISH)
    assert "<b>" not in table(_SECTION, ENGLISH)


def test_data_is_packed_in_letters_that_html_allows() -> None:
    data = {"figures": {}, "words": script_words(ENGLISH, {"more": "all"})}
    text = packed(data)
    assert text == packed(data), "the same bytes each time"
    assert json.loads(gzip.decompress(base64.b64decode(text))) == data
    assert data["words"]["more"] == "all"


def test_a_page_stands_alone_in_its_language() -> None:
    said = Said("Contents")
    made = page(
        words=CHINESE,
        title=said,
        skip=("first", said),
        parts=[part("first", "One & two", "<p>text</p>")],
        footer=said,
        noscript=said,
        data=packed({}),
    )
    assert '<html lang="zh"' in made
    assert '<a href="#first">One &amp; two</a>' in made
    assert '<section id="first" aria-labelledby="h-first">' in made
    assert "default-src 'none'" in made
    assert "{{" not in made.split("<script")[0]
