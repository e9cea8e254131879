"""Lines of the files that `prepare` wrote, and columns of numbers in them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import orjson

from conf.errors import DataError
from trainer.data_report.spread import Floats

_BATCH = 4096


def batches(path: Path) -> Iterator[list[dict[str, Any]]]:
    """The lines of a file as objects, some thousand at a time."""
    with path.open("rb") as file:
        lines = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
        while some := list(itertools.islice(lines, _BATCH)):
            batch = []
            for number, line in some:
                try:
                    record = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    problem = f"got no JSON ({error.msg})"
                    raise DataError(f"{path}:{number}: {problem}, expected an object") from None
                if not isinstance(record, dict):
                    got = type(record).__name__
                    raise DataError(f"{path}:{number}: got {got}, expected a JSON object")
                batch.append(record)
            yield batch


def numbers(batch: Sequence[dict[str, Any]], name: str) -> Floats:
    """A key's numbers; NaN where a line has none."""
    values = [line.get(name) for line in batch]
    try:
        return numpy.array(values, dtype=numpy.float64)
    except (TypeError, ValueError):
        known = [value if isinstance(value, int | float) else math.nan for value in values]
        return numpy.array(known, dtype=numpy.float64)


def durations(batch: Sequence[dict[str, Any]]) -> Floats:
    """In seconds; of a line that only has `source_len`, from its 10 ms frames."""
    seconds = numbers(batch, "duration_s")
    unknown = ~numpy.isfinite(seconds)
    if unknown.any():
        seconds[unknown] = numbers(batch, "source_len")[unknown] / 100
    return seconds
