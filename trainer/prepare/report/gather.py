"""Gathers the facts of a directory that `prepare` wrote: one pass over its lines, no audio.

Memory does not grow with the lines but for eight bytes a line (a number per text and per audio
content, to find them again in another split), and with the distinct speakers, calls and characters.
"""

from __future__ import annotations

import itertools
import json
import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import numpy.typing
import orjson

from conf.errors import DataError
from trainer.evaluation.error_rates import mixed, normalise
from trainer.prepare.report.characters import SCRIPTS, kind_of, scripts, unspelt_by
from trainer.prepare.report.facts import (
    DRAWN,
    FULL_BAND_HZ,
    LONG_TEXT_WORDS,
    MEASURED,
    RARE,
    SCALES,
    TAGS,
    TELEPHONE_BAND_HZ,
    Characters,
    Crossing,
    Facts,
    Rule,
    Split,
)
from trainer.prepare.report.histogram import Floats, Tally
from trainer.prepare.report.picks import Picks
from trainer.prepare.settings import SPLITS

_TAG_VALUES = 40
_EXAMPLES = 5
_LEFT_OUT_EXAMPLES = 3
_LARGEST_SPEAKERS = 5
_SHOWN_CHARACTERS = 200
_MASK = 2**63 - 1


def gather(directory: Path) -> Facts:
    """Read what `prepare` wrote.

    Args:
        directory: With `train.jsonl`; the other files may be missing.

    Raises:
        DataError: There is no `train.jsonl`, or a line is no JSON object.
    """
    if not (directory / "train.jsonl").is_file():
        raise DataError(f"{directory}: got no train.jsonl, expected what prepare wrote")
    picks = Picks()
    read: list[_Reading] = []
    for name in SPLITS:
        path = directory / f"{name}.jsonl"
        if path.is_file():
            reading = _Reading(name, read, picks)
            for batch in batches(path):
                reading.add(batch)
            reading.close()
            read.append(reading)
    settings = _settings(directory / "prepare.json")
    return Facts(
        directory=directory,
        settings=settings,
        splits=tuple(reading.split() for reading in read),
        crossings=tuple(
            crossing
            for one, other in itertools.combinations(read, 2)
            for crossing in _crossings(one, other)
        ),
        characters=_characters(read, settings.get("model")),
        left_out=_left_out(directory / "left_out.jsonl"),
        picked=picks.chosen(directory),
    )


class _Hashes:
    """Contents of a split as numbers of eight bytes, sorted when all are there."""

    def __init__(self) -> None:
        self._growing = array("q")
        self.sorted = numpy.empty(0, dtype=numpy.int64)

    def add(self, values: Sequence[int]) -> None:
        self._growing.extend(values)

    def close(self) -> None:
        self.sorted = numpy.sort(numpy.frombuffer(self._growing, dtype=numpy.int64))
        self._growing = array("q")

    def __len__(self) -> int:
        return len(self.sorted)

    @property
    def repeated(self) -> int:
        """How many stand there a second time or oftener."""
        return int((self.sorted[1:] == self.sorted[:-1]).sum())

    def holds(self, values: Sequence[int]) -> numpy.typing.NDArray[numpy.bool_]:
        """Which of some values are among them."""
        wanted = numpy.array(values, dtype=numpy.int64)
        if not len(self.sorted):
            return numpy.zeros(len(wanted), dtype=numpy.bool_)
        places = numpy.searchsorted(self.sorted, wanted)
        found: numpy.typing.NDArray[numpy.bool_] = (
            self.sorted[numpy.minimum(places, len(self.sorted) - 1)] == wanted
        )
        return found


@dataclass
class _Shared:
    """Contents of an earlier split that are met again."""

    values: set[int] = field(default_factory=set)
    utterances: int = 0
    examples: list[str] = field(default_factory=list)


class _Names:
    """Speakers or calls of a split: utterances and seconds of each."""

    def __init__(self) -> None:
        self.known: dict[str, list[float]] = {}
        self.without = 0

    def add(self, names: Sequence[Any], seconds: Floats) -> None:
        known = self.known
        for name, lasting in zip(names, numpy.nan_to_num(seconds).tolist(), strict=True):
            if name is None or name == "":
                self.without += 1
                continue
            entry = known.setdefault(str(name), [0, 0.0])
            entry[0] += 1
            entry[1] += lasting


