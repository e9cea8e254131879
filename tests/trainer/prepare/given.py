"""Small recordings and manifests, as they are given to `trainer prepare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import soundfile

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


def write_no_numbers(path: Path) -> None:
    """A recording whose header says nothing against it."""
    soundfile.write(path, numpy.full(8000, numpy.nan), 8000, subtype="FLOAT")


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
