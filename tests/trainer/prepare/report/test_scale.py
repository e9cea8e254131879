"""Very many lines: time in proportion, memory hardly any."""

from __future__ import annotations

import pytest

from tests.benchmarks.data_report import measure


@pytest.mark.slow
def test_a_million_lines() -> None:
    few, many = measure(100_000), measure(1_000_000)
    assert many["files"] == 4
    # The processor's seconds: other work may share the machine.
    assert many["cpu_seconds"] < 60
    # Ten times the lines; what grew with their square would take a hundred times as long.
    assert many["cpu_seconds"] < 30 * few["cpu_seconds"]
    # Eight bytes a line for texts and eight for audio, and the names of 50,000 calls.
    assert many["above_baseline_mb"] - few["above_baseline_mb"] < 60
