"""The data report's figures, from facts alone."""

from __future__ import annotations

from typing import Any

from conf.document.figures import Figure, make_figure
from conf.document.language import Language, Said
from conf.document.numbers import duration, rate
from trainer.prepare.report.facts import Facts
from trainer.prepare.report.histogram import Spread
from trainer.prepare.report.spectrograms import Sound
from trainer.prepare.report.tables import QUANTITIES

SHOWN = {
    "duration_s": "How long utterances are",
    "characters": "How long texts are",
    "characters_per_s": "How fast people speak",
    "bandwidth_hz": "What bandwidth is really there",
    "level_dbfs": "How loud recordings are",
    "peak_dbfs": "How loud their loudest sample is",
    "snr_db": "How noisy the simulated lines are",
    "loss_rate": "How many packets the simulated lines lost",
}
"""The quantities that are drawn, and what stands above each."""

# Okabe and Ito's colours, which colour-blind people tell apart; splits differ in dash too.
_COLOURS = {"train": "#0072B2", "valid": "#D55E00", "test": "#009E73"}
_DASHES = {"train": "solid", "valid": "dash", "test": "dot"}
_MOST_BARS = 60
_TAIL = 0.001
_TELEPHONE_HZ = 4000


def figures(facts: Facts, words: Language) -> dict[str, Figure]:
    """One per quantity that was measured."""
    drawn = {name: _spreads(facts, name, Said(title), words) for name, title in SHOWN.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _spreads(facts: Facts, name: str, title: Said, words: Language) -> Figure | None:
    found = {split.name: spread for split in facts.splits if (spread := split.spread(name))}
    if not found:
        return None
    first, last = _shown_bins(list(found.values()))
    together = -(-(last - first + 1) // _MOST_BARS)
    traces = []
    for split, spread in found.items():
        x: list[float] = []
        y: list[float] = []
        for low in range(first, last + 1, together):
            x.append(spread.scale.edge(low - 1))
            y.append(round(100 * sum(spread.counts[low : low + together]) / spread.count, 3))
        x.append(spread.scale.edge(last - (last - first) % together + together - 1))
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"{split} ({spread.count})",
                "x": x,
                "y": [*y, y[-1]],
                "hoverinfo": "x+y+name",
                "line": {
                    "shape": "hv",
                    "color": _COLOURS[split],
                    "dash": _DASHES[split],
                    "width": 2,
                },
            }
        )
    figure = make_figure(words, title, traces, Said(QUANTITIES[name]), Said("utterances (%)"))
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    figure["layout"]["showlegend"] = True
    return figure


def _shown_bins(spreads: list[Spread]) -> tuple[int, int]:
    """First and last bin to show: what lies beyond a thousandth at the upper end is left away."""
    firsts, lasts = [], []
    for spread in spreads:
        filled = [index for index, count in enumerate(spread.counts) if count]
        firsts.append(filled[0])
        left = spread.count * _TAIL
        last = filled[-1]
        for index in reversed(filled):
            left -= spread.counts[index]
            if left < 0:
                last = index
                break
        lasts.append(last)
    return max(min(firsts), 1), max(lasts)


def spectrogram(sound: Sound, words: Language) -> Figure:
    """A recording in time and frequency, with the telephone's limit."""
    trace: dict[str, Any] = {
        "type": "heatmap",
        "z": sound.level_db,
        "x0": 0,
        "dx": sound.step_s,
        "y0": 0,
        "dy": sound.step_hz,
        "zmin": sound.floor_db,
        "zmax": sound.top_db,
        "colorscale": "Viridis",
        "showscale": False,
        "hovertemplate": "%{x:.2f} s, %{y:.0f} Hz, %{z} dB<extra></extra>",
    }
    title = Said("{why}: {key}", why=Said(sound.picked.why), key=sound.picked.key)
    figure = make_figure(words, title, [trace], Said("time (s)"), Said("frequency (Hz)"))
    if sound.top_hz > _TELEPHONE_HZ:
        figure["layout"]["shapes"] = [
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": _TELEPHONE_HZ,
                "y1": _TELEPHONE_HZ,
                "line": {"color": "#ffffff", "width": 1, "dash": "dash"},
            }
        ]
    return figure


def caption(sound: Sound, words: Language) -> str:
    """What stands under a spectrogram: what the manifest says of it, and its text."""
    values = sound.picked.values
    parts = [sound.picked.split]
    if "duration_s" in values:
        parts.append(duration(values["duration_s"]))
    for name, template in CAPTIONS.items():
        if name in values:
            parts.append(words(Said(template, value=f"{values[name]:.0f}")))
    if values.get("clipped"):
        parts.append(words(Said("{share} at full scale", share=rate(values["clipped"]))))
    return " · ".join([*parts, sound.picked.text])


CAPTIONS = {
    "sample_rate_hz": "rate {value} Hz",
    "bandwidth_hz": "bandwidth {value} Hz",
    "level_dbfs": "level {value} dBFS",
    "snr_db": "SNR {value} dB",
}
"""What the manifest says of a recording, under its spectrogram."""
