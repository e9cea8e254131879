"""The data report's tables, from facts alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from conf.document.language import Name, Said
from conf.document.tables import Column, Section, columns_of, spaced
from conf.writing import format_value
from trainer.prepare.report.facts import RARE, SCALES, Facts

QUANTITIES = {
    "duration_s": "duration (s)",
    "characters": "characters",
    "characters_per_s": "characters a second",
    "words_per_s": "words a second",
    "bandwidth_hz": "bandwidth (Hz)",
    "level_dbfs": "level (dBFS)",
    "peak_dbfs": "peak (dBFS)",
    "clipped": "share of samples at full scale",
    "snr_db": "drawn SNR (dB)",
    "hum_db": "drawn hum (dB below speech)",
    "echo_db": "drawn echo (dB below speech)",
    "loss_rate": "drawn share of packets lost",
}
"""What a quantity is called."""

BANDS = {
    "narrow": "up to 4 kHz",
    "between": "4 to 7 kHz",
    "wide": "7 kHz and more",
    "": "not measured",
}

HEADINGS = {
    "one_percent": "1 %",
    "ninety_nine_percent": "99 %",
    "sample_rate_hz": "sample rate (Hz)",
    "bandwidth": "real bandwidth",
    "mixed": "Chinese and Latin",
    "chinese": "Chinese",
    "latin": "Latin",
}

SHOWN_TEXT = 60
"""Characters of an example; a table's cell is no place for a speech."""


def heading(name: str) -> str:
    """A column's heading from its name."""
    return HEADINGS.get(name, spaced(name))


def sections(facts: Facts) -> tuple[Section, ...]:
    """All tables that have something to say."""
    made = (
        overview(facts),
        crossings(facts),
        quantities(facts),
        bandwidths(facts),
        languages(facts),
        characters(facts),
        speakers(facts),
        tags(facts),
        left_out(facts),
        examples(facts),
        settings(facts),
    )
    return tuple(section for section in made if section.rows)


def overview(facts: Facts) -> Section:
    """How much there is."""
    columns = (
        Column("set"),
        Column("utterances", "count"),
        Column("hours", "hours"),
        *columns_of("count", "speakers", "calls", "characters", "words"),
    )
    rows = [
        (
            split.name,
            split.utterances,
            split.seconds if "duration_s" in split.spreads else None,
            split.speakers or None,
            split.calls or None,
            sum(split.scripts.values()),
            split.words,
        )
        for split in facts.splits
    ]
    note = Said(
        "Characters as the CER counts them: letters and digits; words as the MER counts them: "
        "Chinese characters singly, other runs whole."
    )
    return Section("sets", Said("How much there is"), columns, tuple(rows), (note,))


def crossings(facts: Facts) -> Section:
    """What two splits share."""
    columns = (
        *columns_of("text", "set", "and", "what"),
        *columns_of("count", "common", "utterances"),
        Column("share", "rate"),
        Column("examples"),
    )
    rows = tuple(
        (
            crossing.one,
            crossing.other,
            Said(crossing.what),
            crossing.common,
            crossing.utterances,
            crossing.utterances / crossing.of if crossing.of else None,
            ", ".join(map(_shortened, crossing.examples)),
        )
        for crossing in facts.crossings
    )
    note = Said(
        "Utterances and share: of the second set, those that have one of these. Texts: long ones."
    )
    title = Said("What two sets have in common")
    return Section("crossings", title, columns, rows, (note,))


def quantities(facts: Facts) -> Section:
    """Each quantity's spread, a line a split."""
    columns = (
        *columns_of("text", "quantity", "set"),
        Column("utterances", "count"),
        *columns_of("number", "least", "one_percent", "median"),
        *columns_of("number", "mean", "ninety_nine_percent", "most"),
    )
    rows = [
        (
            Said(QUANTITIES[name]),
            split.name,
            spread.count,
            *(spread.least, spread.quantile(0.01), spread.quantile(0.5)),
            *(spread.mean, spread.quantile(0.99), spread.most),
        )
        for name in SCALES
        for split in facts.splits
        if (spread := split.spread(name)) is not None
    ]
    note = Said(
        "Median, 1 % and 99 % rounded down to the width of a bin; least, most and mean exactly."
    )
    return Section("quantities", Said("What was measured"), columns, tuple(rows), (note,))


def bandwidths(facts: Facts) -> Section:
    """What files say of their rate against what they hold."""
    columns = (
        Column("set"),
        Column("sample_rate_hz", "count"),
        Column("bandwidth"),
        Column("utterances", "count"),
        Column("share", "rate"),
    )
    rows = tuple(
        (split.name, rate, Said(BANDS[band]), count, count / split.utterances)
        for split in facts.splits
        for (rate, band), count in split.rates_hz.items()
    )
    title = Said("Sample rates, and the bandwidth that is really there")
    return Section("bandwidth", title, columns, rows)


