"""Preparations in this process, and what came of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conf.errors import DataError
from conf.progress import Progress
from tests.trainer.prepare.given import write_wav
from trainer.prepare.job import Prepared, prepare
from trainer.prepare.settings import Given, Settings


def run(output_dir: Path, *given: Path | Given, workers: int = 1, **changes: Any) -> Prepared:
    """Prepares, in this process unless there are workers."""
    inputs = tuple(each if isinstance(each, Given) else Given(each) for each in given)
    settings = replace(Settings(given=inputs), **changes)
    return prepare(settings, output_dir, num_workers=workers, progress=Progress(quiet=True))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def kept(output_dir: Path) -> dict[str, dict[str, Any]]:
    """Utterances of all splits by key, with their ``split``."""
    return {
        line["key"]: {**line, "split": path.stem}
        for path in sorted(output_dir.glob("*.jsonl"))
        if path.stem != "left_out"
        for line in lines(path)
    }


def left_out(output_dir: Path) -> Sequence[dict[str, Any]]:
    return lines(output_dir / "left_out.jsonl")


def check(
    tmp_path: Path, given: Path, rule: str, why: str, *, line: int = 2, **changes: Any
) -> None:
    """One line is good; the other is left out by that rule, and stops a strict preparation."""
    write_wav(tmp_path / "good.wav")
    run(tmp_path / "out", given, **changes)
    assert [each["target"] for each in kept(tmp_path / "out").values()] == ["你好"]
    [found] = left_out(tmp_path / "out")
    assert found["rule"] == rule
    assert found["place"] == f"{given}:{line}"
    assert why in found["why"]
    with pytest.raises(DataError) as caught:
        run(tmp_path / "strict", given, strict=True, **changes)
    assert str(caught.value).startswith(f"{found['place']}: {rule}: ")
    assert "\n" not in str(caught.value)
