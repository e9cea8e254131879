"""Kaldi's data directories: ``wav.scp`` and ``text``, with ``segments`` and sides where given.

The files are joined by key without holding them: what stays in memory is a number per line.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy

from trainer.prepare.lines import (
    MAX_LINE_BYTES,
    Line,
    Mistake,
    decoded,
    placed_lines,
    seconds,
    side_of,
)
from trainer.prepare.settings import Settings

OPTIONAL = ("segments", "utt2spk", "spk2utt", "reco2file_and_channel")


def read_kaldi(
    wav_scp: Path, beside: Mapping[str, Path], split: str | None, settings: Settings
) -> Iterator[Line]:
    """The utterances of ``text``, in its order, then what no utterance names.

    Args:
        wav_scp: ``RECORDING PATH`` lines.
        beside: ``text`` and those of `OPTIONAL` that there are.
        split: Of these files.
        settings: For the encoding.

    Raises:
        DataError: A file cannot be read.
    """
    tables = {name: Table(path, settings.encoding) for name, path in beside.items()}
    tables["wav.scp"] = Table(wav_scp, settings.encoding)
    text = tables.pop("text")
    speakers = _speakers(tables)
    named_by = tables.get("segments", tables["wav.scp"])
    for entry in text.entries():
        yield _utterance(entry, text.path, tables, speakers, wav_scp, split)
    for entry in named_by.unused():
        mistake = entry.mistake or (
            "no transcript",
            f"got {entry.key!r}, which {text.path} lacks, expected it there",
        )
        yield Line(f"{named_by.path}:{entry.number}", entry.key, split=split, mistake=mistake)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a file by key."""

    number: int
    key: str = ""
    rest: str = ""
    mistake: tuple[str, str] | None = None


class Table:
    """A file of ``KEY REST`` lines, indexed by a number per key.

    Args:
        path: The file; not gzipped.
        encoding: Of its text.
    """

    def __init__(self, path: Path, encoding: str) -> None:
        self.path = path
        self._encoding = encoding
        hashes, numbers, starts = array("q"), array("q"), array("q")
        for number, start, raw in placed_lines(path):
            if raw is None or raw.strip():
                hashes.append(_number_of((raw or b"-").split(None, 1)[0]))
                numbers.append(number)
                starts.append(start)
        self._order = numpy.argsort(numpy.frombuffer(hashes, numpy.int64), kind="stable")
        self._hashes = numpy.frombuffer(hashes, numpy.int64)[self._order]
        self._numbers = numpy.frombuffer(numbers, numpy.int64)
        self._starts = numpy.frombuffer(starts, numpy.int64)
        self._used = numpy.zeros(len(numbers), dtype=bool)
        self._fd = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)

    def get(self, key: str) -> Entry | None:
        """The first line of that key."""
        number = _number_of(key.encode(self._encoding))
        place = int(numpy.searchsorted(self._hashes, number))
        while place < len(self._hashes) and self._hashes[place] == number:
            index = int(self._order[place])
            entry = self._entry(index)
            if entry.key == key:
                self._used[index] = True
                return entry
            place += 1
        return None

    def entries(self) -> Iterator[Entry]:
        """All lines, in order."""
        return (self._entry(index) for index in range(len(self._numbers)))

    def unused(self) -> Iterator[Entry]:
        """Lines that nobody asked for, in order."""
        return (self._entry(int(index)) for index in numpy.flatnonzero(~self._used))

    def _entry(self, index: int) -> Entry:
        number = int(self._numbers[index])
        start = int(self._starts[index])
        size = 512
        raw = os.pread(self._fd, size, start)
        while b"\n" not in raw and len(raw) == size and size <= MAX_LINE_BYTES:
            size *= 4
            raw = os.pread(self._fd, size, start)
        line = raw.split(b"\n", 1)[0]
        try:
            text = decoded(line if len(line) <= MAX_LINE_BYTES else None, self._encoding)
        except Mistake as error:
            return Entry(number, mistake=(error.rule, error.why))
        key, *rest = text.split(None, 1)
        return Entry(number, key, "".join(rest).strip())


def _utterance(
    said: Entry,
    text: Path,
    tables: Mapping[str, Table],
    speakers: Mapping[str, str],
    wav_scp: Path,
    split: str | None,
) -> Line:
    """The utterance of a line of ``text``."""
    place = f"{text}:{said.number}"
    key, call, side, span_s = said.key, None, None, None
    try:
        if said.mistake:
            raise Mistake(*said.mistake)
        recording = key
        if "segments" in tables:
            recording, span_s = _segment(tables["segments"], key)
            call = recording
        if "reco2file_and_channel" in tables:
            call, side = _call_and_side(tables["reco2file_and_channel"], recording)
        source = _found(tables["wav.scp"], recording).rest
        if source.endswith("|"):
            why = f"{wav_scp}: got {source!r}, expected a file (run the commands, name the results)"
            raise Mistake("command instead of a file", why)
    except Mistake as error:
        return Line(place, key, text=said.rest, split=split, mistake=(error.rule, error.why))
    speaker = speakers.get(key)
    if "utt2spk" in tables and (entry := tables["utt2spk"].get(key)):
        speaker = entry.rest
    return Line(
        place, key, source, said.rest, str(wav_scp.parent), split, speaker, call, side, span_s
    )


def _segment(segments: Table, key: str) -> tuple[str, tuple[float, float]]:
    """Recording, begin and end of an utterance."""
    entry = _found(segments, key)
    parts = entry.rest.split()
    if len(parts) != 3:
        why = f"{segments.path}:{entry.number}: got {entry.rest!r}, expected RECORDING BEGIN END"
        raise Mistake("malformed line", why)
    begin_s = seconds("begin", parts[1])
    # Kaldi's -1 is the recording's end.
    end_s = float("inf") if parts[2] in ("-1", "-1.0") else seconds("end", parts[2])
    return parts[0], (begin_s, end_s)


def _call_and_side(table: Table, recording: str) -> tuple[str, int]:
    """The call of a recording, and which of its sides it is."""
    entry = _found(table, recording)
    parts = entry.rest.split()
    if len(parts) != 2:
        why = f"{table.path}:{entry.number}: got {entry.rest!r}, expected CALL SIDE"
        raise Mistake("malformed line", why)
    return parts[0], side_of(parts[1])


def _found(table: Table, key: str) -> Entry:
    entry = table.get(key)
    if entry is None or not entry.rest:
        raise Mistake("no recording", f"got {key!r}, which {table.path} lacks, expected it there")
    return entry


def _speakers(tables: dict[str, Table]) -> dict[str, str]:
    """The speaker of each utterance, from ``spk2utt``; without ``utt2spk`` only."""
    table = tables.pop("spk2utt", None)
    if table is None or "utt2spk" in tables:
        return {}
    return {key: entry.key for entry in table.entries() for key in entry.rest.split()}


def _number_of(key: bytes) -> int:
    """Equal for equal keys."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big", signed=True)
