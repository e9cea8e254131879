"""Recordings worth looking at: extremes, and some that the hash of their key chooses."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

from trainer.prepare.report.facts import DRAWN, MEASURED, Picked
from trainer.prepare.report.histogram import Floats

_RANDOM_PICKS = 2


class Picks:
    """The recordings chosen among the lines seen so far."""

    def __init__(self) -> None:
        self._extremes: dict[str, tuple[float, str, dict[str, Any]]] = {}
        self._random: list[tuple[int, str, str, dict[str, Any]]] = []

    def look(
        self, split: str, batch: Sequence[dict[str, Any]], columns: Mapping[str, Floats]
    ) -> None:
        """Consider some lines."""
        clipped = columns["clipped"]
        for why, values in (
            ("loudest", -columns["level_dbfs"]),
            ("quietest", columns["level_dbfs"]),
            ("narrowest", columns["bandwidth_hz"]),
            ("most clipped", -numpy.where(clipped > 0, clipped, numpy.nan)),
            ("longest", -columns["duration_s"]),
        ):
            if numpy.isfinite(values).any():
                index = int(numpy.nanargmin(values))
                value = float(values[index])
                if why not in self._extremes or value < self._extremes[why][0]:
                    self._extremes[why] = value, split, batch[index]
        hashed = [
            (zlib.crc32(str(line.get("key")).encode()), str(line.get("key")), split, line)
            for line in batch
        ]
        # By hash and then by key: the same whatever the order of the lines.
        self._random = sorted([*self._random, *hashed], key=lambda one: one[:2])[:_RANDOM_PICKS]

    def chosen(self, directory: Path) -> tuple[Picked, ...]:
        """Each recording once, the first reason counts."""
        found: dict[str, Picked] = {}
        for why, (_, split, line) in self._extremes.items():
            found.setdefault(str(line.get("key")), _picked(why, split, line, directory))
        for _, key, split, line in self._random:
            found.setdefault(key, _picked("random", split, line, directory))
        return tuple(found.values())


def _picked(why: str, split: str, line: Mapping[str, Any], directory: Path) -> Picked:
    names = ("duration_s", "sample_rate_hz", *MEASURED, *DRAWN)
    values = {name: line[name] for name in names if isinstance(line.get(name), int | float)}
    return Picked(
        why=why,
        split=split,
        key=str(line.get("key")),
        source=directory / str(line.get("source")),
        text=str(line.get("target") or ""),
        values=values,
    )
