"""One HTML file that says what a sweep showed: it opens from disk and asks no network for anything.

    python -m analysis report --sweep demo --output_dir reports/demo [--lang zh]

The answer comes first, then the ranked trials, figures, the texts of the finalists utterance by
utterance, and every further table. Tables are plain HTML, so they are there without scripts; Plotly
is carried along whole, and what figures and browser show is packed next to it. The file is logged
to the sweep's run, and the answer becomes that run's description.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from analysis.facts.comparison import Comparison
from analysis.facts.importance import FEWEST_TRIALS, Pruning, importances, pruning
from analysis.facts.other_sweep import at_equal_cost, find_other
from analysis.facts.records import Source
from analysis.facts.utterances import BASE
from analysis.report.browser import systems, texts
from analysis.report.figures import (
    front,
    history,
    importance_bars,
    learning_curves,
    parallel_coordinates,
    rungs,
)
from analysis.tables.answer import answer
from analysis.tables.sections import sections
from analysis.tables.trials import FIELDS, heading, notes, trial_columns
from conf.delta import CHANGES, SEVERITIES
from conf.document.figures import Figure
from conf.document.language import LANGUAGES, Language, Name, Said, joined
from conf.document.numbers import NOTHING, percent, rate, setting
from conf.document.page import cell, escaped, head, packed, page, part, plot, script_words, table
from conf.document.tables import Section, span
from conf.errors import DataError
from conf.files import write_output

REPORT = "report.html"
SCRIPT = Path(__file__).with_name("report.js")
MOST_PACKED = 2_500_000
"""Characters of packed data: with Plotly the page stays under 8 MB."""
_SORTED_BY = {
    "errors": "valid/errors",
    "against base": "objective_over_base",
    "against baseline": "objective_over_baseline",
    "95 % interval": "objective_low",
    "paired points": "paired",
    "paired interval": "paired_low",
    "p": "paired_p",
    "time": "duration_s",
    "critical deltas": "stage",
}
"""The field by which a column of the trials is sorted, where its name is another."""


def report(
    facts: Comparison,
    store: Source,
    output_dir: Path,
    *,
    language: str = "en",
    other_sweep: str | None = None,
    cache: Path | None = None,
    log: bool = True,
) -> Path:
    """Write a sweep's report, and log it to the sweep's run.

    Args:
        facts: The comparison of its trials.
        store: Where it is recorded.
        output_dir: Gets `report.html`; made if missing.
        language: `en` or `zh`.
        other_sweep: Another one for the figure of the search; without it, the newest random search
            over the same base, data and stages, if there is one.
        cache: Directory in which the other sweep's ended runs are remembered.
        log: Also put it, and the answer as the description, to the sweep's run.

    Raises:
        UserError: The directory cannot be written, or the other sweep saw other data.
    """
    words = LANGUAGES[language]
    other = find_other(facts, store, other_sweep, cache)
    text = render(facts, store, words, other)
    path = output_dir / REPORT
    write_output(path, text, "--output_dir")
    if log:
        store.log_artifact(facts.run_id, path, REPORT)
        store.set_tags(facts.run_id, {"mlflow.note.content": description(facts, words)})
    return path


def description(facts: Comparison, words: Language) -> str:
    """The answer in Markdown, for the description that MLflow shows above a run."""
    said = words(Said("Tables: {md}; figures and texts: {html}.", md="comparison.md", html=REPORT))
    return f"{answer(facts, words, full=True)}\n\n{said}\n"


def render(
    facts: Comparison,
    store: Source,
    words: Language,
    other: Comparison | None = None,
) -> str:
    """The page."""
    importance, cut = importances(facts), pruning(facts)
    drawn: dict[str, Figure | None] = {
        "curves": learning_curves(facts, words),
        "history": history(facts, other, words),
        "parallel": parallel_coordinates(facts, words),
        "importance": importance_bars(importance, words),
        "pruning": rungs(facts, cut, words),
        "front": front(facts, words),
    }
    figures = {name: figure for name, figure in drawn.items() if figure is not None}
    captions = _captions(facts, other, figures, cut)
    sets = texts(facts, store, words)
    best = facts.best
    baseline = facts.baseline_of(best) if best else None
    names = {system.trial: system.name for system in systems(facts, words)}
    data = {
        "figures": figures,
        "sets": sets,
        "best": names.get(best.trial) if best else None,
        "baseline": names.get(baseline.trial) if baseline else None,
        "base": names[BASE],
        "words": script_words(words, SCRIPT_WORDS),
    }
    parts = [
        part("answer", words(Said("Answer")), _answer(facts, words)),
        part("trials", words(Said("Trials")), _trials(facts, words)),
        part("figures", words(Said("Figures")), _figures(figures, captions, words)),
    ]
    if sets:
        parts.append(part("browser", words(Said("Utterances")), _browser(words)))
    further = sections(facts) if facts.rows else ()
    tables = "".join(
        table(
            section,
            words,
            heading=partial(_heading, section, words),
            said=_SAID_VALUES,
            open=section.name == "finalists",
        )
        for section in further
    )
    if tables:
        parts.append(part("tables", words(Said("Tables")), tables))
    if alignment := _alignment(facts, store, words):
        changed = words(Said("What the best config changes against the released model"))
        parts.append(part("alignment", changed, alignment))
    return page(
        words=words,
        title=Said("Sweep {sweep}", sweep=facts.sweep),
        skip=("trials", Said("Skip to the trials")),
        parts=parts,
        footer=_footer(facts),
        noscript=Said("Figures and texts need JavaScript."),
        data=shortened(data),
        script=SCRIPT.read_text(encoding="utf-8"),
    )


SCRIPT_WORDS = {
    "shown": "{0} of {1} shown",
    "all": "all",
    "reference": "reference",
    "summary": "{0} utterances, {1} characters; A {2} %, B {3} %, A minus B {4} points",
    "part": "Here are the first {0} of {1} utterances; the tables count all.",
    "empty": "No utterance fits.",
    "errors": "errors: A {0}, B {1}",
    "missing": "This system has no text of it.",
    "S": "substituted",
    "D": "deleted",
    "I": "inserted",
    "nothing": "(nothing)",
}
"""What the page's script says; numbers in braces are filled by it."""


