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


@pytest.mark.parametrize(
    ("cer", "interval", "logged_interval", "passed"),
    [
        (0.26, (0.22, 0.31), (0.21, 0.30), True),
        (0.31, (0.26, 0.37), (0.21, 0.30), False),
        (0.29, (0.26, 0.33), (0.21, 0.30), False),  # the logged CER is outside
        (0.2504, None, None, True),
        (0.26, None, None, False),
    ],
)
def test_with_an_llm_in_16_bits_cers_are_compared_and_not_texts(
    cer: float,
    interval: tuple[float, float] | None,
    logged_interval: tuple[float, float] | None,
    passed: bool,
) -> None:
    result = Verification(
        "stock FunASR",
        120,
        90,
        cer,
        0.25,
        "bf16",
        interval=interval,
        logged_interval=logged_interval,
    )
    assert result.passed is passed
    assert "CERs are compared and not texts" in str(result)


def test_both_cers_are_shown_with_their_intervals() -> None:
    result = Verification("stock FunASR", 9, 3, 0.26, 0.25, "bf16", (0.22, 0.31), (0.21, 0.3))
    assert str(result).startswith(
        "stock FunASR gives 3 of 9 logged texts, CER 26.00 % (95 % interval 22.00 % to 31.00 %), "
        "logged 25.00 % (95 % interval 21.00 % to 30.00 %); the LLM is in bf16, "
    )


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
