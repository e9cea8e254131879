"""Draws a `Comparison`: the answer in words, a table for the console, Markdown, CSV and JSON.

Only what a person reads is in percent; CSV and JSON carry fractions, under the names that the
configs and MLflow use. Column order is part of the format.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from analysis.compare import EDITS, EPOCHS, LR, WEIGHT_DECAY, Comparison, Row
from analysis.sections import clustering, sections
from conf.errors import UserError
from trainer.document.shown import NOTHING, change, duration, ends, number, p_value, points, rate
from trainer.document.tables import (
    PAIRS,
    Grid,
    Section,
    grid_of,
    left,
    markdown_notes,
    markdown_table,
    spaced,
)
from trainer.document.words import Said

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table


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
    common = set(facts.common_critical)
    columns = [
        Column("trial", lambda r: str(r.trial)),
        Column("stage", lambda r: r.stage, left=True),
        Column(LR, lambda r: number(r.lr)),
        Column(WEIGHT_DECAY, lambda r: number(r.weight_decay), 3),
        Column(EPOCHS, _epochs, 2),
        Column("errors", lambda r: NOTHING if r.errors is None else str(r.errors), 4),
        Column("objective", lambda r: rate(r.objective)),
        Column("over seeds", _over_seeds, 4),
        Column("against base", lambda r: change(r.over_base), 1),
        Column("against baseline", lambda r: "baseline" if r.baseline else change(r.over_baseline)),
        Column("95 % interval", lambda r: ends(r.interval) or NOTHING, 9),
        Column("paired points", lambda r: points(r.paired.value if r.paired else None), 10),
        Column("paired interval", lambda r: ends(r.paired, signed=True) or NOTHING, 11),
        Column("p", lambda r: p_value(r.paired.p if r.paired else None), 12),
        Column("valid/cer_ctc", lambda r: rate(r.cer_ctc), 7),
        Column("wideband/cer", lambda r: rate(r.wideband_cer), 6),
        Column("test/cer", lambda r: rate(r.test_cer), 5),
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


def _trial_grid(facts: Comparison, columns: Sequence[Column]) -> Grid:
    rows = [[column.cell(row) for column in columns] for row in facts.rows]
    if facts.base:
        base = {name: rate(value) for name, value in facts.base.items()}
        base |= {"trial": "base", "objective": rate(facts.base.get(facts.objective))}
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


def _over_seeds(row: Row) -> str:
    return f"{rate(row.confirmed)} ({len(row.seeds)})" if row.seeds else NOTHING


def notes(facts: Comparison) -> list[Said]:
    """What a reader must know to read the table of trials."""
    found = [
        Said(
            "objective: {objective} of the checkpoint that would be exported (of a trial cut "
            "short: the best it had); errors: substitutions + deletions + insertions on the "
            "validation set; against: relative change; base: untrained; baseline: the stage's "
            "default config.",
            objective=facts.objective,
        )
    ]
    if facts.common_critical:
        keys = ", ".join(facts.common_critical)
        found.append(Said("Critical deltas of every trial: {keys}.", keys=keys))
    if any(row.interval for row in facts.rows):
        found.append(
            Said(
                "95 % interval and paired points: of the objective, and of its difference from the "
                "baseline on the same utterances, leaving out one speaker (or call, or utterance) "
                "at a time. With many trials one in twenty differs by chance: the test set "
                "confirms."
            )
        )
        found += clustering(facts)[:1]
    if facts.noise is not None:
        band = f"{100 * facts.noise.band:.2g}"
        found.append(Said("Differences under {band} points are noise here.", band=band))
    if any(row.seeds for row in facts.rows):
        found.append(
            Said(
                "over seeds: the mean objective over as many seeds as stand in brackets; the best "
                "is chosen by it among the configs that were repeated."
            )
        )
    for row in facts.rows:
        if row.replicate_of is not None:
            values = {"trial": row.trial, "of": row.replicate_of}
            found.append(Said("Trial {trial} repeats trial {of} with another seed.", **values))
    for row in facts.rows:
        if row.known_from and row.known_epochs is None:
            template = "Trial {trial} was not trained: the curve of trial {of} answers it."
            found.append(Said(template, trial=row.trial, of=row.known_from))
        elif row.known_from:
            template = "Trial {trial} went on from trial {of} after {epochs} epochs."
            found.append(
                Said(template, trial=row.trial, of=row.known_from, epochs=row.known_epochs)
            )
    for row in facts.rows:
        if row.reason and row.outcome in ("failed", "killed"):
            found.append(
                Said(
                    "Trial {trial} {outcome}: {reason}",
                    trial=row.trial,
                    outcome=Said(row.outcome),
                    reason=row.reason,
                )
            )
    return found


def _stage_grid(facts: Comparison) -> Grid:
    headings = ["stage", "completed", "baseline", "best", "by trial", "with lr"]
    headings += ["median", "worst", "with lr"]
    rows = [
        [
            s.stage,
            f"{s.outcomes.get('completed', 0)} of {sum(s.outcomes.values())}",
            rate(s.baseline),
            rate(s.best),
            str(s.best_trial),
            number(s.best_lr),
            rate(s.middle),
            rate(s.worst),
            number(s.worst_lr),
        ]
        for s in facts.stages
    ]
    return headings, rows


def _band_grid(facts: Comparison) -> Grid:
    stages = [s.stage for s in facts.stages]
    rows = [
        [
            f"{number(band.low)} to {number(band.high)}",
            *(
                f"{rate(band.best[s])} ({band.trials[s]})" if s in band.best else NOTHING
                for s in stages
            ),
        ]
        for band in facts.bands
    ]
    return [LR, *stages], rows


STAGE_TITLE = "What each stage reached"
BAND_TITLE = "Best objective by learning rate and stage (of how many scored trials)"


# Console


STYLES = {"completed": "", "pruned": "dim", "failed": "red", "killed": "yellow", "running": "cyan"}


@dataclass(frozen=True)
class Rendering:
    """Decides at drawing time how many columns the console has room for."""

    facts: Comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw; rich calls this."""
        from rich.text import Text

        facts = self.facts
        yield Text(facts.answer)
        if not facts.rows:
            return
        columns = trial_columns(facts)
        dropped: list[str] = []
        table = _trial_table(facts, columns)
        unbounded = options.update(width=1000)
        while console.measure(table, options=unbounded).maximum > options.max_width:
            least = max(columns, key=lambda c: c.sacrifice)
            if not least.sacrifice:
                break
            columns.remove(least)
            dropped.insert(0, least.heading)
            table = _trial_table(facts, columns)
        yield Text()
        yield table
        for note in notes(facts):
            yield Text(str(note), style="dim")
        if dropped:
            yield Text(
                f"Left out for want of room: {', '.join(dropped)} (all of them: --format md).",
                style="dim",
            )
        for title, grid in ((STAGE_TITLE, _stage_grid(facts)), (BAND_TITLE, _band_grid(facts))):
            if grid[1]:
                yield Text()
                yield Text(title, style="bold")
                yield _rich_grid(grid)
        further = sections(facts)
        for section in further:
            if section.name in ON_CONSOLE:
                yield Text()
                yield Text(str(section.title), style="bold")
                yield _fitting(section, console, options)
        rest = [section.name for section in further if section.name not in ON_CONSOLE]
        if rest:
            yield Text(f"More tables in --format md: {', '.join(rest)}.", style="dim")


