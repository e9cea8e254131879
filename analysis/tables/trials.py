"""The rows and columns of the tables of trials, stages and bands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from analysis.facts.comparison import EDITS, EPOCHS, LR, WEIGHT_DECAY, Comparison, Row
from analysis.tables.sections import clustering, units
from conf.document.language import Said
from conf.document.numbers import NOTHING, change, duration, ends, measured, number, p_value, points
from conf.document.tables import Grid, spaced


def short_key(key: str) -> str:
    """A critical key in short: audio_encoder_conf.freeze is encoder.freeze, optim_conf.lr lr."""
    block, _, leaf = key.rpartition(".")
    if leaf in ("freeze", "use_lora"):
        part = (
            block.split(".")[0]
            .removesuffix("_conf")
            .removeprefix("audio_")
            .removesuffix("_decoder")
        )
        return f"{part}.{leaf}"
    return leaf


@dataclass(frozen=True)
class Column:
    """A column of the trial table: what it is called, what stands in it, and when it is dropped."""

    heading: str
    cell: Callable[[Row], str]
    sacrifice: int = 0
    """0 always stands; otherwise a narrow console drops the highest number first."""
    left: bool = False


def trial_columns(facts: Comparison) -> list[Column]:
    """The columns of the trial table in which something stands."""
    common = set(facts.common_critical)
    columns = [
        Column("trial", lambda r: str(r.trial)),
        Column("stage", lambda r: r.stage, left=True),
        Column(LR, lambda r: number(r.lr)),
        Column(WEIGHT_DECAY, lambda r: number(r.weight_decay), 3),
        Column(EPOCHS, _epochs, 2),
        Column("errors", lambda r: NOTHING if r.errors is None else str(r.errors), 4),
        Column("objective", lambda r: measured(facts.objective, r.objective)),
        Column("over seeds", lambda r: _over_seeds(r, facts.objective), 4),
        Column("against base", lambda r: change(r.over_base), 1),
        Column("against baseline", lambda r: "baseline" if r.baseline else change(r.over_baseline)),
        Column("95 % interval", lambda r: ends(r.interval) or NOTHING, 9),
        Column("paired points", lambda r: points(r.paired.value if r.paired else None), 10),
        Column("paired interval", lambda r: ends(r.paired, signed=True) or NOTHING, 11),
        Column("p", lambda r: p_value(r.paired.p if r.paired else None), 12),
        Column("p of all", lambda r: p_value(r.corrected.p if r.corrected else None), 8),
        Column("valid/cer_ctc", lambda r: measured("valid/cer_ctc", r.cer_ctc), 7),
        Column("wideband/cer", lambda r: measured("wideband/cer", r.wideband_cer), 6),
        Column("test/cer", lambda r: measured("test/cer", r.test_cer), 5),
        Column(
            "critical deltas",
            lambda r: " ".join(short_key(k) for k in r.critical if k not in common) or NOTHING,
            8,
            left=True,
        ),
        Column("outcome", lambda r: r.outcome, left=True),
        Column("time", lambda r: duration(r.duration_s), 1),
    ]
    # A column in which nothing stands says nothing: a sweep without a test set has no test column.
    return [c for c in columns if not c.sacrifice or any(c.cell(r) != NOTHING for r in facts.rows)]


def trial_grid(facts: Comparison, columns: Sequence[Column]) -> Grid:
    """The trials in these columns, and under them the base."""
    rows = [[column.cell(row) for column in columns] for row in facts.rows]
    if facts.base:
        base = {name: measured(name, value) for name, value in facts.base.items()}
        base |= {
            "trial": "base",
            "objective": measured(facts.objective, facts.base.get(facts.objective)),
        }
        counts = [facts.base.get(f"valid/{what}") for what in EDITS]
        if None not in counts:
            base["errors"] = f"{sum(filter(None, counts)):.0f}"
        rows.append([base.get(column.heading, "") for column in columns])
    return [column.heading for column in columns], rows


def _epochs(row: Row) -> str:
    if row.epochs is None:
        return NOTHING
    stopped = row.outcome != "completed" and row.epochs_run is not None
    return f"{row.epochs_run}/{row.epochs}" if stopped else str(row.epochs)


def _over_seeds(row: Row, objective: str) -> str:
    return f"{measured(objective, row.confirmed)} ({len(row.seeds)})" if row.seeds else NOTHING


def notes(facts: Comparison) -> Iterator[Said]:
    """What a reader must know to read the table of trials."""
    yield Said(
        "objective: {objective} of the checkpoint that would be exported (of a trial cut short: "
        "the best it had); errors: substitutions + deletions + insertions on the validation set; "
        "against: relative change; base: untrained; baseline: the stage's default config.",
        objective=facts.objective,
    )
    if facts.common_critical:
        keys = ", ".join(facts.common_critical)
        yield Said("Critical deltas of every trial: {keys}.", keys=keys)
    if any(row.interval for row in facts.rows):
        yield Said(
            "95 % interval and paired points: of the objective, and of its difference from the "
            "baseline on the same utterances, leaving out one speaker (or call, or utterance) at a "
            "time; p is that of a trial by itself. p of all: how often chance alone makes any of "
            "the {count} trials differ as surely.",
            count=facts.compared,
        )
        yield from clustering(facts)[:1]
    if facts.noise is not None:
        band = f"{100 * facts.noise.band:.2g}"
        yield Said("Differences under {band} points are noise of the seed.", band=band)
    moved = [row.paired for row in facts.rows if row.paired and row.paired.low is not None]
    if moved:
        half = median((one.high or 0.0) - one.value for one in moved)
        grouping = facts.evidence.sets["valid"].grouping
        yield Said(
            "p and intervals speak of the utterances: another set of as many ({count} {unit}) "
            "moves a difference by up to {half} points in 95 % of cases. They do not speak of the "
            "seed.",
            count=grouping.count,
            unit=units(grouping),
            half=f"{100 * half:.2g}",
        )
    if any(row.seeds for row in facts.rows):
        yield Said(
            "over seeds: the mean objective over as many seeds as stand in brackets; the best is "
            "chosen by it among the configs that were repeated."
        )
    for row in facts.rows:
        if row.replicate_of is not None:
            template = "Trial {trial} repeats trial {of} with another seed."
            yield Said(template, trial=row.trial, of=row.replicate_of)
    for row in facts.rows:
        if row.known_from and row.known_epochs is None:
            template = "Trial {trial} was not trained: the curve of trial {of} answers it."
            yield Said(template, trial=row.trial, of=row.known_from)
        elif row.known_from:
            template = "Trial {trial} went on from trial {of} after {epochs} epochs."
            yield Said(template, trial=row.trial, of=row.known_from, epochs=row.known_epochs)
    for row in facts.rows:
        if row.reason and row.outcome in ("failed", "killed"):
            said = {"outcome": Said(row.outcome), "reason": row.reason}
            yield Said("Trial {trial} {outcome}: {reason}", trial=row.trial, **said)


def stage_grid(facts: Comparison) -> Grid:
    """What each stage reached, a line per stage."""
    headings = ["stage", "completed", "baseline", "best", "by trial", "with lr"]
    headings += ["median", "worst", "with lr"]
    rows = [
        [
            s.stage,
            f"{s.outcomes.get('completed', 0)} of {sum(s.outcomes.values())}",
            measured(facts.objective, s.baseline),
            measured(facts.objective, s.best),
            str(s.best_trial),
            number(s.best_lr),
            measured(facts.objective, s.middle),
            measured(facts.objective, s.worst),
            number(s.worst_lr),
        ]
        for s in facts.stages
    ]
    return headings, rows


def band_grid(facts: Comparison) -> Grid:
    """The best objective of each stage, a line per band of learning rates."""
    stages = [s.stage for s in facts.stages]
    rows = [
        [
            f"{number(band.low)} to {number(band.high)}",
            *(
                f"{measured(facts.objective, band.best[s])} ({band.trials[s]})"
                if s in band.best
                else NOTHING
                for s in stages
            ),
        ]
        for band in facts.bands
    ]
    return [LR, *stages], rows


STAGE_TITLE = "What each stage reached"
BAND_TITLE = "Best objective by learning rate and stage (of how many scored trials)"


def heading(name: str) -> str:
    """A column's heading, from its name in JSON and CSV."""
    return HEADINGS.get(name, spaced(name))


