"""Judging what a written model says anew; the decoding itself is in tests/end_to_end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conf.errors import DataError, WorkError
from trainer.export import verify as module
from trainer.export.verify import Verification, verify

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
    Done.returncode, Done.stderr = 2, "Notice\nverify_process: valid.jsonl: is gone\n"
    with pytest.raises(DataError, match=r"^valid\.jsonl: is gone$"):
        verify(tmp_path / "model", tmp_path / "run")
    Done.returncode, Done.stderr = 1, "Traceback\nRuntimeError: no weights\n"
    with pytest.raises(WorkError, match=r"failed to load or decode it anew \(RuntimeError: no "):
        verify(tmp_path / "model", tmp_path / "run")


def test_what_the_fresh_process_refuses_is_told_in_its_own_words(tmp_path: Path) -> None:
    config = tmp_path / "run" / "config.yaml"
    with pytest.raises(DataError) as refused:
        verify(tmp_path / "model", tmp_path / "run")
    assert str(refused.value).startswith(f"{config}: ")
