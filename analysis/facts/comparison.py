"""The comparison of a sweep's trials, as facts; `analysis.tables` renders them.

    python -m analysis compare --sweep demo --format md

`compare(record, evidence)` is pure: records in, a frozen `Comparison` out. All rates are fractions.
Only trials that saw the same data, text rules and initial weights are compared; a difference from
the stage's default config is paired, utterance by utterance.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, median

from analysis.facts.records import (
    COMPARABLE,
    DEFAULT_OBJECTIVE,
    OUTCOMES,
    Source,
    SweepRecord,
    TrialRecord,
    load_sweep,
)
from analysis.facts.significance import LEVEL, Estimate, difference, noise_band, rate
from analysis.facts.simultaneous import simultaneous
from analysis.facts.utterances import Evidence, Reader, Scored

LR, WEIGHT_DECAY, EPOCHS = "optim_conf.lr", "optim_conf.weight_decay", "train_conf.max_epoch"
FIRST = (LR, WEIGHT_DECAY, EPOCHS)
"""Keys that are named before all others."""
EDITS = ("substitutions", "deletions", "insertions")
_BESIDE = ("valid/cer_ctc", "wideband/cer", "test/cer", *(f"valid/{what}" for what in EDITS))
"""What stands beside the objective in a row."""


@dataclass(frozen=True)
class Row:
    """One trial as the tables show it. `None` means: not measured, or nothing to compare with."""

    trial: int
    run_id: str
    stage: str
    baseline: bool
    outcome: str
    reason: str
    lr: float | None
    weight_decay: float | None
    epochs: int | None
    epochs_run: int | None
    objective: float | None
    over_base: float | None
    """Objective divided by the base's: 0.5 is half the errors."""
    over_baseline: float | None
    """Objective divided by that of the stage's default config."""
    errors: int | None
    substitutions: int | None
    deletions: int | None
    insertions: int | None
    cer_ctc: float | None
    wideband_cer: float | None
    test_cer: float | None
    critical: tuple[str, ...]
    duration_s: float | None
    replicate_of: int | None = None
    seeds: tuple[float, ...] = ()
    """The objectives of its config over several seeds, its own first; empty if it was run once."""
    known_from: str = ""
    known_epochs: int | None = None
    candidate: bool = True
    """May be chosen: no replicate, within its bounds, and trained itself."""
    interval: Estimate | None = None
    """The objective's, from the errors of each utterance."""
    paired: Estimate | None = None
    """The objective minus that of the stage's default config, on the same utterances."""
    corrected: Estimate | None = None
    """The same with what choosing among all trials does to it; of trials of the winner's stage."""
    front: bool = False
    """Completed, and no other completed trial is better on telephone and wideband speech alike."""

    @property
    def confirmed(self) -> float | None:
        """The mean objective over its seeds, where it was run with several."""
        return fmean(self.seeds) if self.seeds else None


@dataclass(frozen=True)
class Apart:
    """A trial that is not compared, and why."""

    trial: int
    stage: str
    outcome: str
    reason: str
    objective: float | None


@dataclass(frozen=True)
class Noise:
    """What another seed changes."""

    band: float
    """Differences of two single runs below this are what chance alone gives, in 95 % of cases."""
    configs: int
    runs: int


@dataclass(frozen=True)
class StageSummary:
    """What the trials of one stage reached."""

    stage: str
    outcomes: Mapping[str, int]
    baseline: float | None
    best: float
    best_trial: int
    best_lr: float | None
    middle: float
    """Median objective of the stage's trials."""
    worst: float
    worst_trial: int
    worst_lr: float | None


@dataclass(frozen=True)
class LrBand:
    """The best objective of each stage among the trials whose learning rate lies in [low, high)."""

    low: float
    high: float
    best: Mapping[str, float]
    """By stage."""
    trials: Mapping[str, int]
    """How many there are, by stage."""