class _Reading:
    """One split while it is read; `earlier` are those that were read before."""

    def __init__(self, name: str, earlier: Sequence[_Reading], picks: Picks) -> None:
        self.name = name
        self.utterances = 0
        self.chars: Counter[str] = Counter()
        self.names = {"speakers": _Names(), "calls": _Names()}
        self.contents = {"texts": _Hashes(), "audio": _Hashes()}
        self.shared = {(what, one.name): _Shared() for what in self.contents for one in earlier}
        self._earlier = tuple(earlier)
        self._picks = picks
        self._tallies = {quantity: Tally(scale) for quantity, scale in SCALES.items()}
        self._rates: Counter[tuple[int, str]] = Counter()
        self._domains: Counter[tuple[str, str]] = Counter()
        self._scripts: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._words = 0
        self._tags: dict[str, Counter[str]] = {tag: Counter() for tag in TAGS}

    def add(self, batch: Sequence[dict[str, Any]]) -> None:
        """Count some lines."""
        self.utterances += len(batch)
        targets = [str(line.get("target") or "") for line in batch]
        self.chars.update("".join(targets))
        scored = [normalise(text) for text in targets]
        word_counts = [len(mixed(text)) for text in targets]
        self._words += sum(word_counts)
        found = [scripts(text) for text in scored]
        self._scripts.update("".join(found))
        self._kinds.update(map(kind_of, found))

        columns = {name: numbers(batch, name) for name in (*MEASURED, *DRAWN)}
        seconds = columns["duration_s"] = durations(batch)
        columns["characters"] = numpy.array([len(text) for text in scored], dtype=numpy.float64)
        with numpy.errstate(divide="ignore", invalid="ignore"):
            columns["characters_per_s"] = columns["characters"] / seconds
            columns["words_per_s"] = numpy.array(word_counts, dtype=numpy.float64) / seconds
        # A recording on which nobody speaks has no rate of speech.
        silent = columns["characters"] == 0
        columns["characters_per_s"][silent] = columns["words_per_s"][silent] = math.nan
        for name, tally in self._tallies.items():
            tally.add(columns[name])

        rates = numbers(batch, "sample_rate_hz")
        bands = [_band(hz) for hz in columns["bandwidth_hz"].tolist()]
        self._rates.update(
            (int(rate), band)
            for rate, band in zip(rates.tolist(), bands, strict=True)
            if math.isfinite(rate)
        )
        self._domains.update(
            (str(line["domain"]), band)
            for line, band in zip(batch, bands, strict=True)
            if line.get("domain") is not None
        )
        self.names["speakers"].add([line.get("speaker_id") for line in batch], seconds)
        self.names["calls"].add([line.get("call") for line in batch], seconds)
        for tag, counted in self._tags.items():
            counted.update(str(line[tag]) for line in batch if line.get(tag) is not None)

        long = [
            (hash(text), shown)
            for text, count, shown in zip(scored, word_counts, targets, strict=True)
            if count >= LONG_TEXT_WORDS
        ]
        self._meet("texts", long)
        self._meet(
            "audio",
            [
                (int(str(line["sha256"])[:16], 16) & _MASK, str(line.get("key")))
                for line in batch
                if line.get("sha256")
            ],
        )
        self._picks.look(self.name, batch, columns)

    def _meet(self, what: str, found: Sequence[tuple[int, str]]) -> None:
        """Note contents, and which of them an earlier split has."""
        values = [value for value, _ in found]
        self.contents[what].add(values)
        for one in self._earlier:
            shared = self.shared[what, one.name]
            for index in numpy.flatnonzero(one.contents[what].holds(values)).tolist():
                value, shown = found[index]
                shared.utterances += 1
                if value not in shared.values and len(shared.examples) < _EXAMPLES:
                    shared.examples.append(shown)
                shared.values.add(value)

    def close(self) -> None:
        """All lines are read."""
        for hashes in self.contents.values():
            hashes.close()

    def split(self) -> Split:
        """The facts."""
        speakers, calls = self.names["speakers"], self.names["calls"]
        spreads = {name: tally.spread() for name, tally in self._tallies.items()}
        by_seconds = sorted(speakers.known.items(), key=lambda item: (-item[1][1], item[0]))
        return Split(
            name=self.name,
            utterances=self.utterances,
            spreads={name: spread for name, spread in spreads.items() if spread.count},
            rates_hz=dict(sorted(self._rates.items())),
            domains=dict(self._domains.most_common(_TAG_VALUES)),
            scripts={
                name: self._scripts[letter]
                for letter, name in SCRIPTS.items()
                if self._scripts[letter]
            },
            kinds=dict(self._kinds.most_common()),
            words=self._words,
            speakers=len(speakers.known),
            without_speaker=speakers.without,
            calls=len(calls.known),
            without_call=calls.without,
            largest=tuple((name, entry[1]) for name, entry in by_seconds[:_LARGEST_SPEAKERS]),
            repeated_texts=self.contents["texts"].repeated,
            long_texts=len(self.contents["texts"]),
            repeated_audio=self.contents["audio"].repeated,
            hashed=len(self.contents["audio"]),
            tags={
                tag: dict(counted.most_common(_TAG_VALUES))
                for tag, counted in self._tags.items()
                if counted
            },
        )


