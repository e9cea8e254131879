"""Work on many lines in parallel, which can be interrupted at any time and goes on.

The results of each batch are written aside into a file of their own and renamed; a batch that has
its file is not worked on again. Results come in the order of the batches, whoever did them when.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import orjson

from conf.files import write_bytes
from trainer.data.parallel import ordered

BATCH = 128
"""Lines of a batch: some seconds of work where audio is read."""

T = TypeVar("T")
Records = list[dict[str, Any]]


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """The items in lists of `BATCH`; the last may be shorter."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, BATCH)):
        yield batch


def run(
    directory: Path,
    parts: Iterable[T],
    work: Callable[[T], Records],
    num_workers: int,
) -> Iterator[Records]:
    """The records of each part, in order.

    Args:
        directory: Where results are kept; of this work alone.
        parts: What to work on; must be the same each time.
        work: Makes records of a part.
        num_workers: Processes.

    Raises:
        WorkError: A worker died.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files = (directory / f"{number:08}.jsonl" for number in itertools.count())

    numbered = zip(files, parts, strict=False)
    return ordered(partial(_kept, work), numbered, num_workers, what="prepare")


def _kept(work: Callable[[T], Records], numbered: tuple[Path, T]) -> Records:
    path, part = numbered
    return kept if (kept := read(path)) is not None else _keep(path, work(part))


def read(path: Path) -> Records | None:
    """What was kept in a file; None if it is not there or not whole."""
    try:
        *lines, end = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return None
    if not end.startswith(b"end ") or int(end[4:] or -1) != len(lines):
        return None
    return [orjson.loads(line) for line in lines]


def dumps(value: Any) -> bytes:
    """JSON, also of a number that is too long for orjson."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False).encode()


def _keep(path: Path, records: Sequence[dict[str, Any]]) -> Records:
    lines = [dumps(record) for record in records]
    write_bytes(path, b"\n".join([*lines, b"end %d" % len(lines)]))
    return list(records)
