"""The report's figures: plain dictionaries in Plotly's own form, made from facts alone.

They are drawn by the Plotly that the page carries with it; nothing of it is needed here. Stages
differ in colour (after Okabe & Ito's, which colour-blind people tell apart; darker, so that thin
lines stand out from white) and in dash, marker or hatching.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from analysis.facts.comparison import Comparison, Row
from analysis.facts.importance import Importance, Pruning
from analysis.facts.other_sweep import best_so_far, trials_with_cost
from conf.document.figures import Figure, make_figure
from conf.document.language import Language, Said
from conf.document.numbers import number, rate

COLOURS = {"8k": "#0072B2", "s1": "#C85500", "s2": "#00513F", "s3": "#BF5F95"}
OTHER, BASE_COLOUR, OTHER_SWEEP = "#000000", "#555555", "#8A5A00"
THIN = 0.85
"""Opacity of the many thin lines: they still stand out 3 to 1 from white."""
HATCHINGS = {"8k": "", "s1": "/", "s2": "x", "s3": "."}
DASHES = {"8k": "solid", "s1": "dash", "s2": "dot", "s3": "dashdot"}
MARKERS = {"8k": "circle", "s1": "square", "s2": "diamond", "s3": "cross"}


def learning_curves(facts: Comparison, words: Language) -> Figure | None:
    """The objective by epoch: a line a trial, default configs thick, the best thickest."""
    traces: list[Any] = []
    by_stage: dict[str, list[Row]] = {}
    special: list[Row] = []
    for row in facts.rows:
        if len(facts.evidence.curves.get(row.trial, {})) < 2:
            continue
        if row is facts.best or row.baseline:
            special.append(row)
        else:
            by_stage.setdefault(row.stage, []).append(row)
    for stage, rows in sorted(by_stage.items()):
        x: list[int | None] = []
        y: list[float | None] = []
        said: list[str] = []
        for row in rows:
            curve = facts.evidence.curves[row.trial]
            x += [*curve, None]
            y += [*(_percent(value) for value in curve.values()), None]
            said += [_label(row, words)] * (len(curve) + 1)
        traces.append(_line(stage, stage, x, y, said, width=1, opacity=THIN))
    for row in reversed(special):
        curve = facts.evidence.curves[row.trial]
        best = row is facts.best
        role = words(Said("best")) if best else words(Said("baseline"))
        traces.append(
            _line(
                f"{row.stage} #{row.trial} {role}",
                row.stage,
                list(curve),
                [_percent(value) for value in curve.values()],
                [_label(row, words)] * len(curve),
                width=5 if best else 2.5,
                opacity=1.0,
            )
        )
    if not traces:
        return None
    title = Said("Learning curves: {objective} after so many epochs", objective=facts.objective)
    return make_figure(words, title, traces, Said("epoch"), f"{facts.objective} (%)")


def parallel_coordinates(facts: Comparison, words: Language) -> Figure | None:
    """Every scored trial as a line through its settings; drag along an axis to choose."""
    rows = [row for row in facts.rows if row.objective is not None and row.lr]
    if len(rows) < 2:
        return None
    stages = sorted({row.stage for row in rows})
    dimensions: list[Any] = [
        {
            "label": words(Said("stage")),
            "values": [stages.index(row.stage) for row in rows],
            "tickvals": list(range(len(stages))),
            "ticktext": stages,
        },
        _log_axis("lr", [row.lr or math.nan for row in rows]),
    ]
    decays = [row.weight_decay for row in rows]
    if all(decays) and len(set(decays)) > 1:
        dimensions.append(_log_axis("weight_decay", [decay or math.nan for decay in decays]))
    epochs = [row.epochs or 0 for row in rows]
    if len(set(epochs)) > 1:
        dimensions.append(
            {"label": "max_epoch", "values": epochs, "tickvals": sorted(set(epochs))[:12]}
        )
    objectives = [_percent(row.objective) for row in rows]
    dimensions.append({"label": f"{facts.objective} (%)", "values": objectives})
    trace = {
        "type": "parcoords",
        "dimensions": dimensions,
        "line": {
            "color": objectives,
            "colorscale": "Viridis",
            "showscale": True,
            "colorbar": {"title": {"text": "%"}, "thickness": 12},
        },
        "labelfont": {"size": 13},
        "labelangle": -12,  # on a narrow screen one label would cover the next
    }
    figure = make_figure(words, Said("Settings and what they reached"), [trace], "", "")
    figure["layout"]["margin"] = {"l": 60, "r": 40, "t": 60, "b": 30}
    return figure


def importance_bars(found: Sequence[Importance], words: Language) -> Figure | None:
    """fANOVA's shares, a group of bars per stage."""
    if not found:
        return None
    largest = {
        key: max(one.shares.get(key, 0.0) for one in found) for one in found for key in one.shares
    }
    keys = sorted(largest, key=lambda key: (largest[key], key))[-12:]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": words(Said("{stage} ({trials} trials)", stage=one.stage, trials=one.trials)),
            "y": keys,
            "x": [one.shares.get(key) for key in keys],
            "marker": {
                "color": COLOURS.get(one.stage, OTHER),
                "pattern": {"shape": HATCHINGS.get(one.stage, "+"), "solidity": 0.25},
            },
        }
        for one in found
    ]
    title = Said("Which key mattered, stage by stage (fANOVA)")
    figure = make_figure(words, title, traces, Said("share of the variance explained"), "")
    figure["layout"]["margin"]["l"] = 220
    figure["layout"]["xaxis"]["range"] = [0, 1]
    return figure


