"""A figure: a plain dictionary in Plotly's own form, drawn by the Plotly that a page carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conf.document.language import Language, Said

Figure = dict[str, Any]
"""`data`, `layout` and a `title` that stands above it."""


def make_figure(
    words: Language, title: Said, traces: Sequence[Any], x: Said | str, y: Said | str
) -> Figure:
    """A figure of some traces; `x` and `y` name the axes."""

    def axis(name: Said | str) -> dict[str, Any]:
        text = words(name) if isinstance(name, Said) else name
        return {"title": {"text": text}, "automargin": True, "gridcolor": "#dddddd"}

    layout = {
        "xaxis": axis(x),
        "yaxis": axis(y),
        "margin": {"l": 60, "r": 20, "t": 20, "b": 50},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        "hovermode": "closest",
        "font": {"size": 13},
        "plot_bgcolor": "#ffffff",
        "paper_bgcolor": "#ffffff",
    }
    return {"title": words(title), "data": list(traces), "layout": layout}
