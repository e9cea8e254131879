"""Judging what a written model says anew; the decoding itself is in tests/end_to_end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conf.errors import DataError, WorkError
from trainer.export import verify as module
from trainer.export.verify import Verification, verify
from trainer.export.verify_process import _logged, _validation_set
from trainer.tracking.event_log import EventLog

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("equal", "cer", "passed"),
    [
        (120, 0.25, True),
        (119, 0.25, True),  # another text with as many errors
        (119, 0.251, False),
        (118, 0.25, False),
        (120, 0.2504, True),
        (120, 0.2506, False),
    ],
)
def test_texts_and_cer_must_be_the_logged_ones(equal: int, cer: float, passed: bool) -> None:
    result = Verification("stock FunASR", 120, equal, cer, 0.25)
    assert result.passed is passed


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


def test_the_fresh_process_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        returncode, stderr = 0, ""
        stdout = json.dumps(
            [vars(Verification("stock FunASR", 9, 9, 0.1, 0.1))]
            + [vars(Verification("MLflow pyfunc", 9, 3, 0.4, 0.1))]
        )

    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: Done)
    with pytest.raises(WorkError, match=r"MLflow pyfunc gives 3 of 9 logged texts, CER 40\.00 %"):
        verify(tmp_path / "model", tmp_path / "run", tmp_path / "served")
    Done.returncode, Done.stderr = 2, "Notice\nreload: valid.jsonl: is gone\n"
    with pytest.raises(DataError, match=r"^valid\.jsonl: is gone$"):
        verify(tmp_path / "model", tmp_path / "run")
    Done.returncode, Done.stderr = 1, "Traceback\nRuntimeError: no weights\n"
    with pytest.raises(WorkError, match=r"failed to load or decode it anew \(RuntimeError: no "):
        verify(tmp_path / "model", tmp_path / "run")