def history(facts: Comparison, other: Comparison | None, words: Language) -> Figure | None:
    """What had been reached after so many epochs of training in all, trial after trial."""
    points = trials_with_cost(facts)
    if not points:
        return None
    traces: list[Any] = []
    for stage in sorted({row.stage for _, row in points}):
        own = [(epochs, row) for epochs, row in points if row.stage == stage]
        shape = MARKERS.get(stage, "star")
        symbols = [shape if row.outcome == "completed" else f"{shape}-open" for _, row in own]
        trace = _marks(stage, [row for _, row in own], [epochs for epochs, _ in own], words)
        trace["marker"] |= {"symbol": symbols, "size": 8}
        traces.append(trace)
    traces.append(_line_of_best(facts, words, OTHER, "solid"))
    if other is not None:
        traces.append(_line_of_best(other, words, OTHER_SWEEP, "dash"))
    base = facts.base.get(facts.objective)
    if base is not None:
        end = points[-1][0]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": words(Said("base")),
                "x": [0, end],
                "y": [_percent(base)] * 2,
                "line": {"color": BASE_COLOUR, "dash": "longdash", "width": 1},
            }
        )
    title = Said("The search: what was reached at what cost")
    return make_figure(
        words, title, traces, Said("epochs trained so far"), f"{facts.objective} (%)"
    )


def rungs(facts: Comparison, found: Pruning, words: Language) -> Figure | None:
    """The objective after an early epoch against the end: were the right trials cut?"""
    traces = []
    shapes = [*MARKERS.values(), "x", "triangle-up", "star"]
    colours = [*COLOURS.values(), OTHER_SWEEP, BASE_COLOUR, OTHER]
    for index, rung in enumerate(found.rungs):
        rows = [
            row
            for row in facts.rows
            if row.outcome == "completed"
            and (row.epochs or 0) > rung.epoch
            and rung.epoch in facts.evidence.curves.get(row.trial, {})
        ]
        correlation = "-" if rung.correlation is None else f"{rung.correlation:.2f}"
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": words(
                    Said(
                        "epoch {epoch} (rank correlation {rho}, {trials} trials)",
                        epoch=rung.epoch,
                        rho=correlation,
                        trials=rung.trials,
                    )
                ),
                "x": [_percent(facts.evidence.curves[row.trial][rung.epoch]) for row in rows],
                "y": [_percent(row.objective) for row in rows],
                "text": [_label(row, words) for row in rows],
                "hoverinfo": "text",
                "marker": {
                    "symbol": shapes[index % len(shapes)],
                    "color": colours[index % len(colours)],
                    "size": 8,
                },
            }
        )
    if not traces:
        return None
    title = Said("Was pruning fair? Order after an early epoch and at the end")
    early = Said("{objective} after that epoch (%)", objective=facts.objective)
    return make_figure(words, title, traces, early, words(Said("objective at the end (%)")))


