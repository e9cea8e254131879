"""A speaker or a codec that a spreadsheet would take for a formula."""

from __future__ import annotations

import csv
import io

import pytest

from analysis.tables.formats import _csv_cell

pytestmark = [pytest.mark.quick, pytest.mark.attack]


@pytest.mark.parametrize(
    "text",
    [
        '=HYPERLINK("http://evil","x")',
        "@SUM(A1)",
        "+1+cmd|' /C calc'!A0",
        "-2+3",
        "\t=1",
        "\r=1",
        "-",
    ],
)
def test_a_formula_becomes_a_text(text: str) -> None:
    out = io.StringIO()
    csv.writer(out).writerow([_csv_cell(text), _csv_cell([text, "b"])])
    assert list(csv.reader(io.StringIO(out.getvalue(), newline=""))) == [[f"'{text}", f"'{text} b"]]


@pytest.mark.parametrize("value", [-0.5, 3, None, "-0.5", "+1e-3", "-12", "ULAW", "a=b", "你好"])
def test_numbers_and_other_texts_stay(value: object) -> None:
    assert _csv_cell(value) == value
