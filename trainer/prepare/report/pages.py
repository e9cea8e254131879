"""The data report as HTML and Markdown, in English and Chinese: warnings first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conf.document.language import LANGUAGES, Language, Said
from conf.document.page import Part, escaped, packed, page, part, plot, script_words, table
from conf.document.tables import (
    Section,
    grid_of,
    left,
    markdown_notes,
    markdown_table,
    markdown_text,
)
from conf.files import write_output
from trainer.prepare.report.facts import Facts
from trainer.prepare.report.figures import caption, figures, spectrogram
from trainer.prepare.report.gather import gather
from trainer.prepare.report.spectrograms import Sound, listen
from trainer.prepare.report.tables import heading, sections
from trainer.prepare.report.warnings import Concern, concerns

NAME = "data_report"
OPEN = ("sets", "crossings", "bandwidth", "left_out", "left_out_examples")
"""Tables that are unfolded at first."""
LEFT_OUT = ("left_out", "left_out_examples")


def write(directory: Path, *, languages: Sequence[str] = ("en", "zh")) -> list[Path]:
    """Write the report of a directory that `prepare` wrote, beside its manifests.

    Audio is read for a few spectrograms only; a recording that cannot be read is named.

    Args:
        directory: With `train.jsonl`, and what else `prepare` writes.
        languages: `en` and `zh`; the Chinese files end in `_zh`.

    Returns:
        The files: `data_report.html` and `data_report.md`, and so in each language.

    Raises:
        DataError: There is no `train.jsonl`, or a line of a file is no JSON object.
        WorkError: A file cannot be written.
    """
    facts = gather(directory)
    found = concerns(facts)
    heard = [(picked, listen(picked)) for picked in facts.picked]
    sounds = [sound for _, sound in heard if isinstance(sound, Sound)]
    silent = [
        Said("No spectrogram of {key}: {why}.", key=picked.key, why=why)
        for picked, why in heard
        if isinstance(why, str)
    ]
    written = []
    for words in (LANGUAGES[language] for language in languages):
        drawn, plain = (directory / f"{NAME}{words.suffix}.{ending}" for ending in ("html", "md"))
        for path, text in (
            (drawn, html(facts, found, sounds, silent, words)),
            (plain, markdown(facts, found, words, drawn.name)),
        ):
            write_output(path, text, "--output_dir")
            written.append(path)
    return written


def html(
    facts: Facts,
    found: Sequence[Concern],
    sounds: Sequence[Sound],
    silent: Sequence[Said],
    words: Language,
) -> str:
    """The page."""
    drawn = figures(facts, words)
    spectrograms = {
        f"sound-{index}": spectrogram(sound, words) for index, sound in enumerate(sounds)
    }
    made = sections(facts)
    tables = {section.name: _table(section, words) for section in made}
    first = tables.pop("sets", "") + tables.pop("crossings", "")
    dropped = "".join(tables.pop(name, "") for name in LEFT_OUT)
    parts: list[Part] = [
        part("warnings", words(_heading(found)), _warnings(found, words)),
        part("sets", words(Said("Sets")), first),
    ]
    if drawn:
        shown = "".join(plot(name, figure["title"]) for name, figure in drawn.items())
        parts.append(part("figures", words(Said("Figures")), f'<div class="figures">{shown}</div>'))
    if dropped:
        parts.append(part("left-out", words(Said("What was left out")), dropped))
    if sounds or silent:
        shown = "".join(
            plot(name, figure["title"], caption(sound, words))
            for (name, figure), sound in zip(spectrograms.items(), sounds, strict=True)
        )
        notes = "".join(f"<li>{escaped(words(why))}</li>" for why in silent)
        parts.append(
            part(
                "spectrograms",
                words(Said("Spectrograms")),
                f'<div class="figures small">{shown}</div>'
                f"{f'<ul class=notes>{notes}</ul>' if notes else ''}",
            )
        )
    parts.append(part("tables", words(Said("Tables")), "".join(tables.values())))
    return page(
        words=words,
        title=_title(facts),
        skip=("warnings", Said("Skip to the warnings")),
        parts=parts,
        footer=_footer(),
        noscript=Said("Figures need JavaScript."),
        data=packed({"figures": {**drawn, **spectrograms}, "words": script_words(words)}),
    )


def markdown(facts: Facts, found: Sequence[Concern], words: Language, page: str) -> str:
    """The same without figures, which are in `page`."""
    lines = [f"# {markdown_text(words(_title(facts)))}", f"## {words(_heading(found))}"]
    if found:
        lines.append(
            "\n".join(
                f"- {_grave(concern, words)}**{markdown_text(words(concern.found))}** "
                f"{words(concern.means)} {words(concern.advice)}"
                for concern in found
            )
        )
    else:
        lines.append(words(_nothing()))
    for section in sections(facts):
        lines.append(f"## {words(section.title)}")
        lines.append(markdown_table(grid_of(section, words, heading), left(section)))
        if section.notes:
            lines.append(markdown_notes(section.notes, words))
    lines.append(words(Said("Figures and spectrograms are in {html}.", html=page)))
    lines.append(words(_footer()))
    return "\n\n".join(lines) + "\n"


def _table(section: Section, words: Language) -> str:
    return table(
        section,
        words,
        heading=lambda name: words(Said(heading(name))),
        open=section.name in OPEN,
    )


def _warnings(found: Sequence[Concern], words: Language) -> str:
    if not found:
        return f"<p>{escaped(words(_nothing()))}</p>"
    items = "".join(
        f'<li class="{"grave" if concern.grave else "light"}">'
        f"{escaped(_grave(concern, words))}<strong>{escaped(words(concern.found))}</strong> "
        f"{escaped(words(concern.means))} <em>{escaped(words(concern.advice))}</em></li>"
        for concern in found
    )
    return f'<ul class="warnings">{items}</ul>'


def _grave(concern: Concern, words: Language) -> str:
    """In words too: not everybody sees colours."""
    return words(Said("[grave] ")) if concern.grave else ""


def _title(facts: Facts) -> Said:
    return Said("Data of {name}", name=facts.directory.resolve().name)


def _heading(found: Sequence[Concern]) -> Said:
    return Said("Warnings ({count})", count=len(found)) if found else Said("No warnings")


def _nothing() -> Said:
    return Said("Nothing that was looked at is beyond what this report warns of.")


def _footer() -> Said:
    return Said(
        "Made by prepare from its manifests. It holds transcripts and names of callers: share it "
        "as you would share the calls."
    )
