"""Draws a `Comparison`: the answer in words, a table for the console, Markdown, CSV and JSON.

Only what a person reads is in percent; CSV and JSON carry fractions, under the names that the
configs and MLflow use. Column order is part of the format.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from analysis.facts.comparison import EPOCHS, LR, WEIGHT_DECAY, Comparison
from analysis.tables.answer import answer
from analysis.tables.sections import sections
from analysis.tables.trials import (
    BAND_TITLE,
    FIELDS,
    STAGE_TITLE,
    Column,
    band_grid,
    heading,
    notes,
    stage_grid,
    trial_columns,
    trial_grid,
)
from conf.document.language import Said
from conf.document.tables import (
    PAIRS,
    Grid,
    Section,
    grid_of,
    left,
    markdown_notes,
    markdown_table,
)
from conf.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table


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
        yield Text(answer(facts))
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
        for title, grid in ((STAGE_TITLE, stage_grid(facts)), (BAND_TITLE, band_grid(facts))):
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


def _trial_table(facts: Comparison, columns: Sequence[Column]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # Broken before the last dot, or optim_conf.weight_decay would set the column's width.
        block, dot, leaf = column.heading.rpartition(".")
        words = f"{block}\n{dot}{leaf}" if dot else column.heading.replace(" ", "\n")
        table.add_column(words, justify="left" if column.left else "right", no_wrap=True)
    styles = ["bold green" if row is facts.best else STYLES[row.outcome] for row in facts.rows]
    for cells, style in zip(trial_grid(facts, columns)[1], [*styles, "italic"], strict=False):
        table.add_row(*cells, style=style)
    return table


def _rich_grid(grid: Grid) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, words in enumerate(grid[0]):
        broken = words.replace(" ", "\n")
        table.add_column(broken, justify="left" if index == 0 else "right", no_wrap=True)
    for cells in grid[1]:
        table.add_row(*cells)
    return table


# Files


def markdown(facts: Comparison) -> str:
    """The answer, the trials, the stages and the learning rates."""
    parts = [f"# Sweep {facts.sweep}", answer(facts)]
    if facts.rows:
        columns = trial_columns(facts)
        on_the_left = {i for i, column in enumerate(columns) if column.left}
        parts += ["## Trials", markdown_table(trial_grid(facts, columns), on_the_left)]
        parts.append(markdown_notes(notes(facts)))
    for title, found in ((STAGE_TITLE, stage_grid(facts)), (BAND_TITLE, band_grid(facts))):
        if found[1]:
            parts += [f"## {title}", markdown_table(found, {0})]
    for section in sections(facts) if facts.rows else ():
        parts += [f"## {section.title}", markdown_table(section_grid(section), left(section))]
        if section.notes:
            parts.append(markdown_notes(section.notes))
    return "\n\n".join(parts) + "\n"


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
    text = " ".join(value) if isinstance(value, list) else value
    return f"'{text}" if isinstance(text, str) and _FORMULA.match(text) else text


_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.]+([eE][+-]?\d+)?$)")
"""What a spreadsheet would compute: a text, of a speaker or a codec, that is no number."""


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
        "answer": answer(facts),
        "best_trial": None if best is None else best.trial,
        "base": dict(facts.base),
        "trials": [{k: value(row) for k, value in FIELDS.items()} for row in facts.rows],
        "stages": [asdict(stage) for stage in facts.stages],
        "learning_rates": [asdict(band) for band in facts.bands],
        "noise": None if facts.noise is None else asdict(facts.noise),
        "sets": {
            split: {
                "utterances": len(evaluated.keys),
                "clusters": evaluated.grouping.count,
                "by": evaluated.grouping.unit,
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
