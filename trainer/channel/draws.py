"""What is drawn for each utterance: a function of seed, key and ranges alone."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from conf.channels import ChannelRange, Clipping, Echo, Handset, Hum, Loss, Noise

_DIGITS = 3
"""Drawn values are rounded, so that a manifest holds exactly what was done."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Line:
    """One drawn telephone line; None is what does not happen on it.

    The fields are those of a manifest's line, in its order, but that `noise` holds the whole path
    of a noise file.
    """

    channel: str
    codec: str
    level_dbfs_drawn: float | None = None
    line_km: float | None = None
    handset_tilt_db: float | None = None
    handset_peak_db: float | None = None
    handset_peak_hz: float | None = None
    noise: str | None = None
    snr_db: float | None = None
    babble_voices: int | None = None
    hum_hz: float | None = None
    hum_db: float | None = None
    clipping_db: float | None = None
    loss_rate: float | None = None
    loss_burst: float | None = None
    echo_ms: float | None = None
    echo_db: float | None = None

    def fields(self) -> dict[str, float | str]:
        """What a manifest says of it: the values that apply, by name."""
        fields = {name: value for name, value in vars(self).items() if value is not None}
        return fields if self.noise is None else fields | {"noise": Path(self.noise).name}


def generator(seed: int, key: str) -> np.random.Generator:
    """The random numbers that belong to `key`."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def draw_line(seed: int, key: str, ranges: ChannelRange) -> Line:
    """The line of utterance `key`.

    Each block draws from numbers of its own, so one that is added changes nothing about the others.
    """
    drawn: dict[str, float | str] = {}
    if ranges.level_dbfs is not None:
        drawn["level_dbfs_drawn"] = _between(ranges.level_dbfs, generator(seed, f"{key}:level"))
    if ranges.line_km is not None:
        drawn["line_km"] = _between(ranges.line_km, generator(seed, f"{key}:line"))
    blocks = (
        *(ranges.handset, ranges.noise, ranges.hum),
        *(ranges.clipping, ranges.loss, ranges.echo),
    )
    for block in blocks:
        if block is not None:
            rng = generator(seed, f"{key}:{type(block).__name__}")
            if rng.random() < block.share:
                drawn |= _draw(block, rng)
    codec = _one_of(ranges.codecs, generator(seed, f"{key}:codec"))
    return Line(ranges.name, codec, **drawn)  # type: ignore[arg-type]


def _draw(
    block: Handset | Noise | Hum | Clipping | Loss | Echo, rng: np.random.Generator
) -> Mapping[str, float | str]:
    match block:
        case Handset():
            return {
                "handset_tilt_db": _between(block.tilt_db, rng),
                "handset_peak_db": _between(block.peak_db, rng),
                "handset_peak_hz": _between(block.peak_hz, rng),
            }
        case Noise():
            return _draw_noise(block, rng)
        case Hum():
            return {"hum_hz": _one_of(block.hz, rng), "hum_db": _between(block.snr_db, rng)}
        case Clipping():
            return {"clipping_db": _between(block.over_db, rng)}
        case Loss():
            return {
                "loss_rate": _between(block.rate, rng),
                "loss_burst": _between(block.burst_packets, rng),
            }
        case Echo():
            return {
                "echo_ms": _between(block.delay_ms, rng),
                "echo_db": _between(block.below_db, rng),
            }


def _draw_noise(block: Noise, rng: np.random.Generator) -> Mapping[str, float | str]:
    kind: str = _one_of(block.kinds, rng)
    snr_db = _between(block.snr_db, rng)
    if kind == "files":
        return {"noise": _one_of(block.files, rng), "snr_db": snr_db}
    if kind != "babble":
        return {"noise": kind, "snr_db": snr_db}
    low, high = block.babble_voices
    return {"noise": kind, "snr_db": snr_db, "babble_voices": int(rng.integers(low, high + 1))}


def _one_of(values: Sequence[_T], rng: np.random.Generator) -> _T:
    return values[int(rng.integers(len(values)))]


def _between(ends: Sequence[float], rng: np.random.Generator) -> float:
    return round(float(rng.uniform(ends[0], ends[1])), _DIGITS)
