"""The benchmark itself: it runs, and what it concludes follows from its figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import VARIANTS, Figure, summarise
from tests.conftest import ROOT


@pytest.mark.quick
def test_a_ratio_is_the_median_of_the_repetitions_ratios() -> None:
    measure, ours = "train 8k, later epochs", VARIANTS["off"]

    def figures(stock: float, here: float) -> list[Figure]:
        # The other measure comes in between: rows of one measure still stand together.
        return [
            Figure(measure, "stock", "ms", stock),
            Figure("memory", "stock", "MB", 800.0),
            Figure(measure, ours, "ms", here),
        ]

    # The second repetition ran while the machine was busy, which fell on both.
    rows = summarise([figures(6.0, 3.0), figures(18.0, 9.0), figures(8.0, 2.0)])
    assert [(row.measure, row.side) for row in rows] == [
        (measure, "stock"),
        (measure, ours),
        ("memory", "stock"),
    ]
    assert rows[0].median == 8.0
    assert rows[0].spread == (6.0, 18.0)
    assert rows[1].times_stock == 2.0
    assert rows[1].reached is True


@pytest.mark.slow
def test_the_quick_benchmark_runs_within_two_minutes(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    finished = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--quick", "--output", str(output)],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    rows = json.loads(output.read_text(encoding="utf-8"))["rows"]
    by_name = {(row["measure"], row["side"]): row for row in rows}
    assert by_name["train 8k, later epochs", "stock"]["median"] > 0
    assert by_name["train 8k, later epochs", VARIANTS["off"]]["times_stock"] > 1
    assert by_name["recordings decoded and scored, cached", "ours"]["times_stock"] > 3
    assert by_name["texts equal to stock's", "ours"]["median"] >= 99
    assert "later epochs" in finished.stdout
