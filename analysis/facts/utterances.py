"""What tables need beside the runs themselves: learning curves, and the errors of each utterance.

Each costs a call to MLflow, so they are fetched where they say something: curves of all trials, the
validation set of the completed ones, other sets of the finalists alone. What is known of a run that
has ended is kept on disk under its id, since it does not change: a second look at a sweep asks only
for what is under way.

Who speaks in an utterance, how long and over which channel stands in the hypotheses; what they do
not say is taken from the manifest that the trials name, where it can be read.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy
import orjson

from analysis.facts.grouping import UNNAMED, Grouping, grouped
from analysis.facts.records import Source, SweepRecord, TrialRecord
from analysis.facts.significance import Ints
from conf.errors import DataError, UserError
from conf.files import write_bytes
from trainer.data.manifest import SLICED_BY, Utterance
from trainer.tracking.mlflow_store import MetricPoint

SPLITS: Mapping[str, str] = {
    "valid": "valid_data_set_list",
    "test": "finetune_conf.test_data_set_list",
    "wideband": "finetune_conf.wideband_data_set_list",
}
"""The evaluation sets, and the key that names each one's manifest."""
BASE = -1
"""Stands for the untrained base where a trial's number stands otherwise."""
_FORMAT = 2
BASE_HYPOTHESES = "hypotheses/base"
"""Where the base's texts lie: as artifacts of the sweep's run, and in a trial's directory."""
_CHANGES_NO_MORE = ("completed", "pruned", "failed")
_OF_RECORDING = ("reference", "speaker", "call", "duration_s", *SLICED_BY)


@dataclass(frozen=True)
class Scored:
    """Errors of every utterance of a set, in the set's order."""

    errors: Ints
    lengths: Ints

    @property
    def rate(self) -> float | None:
        """Of the whole set; None where nothing is said in it."""
        length = int(self.lengths.sum())
        return float(self.errors.sum() / length) if length else None


@dataclass(frozen=True)
class Spoken:
    """What is known of an utterance, whoever transcribes it."""

    reference: str = ""
    speaker: str | None = None
    call: str | None = None
    duration_s: float | None = None
    tags: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationSet:
    """An evaluation set as the trials scored it.

    Attributes:
        keys: Of its utterances.
        spoken: What is known of each.
        grouping: Which of them belong together.
        unread: Why no manifest was read; empty if one was.
        problem: What was wrong with the manifest, if that is why.
    """

    keys: tuple[str, ...]
    spoken: tuple[Spoken, ...]
    grouping: Grouping
    unread: str = ""
    problem: str = ""

    @property
    def note(self) -> str:
        """What is wrong with the names of speakers and calls; empty if nothing is."""
        note = self.grouping.note
        return self.unread if note == UNNAMED and self.unread else note


@dataclass(frozen=True)
class Evidence:
    """Learning curves by trial and epoch; errors by trial (or `BASE`) and set; and what trials that
    were cut short measured after the epoch of their objective."""

    curves: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    scored: Mapping[tuple[int, str], Scored] = field(default_factory=dict)
    sets: Mapping[str, EvaluationSet] = field(default_factory=dict)
    at_best: Mapping[int, Mapping[str, float]] = field(default_factory=dict)