def _answer(facts: Comparison, words: Language) -> str:
    return f'<p class="answer">{escaped(answer(facts, words, full=True))}</p>'


def _trials(facts: Comparison, words: Language) -> str:
    columns = trial_columns(facts)
    heads = "".join(head(_trial_heading(c.heading, words), not c.left) for c in columns)
    body = []
    for row in facts.rows:
        cells = []
        for column in columns:
            field = FIELDS.get(_SORTED_BY.get(column.heading, column.heading))
            text = column.cell(row)
            if column.heading == "outcome" or text == "baseline":
                text = words(Said(text))
            elif " to " in text:
                text = words(span(text))
            cells.append(cell(text, field(row) if field else None, not column.left))
        classes = [row.outcome, *(["best"] if row is facts.best else [])]
        body.append(
            f'<tr class="{" ".join(classes)}" data-stage="{escaped(row.stage)}" '
            f'data-outcome="{row.outcome}">{"".join(cells)}</tr>'
        )
    if not body:
        return f"<p>{escaped(words(Said('no trials')))}</p>"
    stages = [(stage, stage) for stage in sorted({row.stage for row in facts.rows})]
    outcomes = [(o, words(Said(o))) for o in dict.fromkeys(row.outcome for row in facts.rows)]
    said = "".join(f"<li>{escaped(words(note))}</li>" for note in notes(facts))
    find = words(Said("Find"))
    return (
        '<div class="controls">'
        f'<label>{escaped(find)} <input type="search" id="trial-find"></label>'
        f"{_select('trial-stage', words(Said('stage')), stages, words)}"
        f"{_select('trial-outcome', words(Said('outcome')), outcomes, words)}"
        '<span id="trial-count" role="status"></span></div>'
        f'<div class="wide" tabindex="0" role="region" aria-labelledby="h-trials">'
        f'<table class="sortable" id="trial-table"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div><ul class='notes'>{said}</ul>"
    )


