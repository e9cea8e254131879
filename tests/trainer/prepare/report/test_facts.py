"""What a data report says, as records."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.prepare.report.made import line, write_prepared
from trainer.prepare.report.gather import gather

pytestmark = pytest.mark.quick


def test_splits_are_found_by_name_and_lines_are_summed(tmp_path: Path) -> None:
    out = [
        {"rule": rule, "place": "f:1", "text": "x", "why": ""}
        for rule in ("too long", "too long", "no such file")
    ]
    write_prepared(tmp_path, {"train": [line("a", "好")], "valid": [line("b", "好")]}, out)
    facts = gather(tmp_path)
    valid = facts.split("valid")
    assert valid is not None
    assert valid.name == "valid"
    assert facts.split("test") is None
    assert facts.left_out_lines == 3


def test_a_quantity_that_no_line_has_is_missing(tmp_path: Path) -> None:
    made = [line("a", "好", duration_s=2.0), line("b", "好", duration_s=None, snr_db=None)]
    write_prepared(tmp_path, {"train": made, "valid": [line("c", "好", duration_s=None)]})
    train, valid = gather(tmp_path).splits
    duration_s = train.spread("duration_s")
    assert duration_s is not None
    assert (duration_s.count, train.seconds) == (1, 2.0)
    assert train.spread("snr_db") is None
    assert (valid.spread("duration_s"), valid.seconds) == (None, 0.0)