@dataclass(frozen=True)
class Comparison:
    """All that the comparison says."""

    sweep: str
    run_id: str
    objective: str
    """Name of the metric."""
    base: Mapping[str, float]
    """Metrics of the untrained base by their names."""
    rows: tuple[Row, ...]
    """Completed trials by objective, then the pruned, the failed and the unfinished ones."""
    stages: tuple[StageSummary, ...]
    bands: tuple[LrBand, ...]
    """By learning rate; one without scored trials is left out."""
    sweep_record: SweepRecord
    evidence: Evidence
    apart: tuple[Apart, ...] = ()
    noise: Noise | None = None
    compared: int = 0
    """How many trials the corrected differences allow for."""

    def row(self, trial: int) -> Row | None:
        """The row of a trial, by its number."""
        return next((row for row in self.rows if row.trial == trial), None)

    @cached_property
    def finalists(self) -> tuple[Row, ...]:
        """The best trial, the default configs and the best of each other stage, in this order."""
        chosen = [self.best] if self.best else []
        done = [row for row in self.rows if row.outcome == "completed"]
        chosen += [row for row in done if row.baseline]
        for stage in dict.fromkeys(row.stage for row in done):
            chosen.append(next(row for row in done if row.stage == stage))
        return tuple({row.trial: row for row in chosen}.values())

    def baseline_of(self, row: Row) -> Row | None:
        """The default config of a trial's stage, where it completed."""
        found = (r for r in self.rows if r.baseline and r.outcome == "completed")
        return next((r for r in found if r.stage == row.stage), None)

    def interval(self, trial: int, split: str) -> Estimate | None:
        """A trial's CER on a set (or the base's, `BASE`) with its interval."""
        return _interval(self.evidence, trial, split)

    def paired(self, trial: int, other: int, split: str) -> Estimate | None:
        """A trial's CER minus another's on the same utterances of a set."""
        return _paired(self.evidence, trial, other, split)

    @cached_property
    def best(self) -> Row | None:
        """The row of the `winner`."""
        found = winner(self.sweep_record)
        return None if found is None else self.row(found.trial)

    @cached_property
    def alike(self) -> tuple[Row, ...]:
        """Candidates that the validation set cannot tell from the best, by their rank."""
        best = self.best
        if best is None:
            return ()
        others = [
            row
            for row in self.rows
            if row.candidate and row.outcome == "completed" and row.trial != best.trial
        ]
        found = _simultaneous(self.evidence, {row.trial: best.trial for row in others})
        return tuple(
            row for row in others if row.trial in found and (found[row.trial].p or 1.0) > 1 - LEVEL
        )

    @property
    def common_critical(self) -> tuple[str, ...]:
        """Critical deltas that every trial has: said once under the table, not in every row."""
        rows = [row.critical for row in self.rows if row.critical]
        return tuple(k for k in rows[0] if all(k in r for r in rows)) if rows else ()


def comparison(name: str, store: Source, cache: Path | None = None) -> Comparison:
    """Read sweep `name` from the store and compare its trials.

    Args:
        name: The sweep.
        store: Where it is.
        cache: Directory in which ended runs are remembered; None asks the store for everything.
    """
    sweep = load_sweep(name, store)
    return compare(sweep, gather(sweep, Reader(sweep, store, cache)))


def gather(sweep: SweepRecord, reader: Reader) -> Evidence:
    """Read what the comparison needs of each trial: see `analysis.facts.utterances`."""
    trials, _ = comparable(sweep)
    curves = {trial.trial: reader.curve(trial) for trial in trials if trial.metrics}
    done = [trial for trial in trials if trial.outcome == "completed"]
    cut = [trial for trial in trials if trial.outcome != "completed" and curves.get(trial.trial)]
    at_best = {trial.trial: reader.at_best(trial, _BESIDE) for trial in cut}
    for trial in trials:
        if trial.outcome in ("completed", "pruned"):
            reader.score(trial, "valid")
    draft = compare(sweep, Evidence())
    finalists = {row.trial for row in draft.finalists}
    for split in ("test", "wideband"):
        if any(f"{split}/cer" in trial.metrics for trial in done):
            for trial in done:
                if trial.trial in finalists:
                    reader.score(trial, split)
    for split in ("valid", "test", "wideband"):
        reader.score_base(split)
    return reader.evidence(curves, at_best)


