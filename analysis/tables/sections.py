"""The further tables of a comparison, as facts. Order of sections and of columns is part of the
format.
"""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

import numpy

from analysis.facts.comparison import FIRST, Comparison, Row
from analysis.facts.grouping import Grouping
from analysis.facts.records import differing
from analysis.facts.significance import Estimate, difference, rate
from analysis.facts.utterances import BASE, EvaluationSet, is_number, json_numbers
from conf.delta import SEVERITIES, UNPROVEN
from conf.document.language import Said
from conf.document.tables import Column, Kind, Section, columns_of
from conf.effects import effect_of
from conf.keys import find_key
from conf.writing import format_value

INTERVALS = (
    "Intervals: 95 %, leaving out one speaker (or call, or utterance) at a time; differences are "
    "paired."
)

_DECILES = 10
_MOST_TAG_VALUES = 12
SAID_KINDS = ("duration", "speaker", "text")
"""Kinds of slices that are words; others are named as in the manifest."""
_MOST_SLICES = 40
"""Of a kind: hundreds of speakers are no table; the report's browser has them all."""
_RANGES: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "duration": ("s", (0, 2, 5, 10, 20)),
    "snr_db": ("dB", (-math.inf, 0, 5, 10, 15, 20)),
}
"""Where the parts of a number begin, the same for every set, so that sets can be compared."""


def sections(facts: Comparison) -> tuple[Section, ...]:
    """All tables that have something to say."""
    made = (
        confirmed(facts),
        slices(facts),
        forgetting(facts),
        marginal(facts),
        differing_keys(facts),
        curves(facts),
        apart(facts),
    )
    return tuple(section for section in made if section.rows)


def confirmed(facts: Comparison) -> Section:
    """The finalists and the base on each set; the test set is the one no trial was chosen by."""
    names = [Column("set"), Column("config"), Column("trial", "count"), Column("stage")]
    columns = [*names, Column("cer", "rate"), Column("interval", "interval")]
    for other in ("baseline", "base"):
        columns += _difference_columns(f"over_{other}")
    rows = []
    for split in ("test", "valid", "wideband"):
        if all(_cer_of(facts, row, split) is None for row in facts.finalists):
            continue
        for row in facts.finalists:
            cer = _cer_of(facts, row, split)
            if cer is None:
                continue
            baseline = facts.baseline_of(row)
            own = baseline is not None and baseline.trial != row.trial
            over = [
                facts.paired(row.trial, baseline.trial, split) if baseline and own else None,
                facts.paired(row.trial, BASE, split),
            ]
            interval = _ends(facts.interval(row.trial, split))
            line: list[Any] = [split, _role(facts, row), row.trial, row.stage, cer, interval]
            for one in over:
                line += _difference_cells(one)
            rows.append(tuple(line))
        base = facts.base.get(facts.objective if split == "valid" else f"{split}/cer")
        scored = facts.evidence.scored.get((BASE, split))
        if base is None and scored is not None:
            base = scored.rate
        if base is not None:
            interval = _ends(facts.interval(BASE, split))
            rows.append((split, "base", None, "", base, interval, *[None] * 6))
    title = Said("The finalists on every set (no trial was chosen by the test set)")
    shown = tuple(rows) if facts.finalists else ()
    notes = (Said(INTERVALS), *clustering(facts)) if facts.evidence.sets else ()
    return Section("finalists", title, tuple(columns), shown, notes)


def units(grouping: Grouping) -> Said:
    """What the clusters of a set are, in the plural."""
    return Said("single utterances" if grouping.unit == "utterance" else f"{grouping.unit}s")


TOO_NARROW = Said(": too narrow if anybody speaks twice")


def clustering(facts: Comparison) -> list[Said]:
    """What the intervals of each set rest on."""
    notes = []
    for split, evaluated in facts.evidence.sets.items():
        grouping = evaluated.grouping
        values: dict[str, object] = {"split": split, "count": len(evaluated.keys)}
        values |= {"why": Said(evaluated.note), "problem": evaluated.problem}
        if grouping.unit == "utterance":
            text = "{split}: {count} utterances, each by itself: {why}{narrow}."
            if evaluated.problem:
                text = "{split}: {count} utterances, each by itself: {why} ({problem}){narrow}."
        else:
            text = "{split}: {count} utterances of {clusters} {unit}."
            if grouping.crossed is not None:
                text = "{split}: {count} utterances of {clusters} {unit}, crossed by {others}."
                values["others"] = Said("speakers" if grouping.unit == "call" else "calls")
            elif evaluated.note:
                text = "{split}: {count} utterances of {clusters} {unit}; {why}{narrow}."
            values |= {"clusters": grouping.count, "unit": units(grouping)}
        values["narrow"] = TOO_NARROW if grouping.may_be_narrow else ""
        notes.append(Said(text, **values))
    return notes


