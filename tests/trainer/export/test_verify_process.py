"""The fresh process's own look at a run: logged texts, and recordings that are still there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conf.errors import DataError
from trainer.export.verify_process import _logged, _validation_set
from trainer.tracking.event_log import EventLog

pytestmark = pytest.mark.quick


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A fine-tune's directory: one of ten characters wrong."""
    log = EventLog(tmp_path / "run")
    log.log_metrics({"valid/cer": 0.5}, step=1)
    log.log_metrics({"valid/cer": 0.1}, step=2)
    path = log.directory / "hypotheses" / "valid.jsonl"
    path.parent.mkdir()
    lines = [
        {"key": "a", "reference": "一二三四五", "text": "一二三四六"},
        {"key": "b", "reference": "六七八九十", "text": "六七八九十"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return log.directory


def test_the_logged_cer_is_the_last_one_and_that_of_the_texts(run: Path) -> None:
    lines, cer = _logged(run)
    assert (list(lines), cer) == (["a", "b"], 0.1)
    EventLog(run, resume=True).log_metrics({"valid/cer": 0.2}, step=3)
    with pytest.raises(DataError, match=r"got texts of CER 10\.00 %, expected .* logged 20\.00 %"):
        _logged(run)


def test_texts_that_are_gone(run: Path) -> None:
    (run / "hypotheses" / "valid.jsonl").unlink()
    with pytest.raises(DataError, match=r"valid\.jsonl: got no texts of the fine-tune"):
        _logged(run)


def test_a_validation_set_that_is_no_more(run: Path, tmp_path: Path) -> None:
    lines, _ = _logged(run)
    manifest = tmp_path / "valid.jsonl"
    entries: list[dict[str, Any]] = [
        {"key": key, "source": f"{key}.wav", "target": "一"} for key in ("a", "c")
    ]
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    config: Any = {"valid_data_set_list": str(manifest)}
    with pytest.raises(DataError, match=r"valid\.jsonl:1: source: got '.*a\.wav', which is gone"):
        _validation_set(config, lines)
    (tmp_path / "a.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"valid\.jsonl: lacks 1 of 2 utterances scored before"):
        _validation_set(config, lines)
