"""The second pass: the audio itself. Parts and sides are cut out, and all is measured."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import numpy.typing
import soundfile

from conf.files import replacing
from trainer.data.audio import SILENCE, bandwidth_hz
from trainer.data.manifest import file_name, one_line
from trainer.prepare import passes
from trainer.prepare.lines import Mistake
from trainer.prepare.settings import SPLITS
from trainer.prepare.split import LEFT_OUT

Samples = numpy.typing.NDArray[numpy.float32]

FULL_SCALE = 0.98
"""At and above it a sample is clipped: G.711's largest values are 0.980 (mu-law) and 0.984."""
_QUIETEST_DBFS = -120.0


@dataclass(frozen=True)
class Part:
    """A batch of the first pass, to be read.

    Attributes:
        records: Where they are kept.
        splits: Of each of its lines.
        audio_dir: Gets what is cut out.
        measure: Read all; else only what has to be cut.
        keep: Rules that leave nothing out.
    """

    records: Path
    splits: tuple[int, ...]
    audio_dir: Path
    measure: bool
    keep: tuple[str, ...]


def read_part(part: Part) -> passes.Records:
    """For each line what its audio shows: measures, or ``rule`` and ``why``; {} if not read."""
    records = passes.read(part.records)
    assert records is not None
    return [
        {}
        if split == LEFT_OUT or not (part.measure or "cut" in record)
        else _read(record, part, SPLITS[split])
        for record, split in zip(records, part.splits, strict=True)
    ]


def measure(samples: Samples, rate_hz: int) -> dict[str, Any]:
    """Level, clipping, real bandwidth and content of mono samples in [-1, 1]."""
    magnitude = numpy.abs(samples)
    rms = math.sqrt(float(numpy.mean(numpy.square(samples, dtype=numpy.float64))))
    digest = hashlib.sha256(f"{rate_hz}:".encode())
    digest.update(numpy.ascontiguousarray(samples, dtype="<f4").tobytes())
    return {
        "bandwidth_hz": bandwidth_hz(samples, rate_hz),
        "level_dbfs": _decibel(rms),
        "peak_dbfs": _decibel(float(magnitude.max())),
        "clipped": round(float(numpy.mean(magnitude >= FULL_SCALE)), 6),
        "sha256": digest.hexdigest(),
    }


def _read(record: dict[str, Any], part: Part, split: str) -> dict[str, Any]:
    try:
        samples = _samples(record)
        if "no sound" not in part.keep and float(numpy.abs(samples).max()) < SILENCE:
            raise Mistake("no sound", f"source: got {record['path']!r}, in which all is silent")
    except Mistake as error:
        return {"rule": error.rule, "why": error.why}
    found = measure(samples, record["rate_hz"]) if part.measure else {}
    if "cut" in record:
        path = part.audio_dir / split / file_name(record["key"])
        with replacing(path) as partial:
            soundfile.write(partial, samples, record["rate_hz"], format="WAV", subtype="PCM_16")
        found["path"] = str(path)
    return found


def _samples(record: dict[str, Any]) -> Samples:
    """The utterance's own samples, mono.

    Raises:
        Mistake: They cannot be read, or are no numbers.
    """
    path = record["path"]
    first, last, side = record.get("cut", (0, record["samples"], None))
    try:
        with soundfile.SoundFile(path) as file:
            if first:
                file.seek(first)
            samples: Samples = file.read(last - first, dtype="float32", always_2d=True)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        why = f"source: got {path!r} ({one_line(error)}), expected a recording"
        raise Mistake("no readable audio", why) from None
    if len(samples) < last - first:
        why = f"source: got {len(samples)} samples of {path!r}, expected {last - first}"
        raise Mistake("cut off audio", why)
    if not numpy.isfinite(samples).all():
        why = f"source: got {path!r}, expected samples that are numbers"
        raise Mistake("samples that are no numbers", why)
    if side is None:
        return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    return numpy.ascontiguousarray(samples[:, side])


def _decibel(value: float) -> float:
    return round(20 * math.log10(value), 2) if value > 1e-6 else _QUIETEST_DBFS