def compare(sweep: SweepRecord, evidence: Evidence | None = None) -> Comparison:
    """Rank a sweep's trials and set them against the base and their stages' default configs."""
    evidence = evidence or Evidence()
    trials, apart = comparable(sweep)
    rows, compared = _corrected(sweep, list(_rows(sweep, trials, evidence)), evidence)
    rows = sorted(rows, key=_rank)
    return Comparison(
        sweep=sweep.name,
        run_id=sweep.run_id,
        objective=sweep.objective,
        base=dict(sweep.base),
        rows=tuple(rows),
        stages=_stages(rows),
        bands=_bands(rows),
        sweep_record=sweep,
        evidence=evidence,
        apart=apart,
        noise=_noise(rows),
        compared=compared,
    )


def comparable(sweep: SweepRecord) -> tuple[tuple[TrialRecord, ...], tuple[Apart, ...]]:
    """Part the trials that may be compared from those that saw something else."""
    usual = yardstick(sweep)
    alike, apart = [], []
    for trial in sweep.trials:
        if reasons := foreign(trial.comparable, usual):
            value = objective_of(trial, sweep.objective)
            said = "; ".join(reasons)
            apart.append(Apart(trial.trial, trial.stage, trial.outcome, said, value))
        else:
            alike.append(trial)
    return tuple(alike), tuple(apart)


def yardstick(sweep: SweepRecord) -> dict[str, str]:
    """The tags of `COMPARABLE` that most trials share, of equals the first's."""
    kinds = Counter(tuple(sorted(t.comparable.items())) for t in sweep.trials if t.comparable)
    return dict(kinds.most_common(1)[0][0]) if kinds else {}


def foreign(tags: Mapping[str, str], usual: Mapping[str, str]) -> list[str]:
    """Why something may not be compared with what is usual; empty if it may.

    A tag that it lacks (a trial failed before it knew) tells nothing against it.
    """
    return [
        f"{why} ({tag} {tags[tag][:12]}, not {usual.get(tag, 'none')[:12]})"
        for tag, why in COMPARABLE.items()
        if tag in tags and tags[tag] != usual.get(tag)
    ]


def winner(sweep: SweepRecord) -> TrialRecord | None:
    """The completed candidate of the lowest objective, the first of equals.

    The lowest of many is low by luck, too. Where it was repeated with other seeds, the lowest mean
    of those that were repeated wins instead.
    """
    trials, _ = comparable(sweep)
    values = {
        trial.trial: value
        for trial in trials
        if trial.candidate
        and trial.outcome == "completed"
        and (value := objective_of(trial, sweep.objective)) is not None
    }
    if not values:
        return None
    lowest = min(values, key=lambda number: (values[number], number))
    seeds = _seeds(trials, sweep.objective)
    if lowest in seeds:
        values = {number: fmean(seeds[number]) for number in values if number in seeds}
        lowest = min(values, key=lambda number: (values[number], number))
    return next(trial for trial in trials if trial.trial == lowest)


def _seeds(trials: Sequence[TrialRecord], objective: str) -> Mapping[int, tuple[float, ...]]:
    """The objectives of the trials that were repeated, their own first."""
    own: dict[int, float] = {}
    others: dict[int, list[float]] = {}
    for trial in trials:
        value = objective_of(trial, objective)
        if trial.outcome != "completed" or value is None:
            continue
        if trial.replicate_of is None:
            own[trial.trial] = value
        else:
            others.setdefault(trial.replicate_of, []).append(value)
    return {number: (own[number], *values) for number, values in others.items() if number in own}


def objective_of(trial: TrialRecord, name: str) -> float | None:
    """A trial's objective: the chosen checkpoint's, or the best there was if it was cut short.

    The metric `objective` is the valid/cer of that checkpoint; a sweep that lowers another metric
    is judged by that metric's last value, which is the chosen checkpoint's too.
    """
    chosen = trial.metric("objective") if name == DEFAULT_OBJECTIVE else None
    return trial.metric(name) if chosen is None else chosen


def _rank(row: Row) -> tuple[int, float, int]:
    # A trial without an objective has no place among those that have one: last of its outcome.
    value = math.inf if row.objective is None else row.objective
    return OUTCOMES.index(row.outcome), value, row.trial