def cache_directory() -> Path:
    """Where ended runs are remembered: under the user's cache directory."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "telesweep" / "runs"


class Reader:
    """Reads the evidence of one sweep's runs, each thing once.

    Args:
        sweep: Its runs.
        store: Where they are.
        cache: Directory to remember ended runs in; None asks anew each time.
    """

    def __init__(self, sweep: SweepRecord, store: Source, cache: Path | None) -> None:
        self._sweep = sweep
        self._store = store
        self._cache = cache
        self._known: dict[str, dict[str, Any]] = {}
        self._changed: set[str] = set()
        self._sets: dict[str, EvaluationSet] = {}
        self._scored: dict[tuple[int, str], Scored] = {}

    def curve(self, trial: TrialRecord) -> dict[int, float]:
        """The sweep's objective after each epoch, epoch 0 being before training."""

        def fetch() -> list[tuple[int, float]]:
            values = self._store.history(trial.run_id, self._sweep.objective)
            if not values:
                return []
            epochs = self._store.history(trial.run_id, "epoch")
            return _by_epoch(epochs, values)

        return dict(self._remember(trial, f"curve {self._sweep.objective}", fetch))

    def at_best(self, trial: TrialRecord, names: Sequence[str]) -> dict[str, float]:
        """Metrics of a trial that was cut short, after the epoch that its objective is of.

        The latest values, which a run shows, are of its last epoch.
        """

        def fetch() -> list[tuple[str, float]]:
            curve = {epoch: value for epoch, value in self.curve(trial).items() if epoch}
            if not curve:
                return []
            best = min(curve, key=lambda epoch: curve[epoch])
            epochs = self._store.history(trial.run_id, "epoch")
            histories = {name: self._store.history(trial.run_id, name) for name in names}
            found = {name: dict(_by_epoch(epochs, points)) for name, points in histories.items()}
            return [(name, values[best]) for name, values in found.items() if best in values]

        return dict(self._remember(trial, f"at best {self._sweep.objective}", fetch))

    def score(self, trial: TrialRecord, split: str) -> None:
        """Take up a trial's errors on a set; those of another set's utterances do not count."""
        measure = self._measure(split)

        @cache
        def lines() -> list[dict[str, Any]]:
            return self.lines(trial.run_id, f"hypotheses/{split}.jsonl") or []

        def recordings() -> list[dict[str, Any]]:
            return [_recording(line) for line in lines()]

        columns = self._remember(
            trial, f"scored {split} {measure}", lambda: _columns(lines(), measure)
        )
        if columns:
            remembered = partial(self._remember, trial, f"recordings {split}", recordings)
            self._take(trial.trial, split, columns, remembered)

    def score_base(self, split: str) -> None:
        """Take up the errors of the untrained base, where its hypotheses are within reach."""
        lines = self.base_lines(split)
        columns = None if lines is None else _columns(lines, self._measure(split))
        if lines is not None and columns:
            self._take(BASE, split, columns, partial(list, map(_recording, lines)))

    def lines(self, run_id: str, name: str) -> list[dict[str, Any]] | None:
        """A run's hypotheses; None if it has none of this name."""
        with tempfile.TemporaryDirectory() as scratch, contextlib.suppress(DataError):
            return read_lines(self._store.download(run_id, name, Path(scratch)))
        return None

    def base_lines(self, split: str) -> list[dict[str, Any]] | None:
        """The base's hypotheses: of the sweep's own evaluation, or of a trial's step 0.

        The sweep's run has them; of one recorded before runs did, they may still lie in its
        directory. A stage may hear the base otherwise (native 8 kHz features), so texts that do not
        give the base's score are none of it.
        """
        metric = self._sweep.objective if split == "valid" else f"{split}/cer"
        expected = self._sweep.base.get(metric)
        for lines in self._found_base(split):
            columns = _columns(lines, self._measure(split))
            rate = sum(columns[1]) / sum(columns[2]) if columns else None
            if rate is not None and (expected is None or abs(rate - expected) < 1e-6):
                return lines
        return None

    def _found_base(self, split: str) -> Iterator[list[dict[str, Any]]]:
        logged = self.lines(self._sweep.run_id, f"{BASE_HYPOTHESES}/{split}.jsonl")
        if logged is not None:
            yield logged
        if self._sweep.directory is not None:
            yield from _read(self._sweep.directory / "base" / "hypotheses" / f"{split}.jsonl")
        for trial in self._sweep.trials:
            if trial.directory is not None:
                yield from _read(trial.directory / BASE_HYPOTHESES / f"{split}.jsonl")

    def evidence(
        self,
        curves: Mapping[int, Mapping[int, float]],
        at_best: Mapping[int, Mapping[str, float]] | None = None,
    ) -> Evidence:
        """All that was taken up, and write down what is new of ended runs."""
        self._save()
        return Evidence(curves, dict(self._scored), dict(self._sets), at_best or {})

    def _measure(self, split: str) -> str:
        """The error count that the objective is made of; other sets are scored by CER."""
        return self._sweep.objective.removeprefix("valid/") if split == "valid" else "cer"

    def _take(
        self,
        number: int,
        split: str,
        columns: Sequence[Sequence[Any]],
        recordings: Callable[[], Sequence[Mapping[str, Any]]],
    ) -> None:
        """Keep a system's errors; the first to come tells what the set is."""
        keys, errors, lengths = columns
        if split not in self._sets:
            self._sets[split] = self._set_of(split, keys, recordings() or [{}] * len(keys))
        if tuple(keys) != self._sets[split].keys:
            return
        self._scored[number, split] = Scored(
            numpy.array(errors, dtype=numpy.int64), numpy.array(lengths, dtype=numpy.int64)
        )

    def _set_of(
        self, split: str, keys: Sequence[str], recordings: Sequence[Mapping[str, Any]]
    ) -> EvaluationSet:
        """The set as the hypotheses describe it, and the manifest where they do not."""
        manifest, unread, problem = self._manifest(split)
        each = tuple(
            _merged(said, manifest.get(key, Spoken()))
            for key, said in zip(keys, recordings, strict=True)
        )
        grouping = grouped([one.speaker for one in each], [one.call for one in each])
        return EvaluationSet(tuple(keys), each, grouping, unread, problem)

    def _manifest(self, split: str) -> tuple[dict[str, Spoken], str, str]:
        from trainer.data.manifest import read_data_list

        paths = [path for trial in self._sweep.trials if (path := trial.params.get(SPLITS[split]))]
        if not paths or paths[0] == "null":
            return {}, "the trials name no manifest", ""
        try:
            return {item.key: _spoken(item) for item in read_data_list(paths[0])}, "", ""
        except (UserError, OSError) as error:
            return {}, "the manifest cannot be read", str(error).splitlines()[0]

    # Remembering

    def _remember(self, trial: TrialRecord, what: str, fetch: Callable[[], Any]) -> Any:
        known = self._known.get(trial.run_id)
        if known is None:
            known = self._known[trial.run_id] = self._load(trial)
        if what not in known:
            known[what] = fetch()
            if trial.outcome in _CHANGES_NO_MORE:
                self._changed.add(trial.run_id)
        return known[what]

    def _load(self, trial: TrialRecord) -> dict[str, Any]:
        identity = {"format": _FORMAT, "outcome": trial.outcome, "ended_ms": trial.ended_ms}
        if self._cache is not None and trial.outcome in _CHANGES_NO_MORE:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                known: dict[str, Any] = orjson.loads(self._path(trial.run_id).read_bytes())
                if identity.items() <= known.items():
                    return known
        return dict(identity)

    def _save(self) -> None:
        """A cache that cannot be written costs time, nothing else."""
        if self._cache is None:
            return
        with contextlib.suppress(OSError):
            for run_id in sorted(self._changed):
                write_bytes(self._path(run_id), orjson.dumps(self._known[run_id]))
        self._changed.clear()

    def _path(self, run_id: str) -> Path:
        assert self._cache is not None
        return self._cache / run_id[:2] / f"{run_id}.json"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of hypotheses.

    Raises:
        DataError: It is not what an evaluation writes.
    """
    try:
        lines = [orjson.loads(line) for line in path.read_bytes().splitlines() if line]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: got {error}, expected JSON lines") from error
    if not all(isinstance(line, dict) and "key" in line for line in lines):
        raise DataError(f"{path}: got lines without a key, expected hypotheses")
    return lines


def _columns(lines: Iterable[Mapping[str, Any]], measure: str) -> list[list[Any]] | None:
    """Keys, errors and reference lengths; None if the errors are not there."""
    columns: list[list[Any]] = [[], [], []]
    try:
        for line in lines:
            if measure == "cer":
                errors = line["substitutions"] + line["deletions"] + line["insertions"]
                length = line["reference_length"]
            else:
                errors, length = line[f"{measure}_errors"], line[f"{measure}_reference_length"]
            for column, value in zip(columns, (line["key"], errors, length), strict=True):
                column.append(value)
    except KeyError:
        return None
    return columns if sum(columns[2]) else None


def _by_epoch(
    epochs: Sequence[MetricPoint], values: Sequence[MetricPoint]
) -> list[tuple[int, float]]:
    """A metric by epoch: the first value of each, since the chosen checkpoint's comes last again.

    Values between epochs (`validate_interval`) have no epoch at their step.
    """
    at_step = {point.step: point.value for point in values}
    curve: dict[int, float] = {}
    for point in epochs:
        if point.step in at_step:
            curve.setdefault(round(point.value), at_step[point.step])
    return sorted(curve.items())


def _read(path: Path) -> Iterator[list[dict[str, Any]]]:
    if path.is_file():
        with contextlib.suppress(DataError):
            yield read_lines(path)


def _recording(line: Mapping[str, Any]) -> dict[str, Any]:
    """What a line of hypotheses says of its recording."""
    return {name: line[name] for name in _OF_RECORDING if line.get(name) is not None}


def _merged(said: Mapping[str, Any], known: Spoken) -> Spoken:
    """What a line says of a recording, and what only the manifest does."""
    tags = {name: said[name] for name in SLICED_BY if name in said}
    return replace(
        known,
        **{name: said[name] for name in said if name not in tags},
        tags={**known.tags, **tags},
    )


def _spoken(item: Utterance) -> Spoken:
    elsewhere = ("call", "call_id", "source_len", "target_len", "duration_s")
    return Spoken(
        reference=item.target,
        speaker=item.speaker,
        call=item.call,
        duration_s=item.duration_s,
        tags={name: value for name, value in item.tags.items() if name not in elsewhere},
    )


def json_numbers(text: str) -> Any:
    """A param as MLflow keeps it (text) as the value that it says."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def is_number(value: object) -> bool:
    """Whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