def _fitting(section: Section, console: Console, options: ConsoleOptions) -> Table:
    """A section's table with as many of its first columns as there is room for."""
    grid = section_grid(section)
    for width in range(len(grid[0]), 1, -1):
        table = _rich_grid((grid[0][:width], [row[:width] for row in grid[1]]))
        if console.measure(table, options=options.update(width=1000)).maximum <= options.max_width:
            break
    return table


ON_CONSOLE = ("finalists", "apart")
"""The sections that are worth a screen."""


def section_grid(section: Section) -> Grid:
    """A section's headings and its values as a person reads them; empty columns are left out."""
    return grid_of(section, heading=heading)


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


def _trial_table(facts: Comparison, columns: Sequence[Column]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # Broken before the last dot, or optim_conf.weight_decay would set the column's width.
        block, dot, leaf = column.heading.rpartition(".")
        heading = f"{block}\n{dot}{leaf}" if dot else column.heading.replace(" ", "\n")
        table.add_column(heading, justify="left" if column.left else "right", no_wrap=True)
    styles = ["bold green" if row is facts.best else STYLES[row.outcome] for row in facts.rows]
    for cells, style in zip(_trial_grid(facts, columns)[1], [*styles, "italic"], strict=False):
        table.add_row(*cells, style=style)
    return table


def _rich_grid(grid: Grid) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, heading in enumerate(grid[0]):
        broken = heading.replace(" ", "\n")
        table.add_column(broken, justify="left" if index == 0 else "right", no_wrap=True)
    for cells in grid[1]:
        table.add_row(*cells)
    return table


# Files


def markdown(facts: Comparison) -> str:
    """The answer, the trials, the stages and the learning rates."""
    parts = [f"# Sweep {facts.sweep}", facts.answer]
    if facts.rows:
        columns = trial_columns(facts)
        on_the_left = {i for i, column in enumerate(columns) if column.left}
        parts += ["## Trials", markdown_table(_trial_grid(facts, columns), on_the_left)]
        parts.append(markdown_notes(notes(facts)))
    for title, found in ((STAGE_TITLE, _stage_grid(facts)), (BAND_TITLE, _band_grid(facts))):
        if found[1]:
            parts += [f"## {title}", markdown_table(found, {0})]
    for section in sections(facts) if facts.rows else ():
        parts += [f"## {section.title}", markdown_table(section_grid(section), left(section))]
        if section.notes:
            parts.append(markdown_notes(section.notes))
    return "\n\n".join(parts) + "\n"


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
    "front": lambda r: r.front,
    "replicate.of": lambda r: r.replicate_of,
    "objective_over_seeds": lambda r: r.confirmed,
    "seeds": lambda r: len(r.seeds) or None,
}
"""A trial in CSV and JSON, in this order."""