def _rows(sweep: SweepRecord, trials: Sequence[TrialRecord], evidence: Evidence) -> Iterable[Row]:
    baselines: dict[str, tuple[int, float]] = {}
    for trial in trials:
        value = objective_of(trial, sweep.objective)
        if trial.baseline and trial.outcome == "completed" and value is not None:
            baselines.setdefault(trial.stage, (trial.trial, value))
    base = sweep.base.get(sweep.objective)
    front = _front(trials, sweep.objective)
    seeds = _seeds(trials, sweep.objective)
    for trial in trials:
        value = objective_of(trial, sweep.objective)
        baseline, baseline_value = baselines.get(trial.stage, (None, None))
        interval = _interval(evidence, trial.trial, "valid")
        agrees = (
            interval and value is not None and math.isclose(interval.value, value, abs_tol=1e-6)
        )
        measured = {name: trial.metric(name) for name in _BESIDE}
        measured |= evidence.at_best.get(trial.trial, {})
        counts = [_whole(measured[f"valid/{what}"]) for what in EDITS]
        known = [count for count in counts if count is not None]
        yield Row(
            trial=trial.trial,
            run_id=trial.run_id,
            stage=trial.stage,
            baseline=trial.baseline,
            outcome=trial.outcome,
            reason=trial.reason,
            lr=trial.number(LR),
            weight_decay=trial.number(WEIGHT_DECAY),
            epochs=_whole(trial.number(EPOCHS)),
            epochs_run=_whole(trial.metric("epoch")),
            objective=value,
            over_base=_ratio(value, base),
            over_baseline=_ratio(value, baseline_value),
            errors=sum(known) if len(known) == len(counts) else None,
            substitutions=counts[0],
            deletions=counts[1],
            insertions=counts[2],
            cer_ctc=measured["valid/cer_ctc"],
            wideband_cer=measured["wideband/cer"],
            test_cer=measured["test/cer"],
            critical=trial.critical,
            duration_s=trial.duration_s,
            replicate_of=trial.replicate_of,
            seeds=seeds.get(trial.trial, ()),
            known_from=trial.known_from,
            known_epochs=trial.known_epochs,
            candidate=trial.candidate,
            interval=interval if agrees else None,
            paired=None
            if baseline is None or baseline == trial.trial or not agrees
            else _paired(evidence, trial.trial, baseline, "valid"),
            front=trial.trial in front,
        )


def _corrected(
    sweep: SweepRecord, rows: Sequence[Row], evidence: Evidence
) -> tuple[Sequence[Row], int]:
    """The rows of the winner's stage with their paired differences corrected for the choosing.

    Whichever trial had come first, its stage's default config is what it would be compared with;
    so all trials are, at once, with the one that the winner is. Repeats were no choice.

    Returns:
        All rows, and with how many trials the choice was made.
    """
    best = winner(sweep)
    stage = best.stage if best else ""
    default = next((r.trial for r in rows if r.stage == stage and r.baseline and r.interval), None)
    if default is None:
        return rows, 0
    compared = [r.trial for r in rows if r.interval and r.replicate_of is None]
    found = _simultaneous(evidence, {trial: default for trial in compared if trial != default})
    return [
        replace(row, corrected=found.get(row.trial)) if row.stage == stage else row for row in rows
    ], len(found)


def _simultaneous(evidence: Evidence, pairs: Mapping[int, int]) -> dict[int, Estimate]:
    """Several trials minus others, on the validation set, all at once."""
    scored = evidence.scored
    known = {
        one: other
        for one, other in pairs.items()
        if (one, "valid") in scored and (other, "valid") in scored
    }
    if not known:
        return {}
    apart = [
        scored[one, "valid"].errors - scored[other, "valid"].errors for one, other in known.items()
    ]
    lengths = scored[next(iter(known)), "valid"].lengths
    if not lengths.sum():
        return {}
    found = simultaneous(apart, lengths, evidence.sets["valid"].grouping.independent)
    return dict(zip(known, found, strict=True))


def _interval(evidence: Evidence, trial: int, split: str) -> Estimate | None:
    scored = evidence.scored.get((trial, split))
    if scored is None or not scored.lengths.sum():
        return None
    grouping = evidence.sets[split].grouping
    return rate(scored.errors, scored.lengths, grouping.clusters, grouping.crossed)


def _paired(evidence: Evidence, trial: int, other: int, split: str) -> Estimate | None:
    scored: list[Scored | None] = [evidence.scored.get((one, split)) for one in (trial, other)]
    ours, theirs = scored
    if ours is None or theirs is None or not ours.lengths.sum():
        return None
    grouping = evidence.sets[split].grouping
    return difference(ours.errors, theirs.errors, ours.lengths, grouping.clusters, grouping.crossed)