def front(facts: Comparison, words: Language) -> Figure | None:
    """Telephone against wideband speech, with the front of what cannot be had better."""
    rows = [
        row
        for row in facts.rows
        if row.outcome == "completed" and row.wideband_cer is not None and row.objective is not None
    ]
    if not rows:
        return None
    traces: list[Any] = []
    for stage in sorted({row.stage for row in rows}):
        own = [row for row in rows if row.stage == stage]
        trace = _marks(stage, own, [_percent(row.objective) for row in own], words)
        trace["y"] = [_percent(row.wideband_cer) for row in own]
        trace["marker"] |= {"size": [12 if row.front else 7 for row in own], "opacity": 1}
        traces.append(trace)
    ahead = sorted((row.objective or 0.0, row.wideband_cer or 0.0) for row in rows if row.front)
    traces.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": words(Said("front")),
            "x": [_percent(x) for x, _ in ahead],
            "y": [_percent(y) for _, y in ahead],
            "line": {"color": "#000000", "width": 1, "shape": "hv"},
            "hoverinfo": "skip",
        }
    )
    base = facts.base.get(facts.objective), facts.base.get("wideband/cer")
    if None not in base:
        traces.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "name": words(Said("base")),
                "text": [words(Said("base"))],
                "textposition": "top center",
                "x": [_percent(base[0])],
                "y": [_percent(base[1])],
                "marker": {"color": BASE_COLOUR, "symbol": "star", "size": 13},
            }
        )
    title = Said("Telephone against wideband speech")
    return make_figure(words, title, traces, f"{facts.objective} (%)", "wideband/cer (%)")


def _line(
    name: str,
    stage: str,
    x: Sequence[Any],
    y: Sequence[Any],
    said: Sequence[str],
    *,
    width: float,
    opacity: float,
) -> dict[str, Any]:
    colour, dash = COLOURS.get(stage, OTHER), DASHES.get(stage, "solid")
    return {
        "type": "scatter",
        # Thousands of markers make a page slow.
        "mode": "lines+markers" if len(x) < 3000 else "lines",
        "name": name,
        "x": list(x),
        "y": list(y),
        "text": list(said),
        "hoverinfo": "text+y",
        "opacity": opacity,
        "line": {"color": colour, "width": width, "dash": dash},
        "marker": {"size": 3 + width, "symbol": MARKERS.get(stage, "star")},
    }


def _log_axis(label: str, values: Sequence[float]) -> dict[str, Any]:
    logs = [math.log10(value) for value in values]
    ends = sorted({min(values), max(values)})
    whole = [
        10.0**n for n in range(math.ceil(min(logs)), math.floor(max(logs)) + 1) if n != min(logs)
    ]
    ticks = sorted({*ends, *whole})
    return {
        "label": label,
        "values": logs,
        "tickvals": [math.log10(tick) for tick in ticks],
        "ticktext": [number(tick) for tick in ticks],
    }


def _marks(stage: str, rows: Sequence[Row], x: Sequence[Any], words: Language) -> dict[str, Any]:
    """A mark for each trial of a stage, at its objective."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": stage,
        "x": list(x),
        "y": [_percent(row.objective) for row in rows],
        "text": [_label(row, words) for row in rows],
        "hoverinfo": "text",
        "marker": {"color": COLOURS.get(stage, OTHER), "symbol": MARKERS.get(stage, "star")},
    }


def _line_of_best(facts: Comparison, words: Language, colour: str, dash: str) -> dict[str, Any]:
    points = best_so_far(facts)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": words(Said("best so far, {sweep}", sweep=facts.sweep)),
        "x": [epochs for epochs, _ in points],
        "y": [_percent(best) for _, best in points],
        "line": {"color": colour, "dash": dash, "width": 2, "shape": "hv"},
    }


def _label(row: Row, words: Language) -> str:
    return (
        f"#{row.trial} {row.stage}, lr {number(row.lr)}, wd {number(row.weight_decay)}<br>"
        f"{rate(row.objective)}, {words(Said(row.outcome))}"
    )


def _percent(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(100 * value, 4)
