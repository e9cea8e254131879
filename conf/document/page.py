"""One HTML file that opens from disk and asks no network for anything.

Tables are plain HTML, so they are there without scripts; Plotly is carried along whole, and what
scripts show is packed beside it.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from conf.document.language import Language, Said
from conf.document.tables import LEFT, PAIRS, Section, filled, say, spaced

HERE = Path(__file__).parent

Part = tuple[str, str, str]
"""A section of a page: its id, its heading and the whole of it as HTML."""


def page(
    *,
    words: Language,
    title: Said,
    skip: tuple[str, Said],
    parts: Sequence[Part],
    footer: Said,
    noscript: Said,
    data: str,
    script: str = "",
) -> str:
    """The whole page.

    Args:
        words: Its language.
        title: Of the page.
        skip: Id of the part that readers with a keyboard want first, and the link's text.
        parts: The sections, made by `part`.
        footer: What it was made from.
        noscript: What is missing without scripts.
        data: What scripts show, from `packed`: `figures` by name, `words` from `script_words`,
            and what the page's own script needs.
        script: The page's own JavaScript, if it does more than `page.js`.
    """
    from plotly.offline import get_plotlyjs

    target, said = skip
    fields = {
        "language": words.code,
        "title": escaped(words(title)),
        "css": (HERE / "page.css").read_text(encoding="utf-8"),
        "target": target,
        "skip": escaped(words(said)),
        "navigation": _navigation(parts, words),
        "sections": "\n".join(html_ for _, _, html_ in parts),
        "footer": escaped(words(footer)),
        "noscript": escaped(words(noscript)),
        "old": escaped(
            words("This browser cannot unpack the figures (DecompressionStream): a newer one can.")
        ),
        "data": data,
        "plotly": get_plotlyjs(),
        "js": script + (HERE / "page.js").read_text(encoding="utf-8"),
    }
    head, *pieces = (HERE / "page.html").read_text(encoding="utf-8").split("{{")
    made = [head]
    for piece in pieces:
        key, _, rest = piece.partition("}}")
        made += [fields[key], rest]
    return "".join(made)


def part(name: str, heading: str, content: str) -> Part:
    """A section of the page, from its heading as text and its content as HTML."""
    title = f'<h2 id="h-{name}">{escaped(heading)}</h2>'
    return (
        name,
        heading,
        f'<section id="{name}" aria-labelledby="h-{name}">{title}\n{content}</section>',
    )


def table(
    section: Section,
    words: Language,
    *,
    heading: Callable[[str], str] | None = None,
    said: Set[str] = frozenset(),
    open: bool = False,
) -> str:
    """A section as a table that can be sorted, under a title that folds it.

    Args:
        section: The table.
        words: Says it.
        heading: A column's heading from its name, said already.
        said: Texts among the values that are words of the catalogue.
        open: Whether it is unfolded at first.
    """
    columns = filled(section)
    name = heading or (lambda name: words(Said(spaced(name))))
    heads = "".join(head(name(column.name), column.kind not in LEFT) for _, column in columns)
    body = []
    for row in section.rows:
        cells = []
        for index, column in columns:
            value = row[index]
            text = say(column.kind, value, words)
            if column.kind == "text" and text in said:
                text = words(Said(text))
            plain = value[0] if column.kind in PAIRS and value else value
            cells.append(cell(text, plain, column.kind not in LEFT))
        body.append(f"<tr>{''.join(cells)}</tr>")
    notes = "".join(f"<li>{escaped(words(note))}</li>" for note in section.notes)
    title = escaped(words(section.title))
    return (
        f'<details id="table-{section.name}"{" open" if open else ""}>'
        f"<summary>{title}</summary>"
        f'<div class="wide" tabindex="0" role="region" aria-label="{title}">'
        f'<table class="sortable"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
        f"{f'<ul class=notes>{notes}</ul>' if notes else ''}</details>"
    )


def head(text: str, right: bool, *, sortable: bool = True) -> str:
    """A column's heading; a button where the table can be sorted."""
    inner = f'<button type="button">{escaped(text)}</button>' if sortable else escaped(text)
    return f'<th scope="col"{" class=right" if right else ""}>{inner}</th>'


def cell(text: str, value: Any, right: bool) -> str:
    """A cell, and the value by which it is sorted."""
    plain = value if isinstance(value, int | float | str) else ""
    if isinstance(plain, bool):
        plain = int(plain)
    kind = " class=right" if right else ""
    return f'<td{kind} data-v="{escaped(str(plain))}">{escaped(text)}</td>'


def plot(name: str, title: str, caption: str = "") -> str:
    """The place where the script draws a figure, from its name, title and caption as texts."""
    title = escaped(title)
    below = f"<figcaption>{escaped(caption)}</figcaption>" if caption else ""
    return (
        f'<figure><h3>{title}</h3><div class="plot" id="figure-{name}" data-figure="{name}" '
        f'role="img" aria-label="{title}"></div>{below}</figure>'
    )


def escaped(text: str) -> str:
    """A text as it may stand in HTML."""
    return html.escape(text, quote=True)


SCRIPT_WORDS = {"webgl": "This figure needs WebGL, which this browser does not offer."}
"""What `page.js` says."""


def script_words(words: Language, own: Mapping[str, str] | None = None) -> dict[str, str]:
    """What scripts say, by the names they have for it.

    Args:
        words: Says it.
        own: What the page's own script says; numbers in braces are filled by it.
    """
    return {name: words(text) for name, text in {**SCRIPT_WORDS, **(own or {})}.items()}


def packed(data: Mapping[str, Any]) -> str:
    """Data as JSON, compressed as browsers unpack it, in letters that HTML allows."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _navigation(parts: Sequence[Part], words: Language) -> str:
    links = "".join(
        f'<li><a href="#{name}">{escaped(heading)}</a></li>' for name, heading, _ in parts
    )
    return f'<nav aria-label="{escaped(words(Said("Contents")))}"><ul>{links}</ul></nav>'
