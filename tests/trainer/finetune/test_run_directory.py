"""The end of a fine-tune, as its result file has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.finetune.run_directory import RESULT, read_result

pytestmark = pytest.mark.quick


def test_a_fine_tune_without_a_result_has_not_ended(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None
    assert read_result(tmp_path / "nowhere") is None


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    result = {"identity": {"init.sha256": "ab"}, "epochs": 2, "run": {"kept": [["一", 1, 0.2]]}}
    (tmp_path / RESULT).write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")
    assert read_result(tmp_path) == result