def csv_text(facts: Comparison, table: str = "trials") -> str:
    """One table; lists are joined by blanks, what was not measured is empty.

    Raises:
        UserError: The comparison has no table of this name.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if table == "trials":
        writer.writerow(FIELDS)
        for row in facts.rows:
            writer.writerow(_csv_cell(value(row)) for value in FIELDS.values())
        return out.getvalue()
    by_name = {section.name: section for section in sections(facts)}
    if table not in by_name:
        known = ", ".join(["trials", *by_name])
        raise UserError(f"--table: got {table!r}, expected one of this sweep's tables ({known})")
    section = by_name[table]
    writer.writerow(fields(section))
    for values in section.rows:
        writer.writerow(_csv_cell(value) for value in _flat(section, values).values())
    return out.getvalue()


def fields(section: Section) -> list[str]:
    """The names of a section's columns in CSV and JSON; an interval is two."""
    names: list[str] = []
    for column in section.columns:
        stem = column.name.removesuffix("interval")
        names += [f"{stem}low", f"{stem}high"] if column.kind in PAIRS else [column.name]
    return names


def _flat(section: Section, row: Sequence[Any]) -> dict[str, Any]:
    values: list[Any] = []
    for column, value in zip(section.columns, row, strict=True):
        plain = str(value) if isinstance(value, Said) else value
        values += (value or (None, None)) if column.kind in PAIRS else [plain]
    return dict(zip(fields(section), values, strict=True))


def _csv_cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return " ".join(value) if isinstance(value, list) else value


PICTURE = ("trial", "stage", LR, WEIGHT_DECAY, EPOCHS, "objective", "test/cer", "outcome")
"""The columns of the picture: as many as can be read on a page 900 pixels wide."""


def svg(facts: Comparison, width: int = 84) -> str:
    """Draw the trials in few columns, without the web fonts that rich would name in a picture."""
    from rich.console import Console

    console = Console(record=True, file=io.StringIO(), width=width, highlight=False)
    columns = [column for column in trial_columns(facts) if column.heading in PICTURE]
    console.print(_trial_table(facts, columns))
    picture = console.export_svg(title=f"sweep {facts.sweep}")
    plain = re.sub(r"@font-face \{.*?\}|<!--.*?-->", "", picture, flags=re.DOTALL)
    return re.sub(r"[ \t]+$|^\n", "", plain, flags=re.MULTILINE)


def json_text(facts: Comparison) -> str:
    """Every fact of the comparison."""
    best = facts.best
    document = {
        "sweep": facts.sweep,
        "run_id": facts.run_id,
        "objective": facts.objective,
        "answer": facts.answer,
        "best_trial": None if best is None else best.trial,
        "base": dict(facts.base),
        "trials": [{k: value(row) for k, value in FIELDS.items()} for row in facts.rows],
        "stages": [asdict(stage) for stage in facts.stages],
        "learning_rates": [asdict(band) for band in facts.bands],
        "noise": None if facts.noise is None else asdict(facts.noise),
        "sets": {
            split: {
                "utterances": len(evaluated.keys),
                "clusters": evaluated.cluster_count,
                "by": evaluated.unit,
                "note": evaluated.note,
            }
            for split, evaluated in facts.evidence.sets.items()
        },
        "tables": {
            section.name: [_flat(section, row) for row in section.rows]
            for section in sections(facts)
        },
    }
    # NaN is not JSON: records turn it into None, and this makes sure.
    return json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