def slices(facts: Comparison) -> Section:
    """Where the best trial gains and where it loses, against its baseline and the base."""
    columns = [
        *columns_of("text", "set", "by", "slice"),
        *columns_of("count", "utterances", "characters"),
        *columns_of("rate", "base", "baseline", "best"),
        Column("best_interval", "interval"),
        *_difference_columns("over_baseline"),
    ]
    rows: list[tuple[Any, ...]] = []
    best = facts.best
    baseline = facts.baseline_of(best) if best else None
    for split in ("valid", "test") if best else ():
        assert best is not None
        ours = facts.evidence.scored.get((best.trial, split))
        if ours is None:
            continue
        evaluated = facts.evidence.sets[split]
        other = baseline.trial if baseline and baseline.trial != best.trial else None
        theirs = facts.evidence.scored.get((other, split)) if other is not None else None
        base = facts.evidence.scored.get((BASE, split))
        parts = list(cuts(evaluated))
        sizes = Counter(by for by, _, _ in parts)
        for by, name, chosen in parts:
            if sizes[by] > _MOST_SLICES:
                continue
            lengths = ours.lengths[chosen]
            total = int(lengths.sum())
            if not total:
                continue
            clusters = numpy.unique(evaluated.grouping.clusters[chosen], return_inverse=True)[1]
            over = None
            if theirs is not None:
                over = difference(ours.errors[chosen], theirs.errors[chosen], lengths, clusters)
            own = rate(ours.errors[chosen], lengths, clusters)
            rates = [
                None if one is None else float(one.errors[chosen].sum() / total)
                for one in (base, theirs)
            ]
            paired = _difference_cells(over)
            said = (Said(by) if by in SAID_KINDS else by, slice_name(by, name))
            counts = (len(lengths), total)
            rows.append((split, *said, *counts, *rates, own.value, _ends(own), *paired))
    note = Said("Many slices: one in twenty is beyond its interval by chance.")
    return Section("slices", Said("By slice"), tuple(columns), tuple(rows), (note,))


def cuts(evaluated: EvaluationSet) -> Iterable[tuple[str, str, Any]]:
    """What the set can be divided by: kind, name and utterances of each part."""
    spoken = evaluated.spoken
    values: dict[str, list[Any]] = {
        "duration": [one.duration_s for one in spoken],
        "speaker": [one.speaker for one in spoken],
        "text": [text_class(one.reference) if one.reference else None for one in spoken],
    }
    for tag in dict.fromkeys(tag for one in spoken for tag in one.tags):
        values[tag] = [one.tags.get(tag) for one in spoken]
    for kind, own in values.items():
        labels = own if kind in ("speaker", "text") else _tag_labels(kind, own)
        parts: dict[str, list[int]] = {}
        for index in sorted(range(len(own)), key=lambda index: _natural(own[index])):
            label = labels[index]
            if label is not None:
                parts.setdefault(label, []).append(index)
        if len(parts) > 1:
            for label, chosen in parts.items():
                yield kind, label, numpy.array(sorted(chosen), dtype=numpy.int64)


def text_class(text: str) -> str:
    """What kind of words: `numbers` (half of it or more), `latin`, `mixed` or `words`."""
    letters = [char for char in text if unicodedata.category(char)[0] in "LN"]
    if not letters:
        return "silence"
    digits = sum(
        char in "零一二三四五六七八九十百千万亿幺两〇" or char.isdigit() for char in letters
    )
    latin = sum("LATIN" in unicodedata.name(char, "") for char in letters)
    if 2 * digits >= len(letters):
        return "numbers"
    if latin == len(letters):
        return "latin"
    return "mixed" if latin else "words"


def forgetting(facts: Comparison) -> Section:
    """Telephone against wideband speech: what was won here and lost there."""
    base = facts.base.get("wideband/cer")
    columns = (
        Column("trial", "count"),
        Column("stage"),
        Column("objective", _kind(facts)),
        Column("wideband", "rate"),
        Column("wideband_over_base", "points"),
        Column("front", "mark"),
    )
    shown = {row.trial for row in facts.finalists}
    rows = tuple(
        (
            row.trial,
            row.stage,
            row.objective,
            row.wideband_cer,
            None if base is None else row.wideband_cer - base,
            row.front,
        )
        for row in facts.rows
        if row.outcome == "completed" and row.wideband_cer is not None
        if row.front or row.trial in shown
    )
    note = Said("front: no completed trial is better on telephone and on wideband speech alike.")
    title = Said("Telephone against wideband speech")
    return Section("forgetting", title, columns, rows, (note,))