def _trial_heading(heading: str, words: Language) -> str:
    """Keys by their last part alone, for want of room; metrics as they are."""
    if "_conf." in heading:
        return heading.rpartition(".")[2]
    return heading if "/" in heading else words(Said(heading))


def _figures(
    figures: Mapping[str, Figure], captions: Mapping[str, list[Said]], words: Language
) -> str:
    """Figures with their captions; what has only a caption says why there is no figure."""
    said = {name: joined(words, sentences) for name, sentences in captions.items()}
    made = [plot(name, figure["title"], said.get(name, "")) for name, figure in figures.items()]
    made += [f"<p>{escaped(text)}</p>" for name, text in said.items() if name not in figures]
    return f'<div class="figures">{"".join(made)}</div>'


def _captions(
    facts: Comparison, other: Comparison | None, figures: Mapping[str, Figure], cut: Pruning
) -> dict[str, list[Said]]:
    few = Said(
        "No stage has {least} completed trials that differ, so there is no importance.",
        least=FEWEST_TRIALS,
    )
    shares = Said("Shares are of what completed trials of a stage show; few trials, rough shares.")
    captions = {"importance": [shares if "importance" in figures else few]}
    if "parallel" in figures:
        captions["parallel"] = [Said("Drag along an axis to choose lines, and again to let go.")]
    if cut.pruned or "pruning" in figures:
        captions["pruning"] = [_saved(cut)]
    if "history" in figures:
        captions["history"] = _search_caption(facts, other)
    return captions


def _search_caption(facts: Comparison, other: Comparison | None) -> list[Said]:
    said = []
    if any(row.outcome != "completed" for row in facts.rows):
        said.append(Said("Hollow marks: trials that did not complete."))
    equal = None if other is None else at_equal_cost(facts, other)
    if other is not None and equal is not None:
        said.append(
            Said(
                "After {epochs} epochs of training: {sweep} {ours}, {other} {theirs}.",
                epochs=equal.epochs,
                sweep=facts.sweep,
                ours=rate(equal.ours),
                other=other.sweep,
                theirs=rate(equal.theirs),
            )
        )
    return said


def _saved(cut: Pruning) -> Said:
    whole = cut.epochs_run + cut.epochs_saved
    return Said(
        "{pruned} trials were pruned: {run} epochs were trained and {saved} ({share} %) saved. "
        "Only completed trials are shown, so the weakest, which were cut, are missing.",
        pruned=cut.pruned,
        run=cut.epochs_run,
        saved=cut.epochs_saved,
        share=percent(cut.epochs_saved / whole, 0) if whole else "0",
    )


def _browser(words: Language) -> str:
    sorts = [
        ("worse", "A worse than B first"),
        ("better", "A better than B first"),
        ("errors", "most errors of A first"),
        ("order", "in the set's order"),
    ]
    options = [(value, words(Said(text))) for value, text in sorts]

    def select(name: str, label: str, choices: Sequence[tuple[str, str]] = ()) -> str:
        inner = "".join(f'<option value="{v}">{escaped(t)}</option>' for v, t in choices)
        said = escaped(words(Said(label)))
        return f'<label>{said} <select id="{name}">{inner}</select></label>'

    return (
        '<div class="controls">'
        + select("browse-set", "set")
        + select("browse-a", "A")
        + select("browse-b", "B")
        + select("browse-slice", "slice")
        + select("browse-sort", "order", options)
        + f'<label>{escaped(words(Said("Find")))} <input type="search" id="browse-find"></label>'
        + f'<label><input type="checkbox" id="browse-differ"> '
        f"{escaped(words(Said('only where A and B differ')))}</label></div>"
        '<p id="browse-summary" role="status"></p>'
        '<p class="legend"><span class="S">字</span> '
        f"{escaped(words(Said('substituted')))} "
        f'<span class="D">–</span> {escaped(words(Said("deleted")))} '
        f'<span class="I">+字</span> {escaped(words(Said("inserted")))}. '
        f"{escaped(words(Said('Texts are shown as they are scored, normalised.')))}</p>"
        '<div id="browse-list"></div>'
        f'<button type="button" id="browse-more">{escaped(words(Said("Show more")))}</button>'
        f"<h3>{escaped(words(Said('Most frequent errors, in what is chosen above')))}</h3>"
        '<div class="wide" tabindex="0"><table id="browse-frequent"><thead><tr>'
        + "".join(
            head(words(Said(text)), right, sortable=False)
            for text, right in (("reference", False), ("heard", False), ("A", True), ("B", True))
        )
        + "</tr></thead><tbody></tbody></table></div>"
    )