def _crossings(one: _Reading, other: _Reading) -> Iterator[Crossing]:
    for what in ("calls", "speakers"):
        mine, theirs = one.names[what].known, other.names[what].known
        if common := sorted(mine.keys() & theirs.keys()):
            yield Crossing(
                what,
                one.name,
                other.name,
                len(common),
                int(sum(theirs[name][0] for name in common)),
                other.utterances - other.names[what].without,
                tuple(common[:_EXAMPLES]),
            )
    for what in ("audio", "texts"):
        shared = other.shared[what, one.name]
        if shared.utterances:
            yield Crossing(
                what,
                one.name,
                other.name,
                len(shared.values),
                shared.utterances,
                len(other.contents[what]),
                tuple(shared.examples),
            )


def _characters(read: Sequence[_Reading], model: str | None) -> Characters:
    together: Counter[str] = Counter()
    elsewhere: Counter[str] = Counter()
    train: Counter[str] = Counter()
    for reading in read:
        kept = Counter({char: n for char, n in reading.chars.items() if not char.isspace()})
        together.update(kept)
        if reading.name == "train":
            train = kept
        else:
            elsewhere.update(kept)
    rare = sorted(
        ((char, count) for char, count in train.items() if count <= RARE),
        key=lambda pair: (pair[1], pair[0]),
    )
    unseen = sorted(
        ((char, count) for char, count in elsewhere.items() if char not in train),
        key=lambda pair: (-pair[1], pair[0]),
    )
    return Characters(
        distinct=len(together),
        total=together.total(),
        rare=tuple(rare[:_SHOWN_CHARACTERS]),
        rare_count=len(rare),
        unseen=tuple(unseen[:_SHOWN_CHARACTERS]),
        unseen_count=len(unseen),
        unspelt=_unspelt(model, together),
    )


def _unspelt(
    model: str | None, counts: Counter[str]
) -> Mapping[str, tuple[tuple[str, int], ...]] | None:
    """None without a model, or if it is not there any more: nothing else depends on it."""
    if not model or not (Path(model) / "config.yaml").is_file():
        return None
    return unspelt_by(Path(model), counts)


def _left_out(path: Path) -> tuple[Rule, ...]:
    counts: Counter[str] = Counter()
    examples: dict[str, list[tuple[str, str, str]]] = {}
    for batch in batches(path) if path.is_file() else ():
        for line in batch:
            rule = str(line.get("rule"))
            counts[rule] += 1
            shown = examples.setdefault(rule, [])
            if len(shown) < _LEFT_OUT_EXAMPLES:
                texts = (line.get(name) for name in ("place", "text", "why"))
                place, text, why = ("" if value is None else str(value) for value in texts)
                shown.append((place, text, why))
    return tuple(Rule(name, count, tuple(examples[name])) for name, count in counts.most_common())


def _settings(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: got no JSON ({error}), expected what prepare wrote") from None
    settings = content.get("settings") if isinstance(content, dict) else None
    return settings if isinstance(settings, dict) else {}


def _band(bandwidth_hz: float) -> str:
    if math.isnan(bandwidth_hz):
        return ""
    if bandwidth_hz <= TELEPHONE_BAND_HZ:
        return "narrow"
    return "wide" if bandwidth_hz >= FULL_BAND_HZ else "between"


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