def languages(facts: Facts) -> Section:
    """Scripts by characters, and texts by the scripts in them."""
    kinds = ("chinese", "mixed", "latin", "digits", "other", "empty")
    columns = (*columns_of("text", "set", "of"), *columns_of("rate", *kinds))
    rows: list[tuple[Any, ...]] = []
    for split in facts.splits:
        for what, counts in (("characters", split.scripts), ("texts", split.kinds)):
            whole = sum(counts.values())
            shares = [counts[name] / whole if counts.get(name) else None for name in kinds]
            rows.append((split.name, Said(what), *shares))
    note = Said("Digits may stand in a text of any language; texts of digits alone count as such.")
    return Section("languages", Said("Language mix"), columns, tuple(rows), (note,))


def characters(facts: Facts) -> Section:
    """Characters that training hardly meets."""
    found = facts.characters
    columns = (Column("characters"), Column("count", "count"), Column("which"))
    rows: list[tuple[Any, ...]] = [(Said("different ones"), found.distinct, "")]
    if found.rare_count:
        what = Said("in train at most {rare} times", rare=RARE)
        rows.append((what, found.rare_count, _listed(found.rare)))
    if found.unseen_count:
        what = Said("in other sets, never in train")
        rows.append((what, found.unseen_count, _listed(found.unseen)))
    for tokenizer, lost in (found.unspelt or {}).items():
        what = Said("not given back by the {tokenizer} tokenizer", tokenizer=tokenizer)
        rows.append((what, len(lost), _listed(lost)))
    unasked = Said("No tokenizer was asked (prepare --model DIR).")
    notes = (unasked,) if found.unspelt is None else ()
    return Section("characters", Said("Rare characters"), columns, tuple(rows), notes)


def speakers(facts: Facts) -> Section:
    """Who speaks most."""
    columns = (Column("set"), Column("speaker"), Column("hours", "hours"), Column("share", "rate"))
    rows = tuple(
        (split.name, name, seconds, seconds / split.seconds if split.seconds else None)
        for split in facts.splits
        for name, seconds in split.largest
    )
    return Section("speakers", Said("Who speaks most"), columns, rows)


def tags(facts: Facts) -> Section:
    """Domains, channels, codecs and noises."""
    columns = (
        *columns_of("text", "set", "by", "value"),
        Column("utterances", "count"),
        Column("share", "rate"),
    )
    rows = tuple(
        (split.name, Said(tag), value, count, count / split.utterances)
        for split in facts.splits
        for tag, values in split.tags.items()
        for value, count in values.items()
    )
    return Section("tags", Said("Domains and channels"), columns, rows)


def left_out(facts: Facts) -> Section:
    """How many lines each rule left out."""
    columns = (Column("rule"), Column("lines", "count"), Column("share", "rate"))
    whole = facts.left_out_lines + sum(split.utterances for split in facts.splits)
    rows = tuple((Name(rule.name), rule.lines, rule.lines / whole) for rule in facts.left_out)
    note = Said("Share of all lines that were read; every one of them is in left_out.jsonl.")
    return Section("left_out", Said("What was left out"), columns, rows, (note,))


def examples(facts: Facts) -> Section:
    """The first few lines of each rule."""
    columns = columns_of("text", "rule", "why", "text", "place")
    rows = tuple(
        (Name(rule.name), why, _shortened(text), place)
        for rule in facts.left_out
        for place, text, why in rule.examples
    )
    return Section("left_out_examples", Said("Examples of what was left out"), columns, rows)


def settings(facts: Facts) -> Section:
    """What `prepare` was asked for."""
    columns = columns_of("text", "setting", "value")
    given = {name: _plain(value) for name, value in facts.settings.items() if value is not None}
    rows = tuple((name, text) for name, text in given.items() if text)
    return Section("settings", Said("What prepare was asked for"), columns, rows)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping | list):
        return ", ".join(_parts(value))
    return value if isinstance(value, str) else format_value(value)


def _parts(value: Any, name: str = "") -> Iterator[str]:
    """Leaves of nested values, each with its name."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _parts(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for each in value:
            yield from _parts(each, name)
    elif value is not None:
        yield f"{name}: {_plain(value)}" if name else _plain(value)


def _listed(counted: tuple[tuple[str, int], ...]) -> str:
    return " ".join(char for char, _ in counted)


def _shortened(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= SHOWN_TEXT else f"{flat[: SHOWN_TEXT - 1]}…"
