"""A comparison for the console, as Markdown, CSV, JSON and as the README's picture.

`WRITE_GOLDEN=1` writes the golden files again, and draws the picture again. The picture's runs, in
`tests/data/demonstration.json`, are those of the README's first command.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from analysis.facts.comparison import Comparison, comparison
from analysis.tables.answer import answer
from analysis.tables.formats import PICTURE, Rendering, csv_text, json_text, markdown, svg
from conf.errors import UserError
from tests.analysis.fakes import stored_trial
from tests.conftest import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PICTURE_FILE = ROOT / "docs" / "demo.svg"
PAGE_PX = 900


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


def drawn(facts, width):
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(Rendering(facts))
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


@pytest.mark.quick
@pytest.mark.parametrize("form", ["md", "csv", "json"])
def test_files_are_as_committed(demo_store, golden, form):
    facts = comparison("demo", demo_store)
    text = {"md": markdown, "csv": csv_text, "json": json_text}[form](facts)
    golden(f"comparison.{form}", text)


@pytest.mark.quick
def test_console_table_is_as_committed(demo_store, golden):
    golden("comparison.txt", drawn(comparison("demo", demo_store), 200))


@pytest.mark.quick
def test_narrow_console_leaves_out_columns_and_says_so(demo_store):
    text = drawn(comparison("demo", demo_store), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "Left out for want of room:" in text
    assert "1.23e-3" in text
    assert "8.00 %" in text


@pytest.mark.quick
def test_csv_numbers_are_numbers_and_fractions(demo_store):
    first = next(csv.DictReader(io.StringIO(csv_text(comparison("demo", demo_store)))))
    assert float(first["objective"]) == 0.08
    assert float(first["optim_conf.lr"]) == 1.234e-3
    assert json.loads(json_text(comparison("demo", demo_store)))["best_trial"] == 3


@pytest.mark.quick
def test_a_sweep_without_a_completed_trial_renders(make_store):
    facts = comparison("demo", make_store([stored_trial(0, "8k", 1e-3, "failed")]))
    assert "failed" in drawn(facts, 120)
    assert json.loads(json_text(facts))["best_trial"] is None


@pytest.mark.quick
def test_empty_sweep_renders(make_store):
    facts = comparison("demo", make_store([]))
    assert "no trials" in drawn(facts, 80)
    assert markdown(facts).startswith("# Sweep demo")
    assert len(csv_text(facts).splitlines()) == 1


@pytest.mark.quick
def test_table_path_loads_nothing_heavy():
    code = (
        "import sys, analysis.facts.comparison, analysis.tables.formats, analysis.__main__\n"
        "heavy = {'torch', 'ray', 'mlflow', 'funasr', 'optuna', 'transformers', 'scipy.stats'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.quick
def test_the_picture_names_no_host(demo_store):
    picture = svg(comparison("demo", demo_store))
    assert picture.startswith("<svg")
    assert "font-face" not in picture
    assert picture.count("http") == picture.count("http://www.w3.org/2000/svg") == 1


@pytest.mark.quick
def test_csv_of_a_section_has_numbers(scored_store):
    facts = comparison("demo", scored_store)
    first = next(csv.DictReader(io.StringIO(csv_text(facts, "finalists"))))
    assert float(first["over_baseline_low"]) < float(first["over_baseline"]) < 0
    with pytest.raises(UserError, match=r"--table: got 'none', expected one of .*finalists"):
        csv_text(facts, "none")
    document = json.loads(json_text(facts))
    assert document["tables"]["finalists"][0]["over_baseline_high"] < 0
    assert document["sets"]["valid"]["by"] == "speaker"


@pytest.mark.quick
@pytest.mark.parametrize("width", [80, 120, 220])
def test_console_never_cuts_a_cell(scored_store, width):
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(Rendering(comparison("demo", scored_store)))
    text = console.file.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