def marginal(facts: Comparison) -> Section:
    """What each searched key did by itself, whatever the others were."""
    columns = (
        Column("key"),
        *columns_of("number", "from", "to"),
        Column("value"),
        Column("trials", "count"),
        *columns_of(_kind(facts), "best", "median", "mean"),
        Column("best_trial", "count"),
    )
    scored = [row for row in facts.rows if row.objective is not None and row.replicate_of is None]
    trials = facts.sweep_record.by_number
    rows: list[tuple[Any, ...]] = []
    for key in _searched(facts, scored):
        pairs = [(json_numbers(trials[row.trial].params.get(key, "null")), row) for row in scored]
        if all(is_number(value) for value, _ in pairs):
            for part in _parts(pairs):
                values = [value for value, _ in part]
                rows.append((key, min(values), max(values), "", *_summary([r for _, r in part])))
        else:
            rows += _by_value(key, [(format_value(value), row) for value, row in pairs])
    if len({row.stage for row in scored}) > 1:
        rows += _by_value("stage", [(row.stage, row) for row in scored])
    note = Said("Every trial with a score counts, pruned ones with the best they had.")
    title = Said("What each key did by itself")
    return Section("effects", title, columns, tuple(rows), (note,))


def _searched(facts: Comparison, scored: Sequence[Row]) -> list[str]:
    """The keys in which trials of one stage differ: the search set them, not the stage."""
    trials = facts.sweep_record.by_number
    found: dict[str, None] = {}
    for stage in dict.fromkeys(row.stage for row in scored):
        found |= dict.fromkeys(differing([trials[r.trial] for r in scored if r.stage == stage]))
    return sorted(found, key=lambda key: (FIRST.index(key) if key in FIRST else len(FIRST), key))


def _by_value(key: str, pairs: Sequence[tuple[str, Row]]) -> list[tuple[Any, ...]]:
    return [
        (key, None, None, value, *_summary([row for one, row in pairs if one == value]))
        for value in dict.fromkeys(value for value, _ in pairs)
    ]


def differing_keys(facts: Comparison) -> Section:
    """The finalists' configs against each other: only what differs, most severe first."""
    trials = facts.sweep_record.by_number
    shown = [row for row in facts.finalists if trials[row.trial].params]
    names = [f"{row.stage} #{row.trial}{' default' if row.baseline else ''}" for row in shown]
    columns = (
        Column("key"),
        *columns_of("value", *names),
        *columns_of("text", "severity", "effect"),
    )
    rows = []
    for key, texts in differing([trials[row.trial] for row in shown]).items():
        known = find_key(key)
        said = [None if text is None else json_numbers(text) for text in texts]
        severity = known.severity if known else "minor"
        rows.append((key, *said, severity, _effect(key, [row.stage for row in shown])))
    rows.sort(key=lambda row: SEVERITIES.index(row[-2]))
    title = Said("The finalists' configs, where they differ")
    return Section("configs", title, columns, tuple(rows))


def _kind(facts: Comparison) -> Kind:
    """How the objective is shown: a loss is no rate."""
    return "number" if facts.objective.endswith("loss") else "rate"


def _effect(key: str, stages: Sequence[str]) -> str:
    """Whether anything reads a key; where stages differ in that, which of them."""
    by_effect: dict[str, list[str]] = {}
    for stage in dict.fromkeys(stages):
        by_effect.setdefault(effect_of(key, stage) or UNPROVEN, []).append(stage)
    if len(by_effect) == 1:
        return next(iter(by_effect))
    return ", ".join(f"{effect} ({' '.join(own)})" for effect, own in by_effect.items())


def curves(facts: Comparison) -> Section:
    """The objective at fixed epochs: how trials stood when others were cut."""
    known = {
        trial: {epoch: value for epoch, value in curve.items() if math.isfinite(value)}
        for trial, curve in facts.evidence.curves.items()
    }
    last = max((max(curve) for curve in known.values() if curve), default=0)
    epochs = [0, *_fixed_epochs(last)]
    columns = (
        Column("trial", "count"),
        *columns_of("text", "stage", "outcome"),
        *columns_of(_kind(facts), *(f"epoch_{epoch}" for epoch in epochs)),
    )
    rows = [
        (row.trial, row.stage, row.outcome, *(known[row.trial].get(epoch) for epoch in epochs))
        for row in facts.rows
        if known.get(row.trial)
    ]
    title = Said("Learning curves: {objective} after so many epochs", objective=facts.objective)
    return Section("curves", title, columns, tuple(rows))


def apart(facts: Comparison) -> Section:
    """Trials that saw something else."""
    columns = (
        Column("trial", "count"),
        *columns_of("text", "stage", "outcome"),
        Column("objective", _kind(facts)),
        Column("reason"),
    )
    rows = tuple((a.trial, a.stage, a.outcome, a.objective, a.reason) for a in facts.apart)
    return Section("apart", Said("Not compared"), columns, rows)