HEADINGS = {
    "interval": "95 % interval",
    "over_baseline": "points against baseline",
    "over_baseline_interval": "its interval",
    "over_baseline_p": "its p",
    "over_base": "points against base",
    "over_base_interval": "interval of that",
    "over_base_p": "p of that",
    "best_interval": "95 % interval",
    "wideband": "wideband/cer",
    "wideband_over_base": "points against base",
    "front": "on the front",
}
"""Headings that differ from the name in JSON and CSV."""


FIELDS: Mapping[str, Callable[[Row], object]] = {
    "trial": lambda r: r.trial,
    "run_id": lambda r: r.run_id,
    "stage": lambda r: r.stage,
    "baseline": lambda r: r.baseline,
    "outcome": lambda r: r.outcome,
    "outcome.reason": lambda r: r.reason,
    LR: lambda r: r.lr,
    WEIGHT_DECAY: lambda r: r.weight_decay,
    EPOCHS: lambda r: r.epochs,
    "epoch": lambda r: r.epochs_run,
    "objective": lambda r: r.objective,
    "objective_over_base": lambda r: r.over_base,
    "objective_over_baseline": lambda r: r.over_baseline,
    "valid/errors": lambda r: r.errors,
    "valid/substitutions": lambda r: r.substitutions,
    "valid/deletions": lambda r: r.deletions,
    "valid/insertions": lambda r: r.insertions,
    "valid/cer_ctc": lambda r: r.cer_ctc,
    "wideband/cer": lambda r: r.wideband_cer,
    "test/cer": lambda r: r.test_cer,
    "delta.critical": lambda r: list(r.critical),
    "duration_s": lambda r: r.duration_s,
    "objective_low": lambda r: r.interval and r.interval.low,
    "objective_high": lambda r: r.interval and r.interval.high,
    "paired": lambda r: r.paired and r.paired.value,
    "paired_low": lambda r: r.paired and r.paired.low,
    "paired_high": lambda r: r.paired and r.paired.high,
    "paired_p": lambda r: r.paired and r.paired.p,
    "corrected_low": lambda r: r.corrected and r.corrected.low,
    "corrected_high": lambda r: r.corrected and r.corrected.high,
    "corrected_p": lambda r: r.corrected and r.corrected.p,
    "front": lambda r: r.front,
    "replicate.of": lambda r: r.replicate_of,
    "objective_over_seeds": lambda r: r.confirmed,
    "seeds": lambda r: len(r.seeds) or None,
}
"""A trial in CSV and JSON, in this order."""