def _front(trials: Sequence[TrialRecord], objective: str) -> frozenset[int]:
    """The completed trials that no other beats or equals in one of the two and beats in another."""
    points = [
        (value, wideband, trial.trial)
        for trial in trials
        if trial.outcome == "completed"
        and (value := objective_of(trial, objective)) is not None
        and (wideband := trial.metric("wideband/cer")) is not None
    ]
    front, least = set(), math.inf
    for _, wideband, number in sorted(points):
        if wideband < least:
            front.add(number)
            least = wideband
    return frozenset(front)


def _noise(rows: Sequence[Row]) -> Noise | None:
    """The band from the configs that were run with several seeds."""
    several = [row.seeds for row in rows if row.seeds]
    band = noise_band(several)
    return None if band is None else Noise(band, len(several), sum(map(len, several)))


def _whole(value: float | None) -> int | None:
    return None if value is None or math.isinf(value) else round(value)


def _ratio(value: float | None, reference: float | None) -> float | None:
    return value / reference if value is not None and reference else None


def _stages(rows: Sequence[Row]) -> tuple[StageSummary, ...]:
    summaries = []
    for stage in dict.fromkeys(row.stage for row in rows):
        of_stage = [row for row in rows if row.stage == stage]
        scored = [(row.objective, row) for row in of_stage if row.objective is not None]
        if not scored:
            continue
        # The best is one that may be exported; a pruned trial only counts where nothing completed.
        done = [pair for pair in scored if pair[1].outcome == "completed"] or scored
        best, best_row = min(done, key=lambda pair: (pair[0], pair[1].trial))
        worst, worst_row = max(scored, key=lambda pair: (pair[0], pair[1].trial))
        summaries.append(
            StageSummary(
                stage=stage,
                outcomes=dict(Counter(row.outcome for row in of_stage)),
                baseline=next(
                    (v for v, r in done if r.baseline and r.outcome == "completed"), None
                ),
                best=best,
                best_trial=best_row.trial,
                best_lr=best_row.lr,
                middle=median(value for value, _ in scored),
                worst=worst,
                worst_trial=worst_row.trial,
                worst_lr=worst_row.lr,
            )
        )
    return tuple(sorted(summaries, key=lambda s: s.best))


def _bands(rows: Sequence[Row]) -> tuple[LrBand, ...]:
    scored = [(r.lr, r.objective, r.stage) for r in rows if r.lr and r.objective is not None]
    edges = lr_edges([lr for lr, _, _ in scored])
    bands = []
    for low, high in zip(edges, edges[1:], strict=False):
        best: dict[str, float] = {}
        trials: dict[str, int] = {}
        for lr, objective, stage in scored:
            if low <= lr < high:
                best[stage] = min(objective, best.get(stage, math.inf))
                trials[stage] = trials.get(stage, 0) + 1
        if trials:
            bands.append(LrBand(low=low, high=high, best=best, trials=trials))
    return tuple(bands)


def lr_edges(rates: Sequence[float]) -> list[float]:
    """Edges of the learning-rate bands: decades over a wide range, thirds of a narrow one.

    Example:
        >>> lr_edges([2e-5, 5e-3])
        [1e-05, 0.0001, 0.001, 0.01]
        >>> lr_edges([5e-5, 1e-4])
        [5e-05, 6.3e-05, 7.9e-05, 0.00011]
    """
    if not rates or min(rates) == max(rates):
        return []
    low, high = math.log10(min(rates)), math.log10(max(rates))
    if high - low > 1.5:
        return [float(f"1e{n}") for n in range(math.floor(low), math.floor(high) + 2)]
    inner = [float(f"{10 ** (low + (high - low) * n / 3):.1e}") for n in (1, 2)]
    return [_two_digits(min(rates), math.floor), *inner, _two_digits(max(rates), _next_above)]


def _two_digits(value: float, round_up_or_down: Callable[[float], int]) -> float:
    exponent = math.floor(math.log10(value)) - 1
    # The inner round() takes off what binary fractions add: 5e-5 is 50.000000000000007 steps.
    return float(f"{round_up_or_down(round(value / 10**exponent, 6))}e{exponent}")


def _next_above(value: float) -> int:
    return math.floor(value) + 1
