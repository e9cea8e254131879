"""Directories as `prepare` writes them (interface of its manifests), made without it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy
import soundfile

_FULL_SCALE = 0.98


def measured(path: Path) -> dict[str, Any]:
    """What the second pass says of a recording; its bandwidth as 99.9 % of the power."""
    samples, rate_hz = soundfile.read(path, dtype="float64")
    power = numpy.abs(numpy.fft.rfft(samples * numpy.hanning(len(samples)))) ** 2
    reached = numpy.searchsorted(numpy.cumsum(power), 0.999 * power.sum())
    peak = float(numpy.abs(samples).max())
    return {
        "duration_s": len(samples) / rate_hz,
        "sample_rate_hz": rate_hz,
        "bandwidth_hz": round(float(reached) * rate_hz / len(samples)),
        "level_dbfs": round(10 * float(numpy.log10(numpy.mean(samples**2) + 1e-12)), 2),
        "peak_dbfs": round(20 * float(numpy.log10(peak + 1e-6)), 2),
        "clipped": round(float((numpy.abs(samples) >= _FULL_SCALE).mean()), 6),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """A manifest, or what was left out."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def write_prepared(
    directory: Path,
    splits: Mapping[str, Iterable[Mapping[str, Any]]],
    left_out: Iterable[Mapping[str, Any]] = (),
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """A directory with these manifests."""
    directory.mkdir(parents=True, exist_ok=True)
    for split, lines in splits.items():
        write_lines(directory / f"{split}.jsonl", lines)
    write_lines(directory / "left_out.jsonl", left_out)
    (directory / "prepare.json").write_text(json.dumps({"settings": settings or {}}))
    return directory


def of_demo(corpus: Path, directory: Path, *, scanned: bool = True) -> Path:
    """The demonstration's corpus, as if `prepare` had read it."""
    splits = {}
    for name in ("train", "valid", "test"):
        lines = []
        for line in (corpus / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            record["source"] = str(corpus / record["source"])
            found = measured(Path(record["source"]))
            if not scanned:
                found = {key: found[key] for key in ("duration_s", "sample_rate_hz")}
            lines.append({**record, **found})
        splits[name] = lines
    return write_prepared(directory, splits)


def line(key: str, text: str, **values: Any) -> dict[str, Any]:
    """An ordinary utterance; values that are None are left away."""
    record = {
        "key": key,
        "source": f"{key}.wav",
        "target": text,
        "duration_s": 3.0,
        "sample_rate_hz": 8000,
        "domain": "telephone",
        "bandwidth_hz": 3400.0,
        "level_dbfs": -24.0,
        "peak_dbfs": -6.0,
        "clipped": 0.0,
        "sha256": hashlib.sha256(key.encode()).hexdigest(),
        **values,
    }
    return {name: value for name, value in record.items() if value is not None}
