"""Small inputs of `trainer prepare`, and what came of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import soundfile

from conf.errors import DataError
from trainer.prepare.job import Prepared, prepare
from trainer.prepare.progress import Progress
from trainer.prepare.settings import Given, Settings

GOOD = {"key": "good", "source": "good.wav", "target": "你好"}
"""A line of a manifest; `check` makes its recording."""


def write_wav(
    path: Path,
    duration_s: float = 1.0,
    rate_hz: int = 8000,
    channels: int = 1,
    seed: int | None = 0,
) -> Path:
    """Noise, another one for each seed; without one silence."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (round(rate_hz * duration_s), channels)
    if seed is None:
        samples = numpy.zeros(shape)
    else:
        samples = numpy.random.default_rng(seed).uniform(-0.5, 0.5, shape)
    soundfile.write(path, samples, rate_hz)
    return path


def write_lines(path: Path, *lines: Any) -> Path:
    """JSON lines; a text is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = (each if isinstance(each, str) else json.dumps(each) for each in lines)
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def corpus(directory: Path, count: int, **fields: Any) -> list[dict[str, Any]]:
    """That many utterances, each with a recording of its own."""
    return [
        {
            "key": f"u{number}",
            "source": str(write_wav(directory / "wav" / f"u{number}.wav", seed=number)),
            "target": f"第{number}句话",
            **{name: value(number) for name, value in fields.items()},
        }
        for number in range(count)
    ]


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


def write_no_numbers(path: Path) -> None:
    """A recording whose header says nothing against it."""
    soundfile.write(path, numpy.full(8000, numpy.nan), 8000, subtype="FLOAT")


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
