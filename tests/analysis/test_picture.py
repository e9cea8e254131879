"""The picture of the demonstration's trials on the README, drawn from what the store held of them.

`WRITE_GOLDEN=1` draws it again. The runs in `tests/data/demonstration.json` are those of the
README's first command, with the params, tags and metrics that the picture shows.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from analysis.facts.comparison import Comparison, comparison
from analysis.tables.answer import answer
from analysis.tables.formats import PICTURE, svg
from conf.document.language import CHINESE, ENGLISH, Language
from tests.analysis.fakes import START_MS, FakeStore
from tests.conftest import ROOT
from trainer.tracking.mlflow_store import StoredRun

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PICTURE_FILE = ROOT / "docs" / "demo.svg"
PAGE_PX = 900


@pytest.fixture
def demonstration() -> Comparison:
    records: list[dict[str, Any]] = json.loads(
        (ROOT / "tests/data/demonstration.json").read_text(encoding="utf-8")
    )
    parent, *trials = [
        StoredRun(run_id=f"run{number}", started_ms=START_MS, ended_ms=START_MS + 1000, **record)
        for number, record in enumerate(records)
    ]
    return comparison("demo", FakeStore(parent, trials, {}))


def test_the_picture_is_drawn_from_the_demonstrations_runs(demonstration: Comparison) -> None:
    drawn = svg(demonstration)
    if os.environ.get("WRITE_GOLDEN"):
        PICTURE_FILE.write_text(drawn, encoding="utf-8")
    assert PICTURE_FILE.read_text(encoding="utf-8") == drawn


def test_the_picture_has_at_most_eight_columns_and_names_the_best_trial(
    demonstration: Comparison,
) -> None:
    assert len(PICTURE) <= 8
    texts = [text.replace("&#160;", " ") for text in _texts(PICTURE_FILE)]
    assert any(re.search(r" 11 .*8k.*2\.91e-3.*23\.28 %.*25\.48 %", text) for text in texts)
    assert answer(demonstration).startswith(
        "Best of 16 trials (12 completed, 4 pruned): trial 11, 8k, lr 2.91e-3"
    )


@pytest.mark.parametrize(
    ("page", "words"), [("README.md", ENGLISH), ("README_zh.md", CHINESE)], ids=["en", "zh"]
)
def test_the_readme_quotes_the_demonstrations_answer(
    page: str, words: Language, demonstration: Comparison
) -> None:
    """Its rates and the best trial's settings; counts and intervals need the texts as well."""
    text = (ROOT / page).read_text(encoding="utf-8")
    quoted = " ".join(line[2:] for line in text.splitlines() if line.startswith("> "))
    said = answer(demonstration, words)
    rates = re.compile(r"[-+]?\d+\.\d+ %|\d+\.\d+e-\d+|0\.\d{4}")
    assert len(rates.findall(quoted)) > 6
    assert set(rates.findall(quoted)) <= set(rates.findall(said))
    assert quoted.startswith(said.partition("2.91e-3")[0])


def test_the_picture_can_be_read_at_900_pixels(chromium: Browser, tmp_path: Path) -> None:
    """Its letters are then at least 12 pixels high, and no row is cut off."""
    page = chromium.new_page(viewport={"width": PAGE_PX, "height": 800})
    (tmp_path / "page.html").write_text(f"<body style='margin:0'>{PICTURE_FILE.read_text('utf-8')}")
    page.goto((tmp_path / "page.html").as_uri())
    drawn_px, wide_px, letter = page.evaluate(
        "() => { const svg = document.querySelector('svg');"
        " const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;"
        " const text = svg.querySelector('g[class$=matrix] text');"
        " return [svg.getBoundingClientRect().width,"
        "  Math.max(...[...svg.querySelectorAll('text')]"
        "   .map(text => text.getBoundingClientRect().right)),"
        "  parseFloat(getComputedStyle(text).fontSize) * scale]; }"
    )
    page.close()
    assert wide_px <= drawn_px <= PAGE_PX
    assert letter >= 12


def _texts(picture: Path) -> list[str]:
    """The picture's text, a line for each row."""
    rows: dict[str, list[str]] = {}
    for y, text in re.findall(r'<text [^>]*y="([\d.]+)"[^>]*>([^<]*)<', picture.read_text("utf-8")):
        rows.setdefault(y, []).append(text)
    return [" ".join(row) for row in rows.values()]