def _fixed_epochs(last: int) -> list[int]:
    """1, 2, 4, ... and the last."""
    epochs = [2**n for n in range(last.bit_length()) if 2**n < last]
    return [*epochs, last] if last else []


def _cer_of(facts: Comparison, row: Row, split: str) -> float | None:
    if split == "valid":  # the objective, where it is an error rate
        counted = facts.objective == "valid/cer" or (row.trial, "valid") in facts.evidence.scored
        return row.objective if counted else None
    return {"test": row.test_cer, "wideband": row.wideband_cer}.get(split)


def _role(facts: Comparison, row: Row) -> str:
    if facts.best is row:
        return "best, baseline" if row.baseline else "best"
    return "baseline" if row.baseline else "best of stage"


def _ends(estimate: Estimate | None) -> tuple[float, float] | None:
    if estimate is None or estimate.low is None or estimate.high is None:
        return None
    return estimate.low, estimate.high


def _difference_columns(name: str) -> list[Column]:
    return [Column(name, "points"), Column(f"{name}_interval", "span"), Column(f"{name}_p", "p")]


def _difference_cells(estimate: Estimate | None) -> list[Any]:
    return [None] * 3 if estimate is None else [estimate.value, _ends(estimate), estimate.p]


def _summary(rows: Sequence[Row]) -> tuple[int, float, float, float, int]:
    scored = [(row.objective, row.trial) for row in rows if row.objective is not None]
    values = [value for value, _ in scored]
    best = min(scored)
    return len(values), best[0], median(values), fmean(values), best[1]


def _parts(pairs: Sequence[tuple[float, Row]]) -> list[list[tuple[float, Row]]]:
    """Tenths of the trials by value; every value by itself where there are few."""
    ordered = sorted(pairs, key=lambda pair: (pair[0], pair[1].trial))
    values = sorted({value for value, _ in ordered})
    if len(values) <= _DECILES:
        return [[pair for pair in ordered if pair[0] == value] for value in values]
    edges = numpy.quantile([value for value, _ in ordered], numpy.linspace(0, 1, _DECILES + 1))
    parts: list[list[tuple[float, Row]]] = [[] for _ in range(_DECILES)]
    for pair in ordered:
        index = int(numpy.searchsorted(edges[1:-1], pair[0], side="right"))
        parts[index].append(pair)
    return [part for part in parts if part]


def _tag_labels(tag: str, values: Sequence[Any]) -> list[str | None]:
    """A tag's values as they are where they are few; numbers in ranges or quarters of the set."""
    present = [value for value in values if value is not None]
    numbers = all(is_number(value) for value in present)
    if numbers and tag in _RANGES:
        return _in_ranges(tag, values)
    if not all(isinstance(value, str | int | float) for value in present):
        return [None] * len(values)
    distinct = len(set(present))
    if distinct == len(values) and not numbers:  # a name of each utterance says nothing of many
        return [None] * len(values)
    if distinct <= _MOST_TAG_VALUES:
        return [None if value is None else str(value) for value in values]
    if not numbers:
        return [None] * len(values)
    edges = [float(edge) for edge in numpy.quantile(present, [0, 0.25, 0.5, 0.75, 1])]
    labels = [f"{low:.3g} to {high:.3g}" for low, high in zip(edges, edges[1:], strict=False)]
    return [
        None if value is None else labels[int(numpy.searchsorted(edges[1:-1], value, side="right"))]
        for value in values
    ]


def _in_ranges(name: str, values: Sequence[float | None]) -> list[str | None]:
    labels = [str(said) for said in _range_names(name)]
    starts = _RANGES[name][1]
    return [None if value is None else labels[bisect(starts, value) - 1] for value in values]


def _range_names(name: str) -> list[Said]:
    unit, starts = _RANGES[name]
    names = [
        Said("{low} to {high}", low=f"{low:g}", high=f"{high:g} {unit}")
        for low, high in zip(starts, starts[1:], strict=False)
    ]
    if math.isinf(starts[0]):
        names[0] = Said("below {high}", high=f"{starts[1]:g} {unit}")
    return [*names, Said("{low} and more", low=f"{starts[-1]:g} {unit}")]


def slice_name(kind: str, label: str) -> Said | str:
    """A part's name to be said in a language; what stands in the manifest stays as it is."""
    if kind in _RANGES:
        return next(said for said in _range_names(kind) if str(said) == label)
    return Said(label) if kind == "text" else label


def _natural(value: Any) -> tuple[Any, ...]:
    """Sorts numbers by their value, and in names 2 before 10."""
    if is_number(value):
        return ((0, float(value), ""),)
    parts = re.split(r"(\d+(?:\.\d+)?)", str(value))
    return tuple((0, float(p), "") if i % 2 else (1, 0.0, p) for i, p in enumerate(parts))