_SAID_VALUES = frozenset(
    {"best", "baseline", "base", "best of stage", "best, baseline", "completed", "pruned"}
    | {"failed", "killed", "running", *SEVERITIES}
)


def _heading(section: Section, words: Language, name: str) -> str:
    if name.startswith("epoch_"):
        return words(Said("epoch {epoch}", epoch=name.removeprefix("epoch_")))
    if section.name == "configs" and "#" in name:
        return name
    text = heading(name)
    return text if "/" in text else words(Said(text))


def _alignment(facts: Comparison, store: Source, words: Language) -> str:
    """The changes of the best trial's config as it recorded them, most severe first."""
    if facts.best is None:
        return ""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            path = store.download(facts.best.run_id, "deltas.json", Path(scratch))
            deltas = json.loads(path.read_text(encoding="utf-8"))
        except (DataError, ValueError):
            return ""
    changes = [delta for delta in deltas if delta["change"] in ("MODIFIED", "NEW")]
    changes.sort(
        key=lambda d: (SEVERITIES.index(d["severity"]), CHANGES.index(d["change"]), d["key"])
    )
    heads = "".join(
        head(words(Said(text)), False)
        for text in ("key", "released", "value", "change", "severity", "effect", "why")
    )
    rows = "".join(
        "<tr>"
        + cell(delta["key"], delta["key"], False)
        + cell(NOTHING if delta["change"] == "NEW" else setting(delta["base"]), None, False)
        + cell(setting(delta["value"]), None, False)
        + cell(delta["change"], None, False)
        + cell(words(Said(delta["severity"])), SEVERITIES.index(delta["severity"]), False)
        + cell(delta["effect"] or words(Said("unproven")), None, False)
        + cell(words(Name(delta["reason"])) or delta["note"], None, False)
        + "</tr>"
        for delta in changes
    )
    return (
        '<div class="wide" tabindex="0" role="region" aria-labelledby="h-alignment">'
        f'<table class="sortable"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _footer(facts: Comparison) -> Said:
    shared: dict[str, str] = {}
    for trial in facts.sweep_record.trials:
        if facts.best is not None and trial.trial == facts.best.trial:
            shared = dict(trial.comparable)
    known = ", ".join(f"{tag} {value[:16]}" for tag, value in shared.items())
    return Said(
        "MLflow run {run}. Compared: trials that share {known}.",
        run=facts.run_id,
        known=known or NOTHING,
    )


def _select(name: str, label: str, choices: Sequence[tuple[str, str]], words: Language) -> str:
    every = ("", words(Said("all")))
    inner = "".join(
        f'<option value="{escaped(v)}">{escaped(t)}</option>' for v, t in [every, *choices]
    )
    return f'<label>{escaped(label)} <select id="{name}">{inner}</select></label>'


def shortened(data: dict[str, Any], most: int = MOST_PACKED) -> str:
    """What the script shows, packed.

    Of sets that would be too large the first utterances are taken; the page says how many.
    """
    while True:
        letters = packed(data)
        longest = max((len(one["utterances"]) for one in data["sets"].values()), default=0)
        if len(letters) <= most or longest < 2:
            return letters
        sets = {
            name: {**one, "utterances": one["utterances"][: longest // 2]}
            for name, one in data["sets"].items()
        }
        data = {**data, "sets": sets}
