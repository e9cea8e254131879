"""The texts of the finalists, utterance by utterance, for the report's browser.

Texts are compared as they are scored: normalised, character by character, aligned by kaldialign.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kaldialign import align

from analysis.facts.comparison import Comparison
from analysis.facts.utterances import BASE, EvidenceSource, Reader
from analysis.tables.sections import SAID_KINDS, cuts, slice_name
from conf.document.language import ENGLISH, Language, Said
from trainer.evaluation.error_rates import normalise


@dataclass(frozen=True)
class System:
    """A trial, or the base, whose texts can be looked at."""

    name: str
    trial: int


def systems(facts: Comparison, words: Language = ENGLISH) -> tuple[System, ...]:
    """The finalists and the base."""
    found = []
    for row in facts.finalists:
        what = "default" if row.baseline else "best" if row is facts.best else ""
        name = f"{row.stage} #{row.trial} {words(Said(what))}".strip()
        found.append(System(name, row.trial))
    return (*found, System(words(Said("base")), BASE))


def texts(facts: Comparison, store: EvidenceSource, words: Language = ENGLISH) -> dict[str, Any]:
    """What the browser shows, as JSON: by set its utterances, each with every system's text."""
    reader = Reader(facts.sweep_record, store, None)
    shown = systems(facts, words)
    sets = {}
    for split, evaluated in facts.evidence.sets.items():
        heard = {system: _texts(facts, reader, system, split) for system in shown}
        heard = {system: found for system, found in heard.items() if found}
        labels: dict[int, dict[str, str]] = {}
        slices: dict[str, list[str]] = {}
        for kind, label, chosen in cuts(evaluated):
            said = words(Said(kind)) if kind in SAID_KINDS else kind
            name = slice_name(kind, label)
            name = words(name) if isinstance(name, Said) else name
            slices.setdefault(said, []).append(name)
            for index in chosen.tolist():
                labels.setdefault(index, {})[said] = name
        utterances = []
        for index, key in enumerate(evaluated.keys):
            references = [found[key][0] for found in heard.values() if key in found]
            if not references:
                continue
            reference = normalise(references[0])
            utterances.append(
                {
                    "key": key,
                    "ref": reference,
                    "slices": labels.get(index, {}),
                    "texts": [
                        operations(reference, normalise(found[key][1])) if key in found else None
                        for found in heard.values()
                    ],
                }
            )
        if utterances:
            sets[split] = {
                "systems": [system.name for system in heard],
                "slices": slices,
                "utterances": utterances,
                "whole": len(utterances),
            }
    return sets


def operations(reference: str, hypothesis: str) -> list[str]:
    """The hypothesis, and what became of the characters, in order.

    Returns:
        The text, and a letter for each step of the alignment: `=` equal, `S` substituted, `D`
        deleted, `I` inserted.
    """
    steps = []
    # Normalised text holds no empty character, so the empty string can stand for a gap.
    for expected, got in align(list(reference), list(hypothesis), ""):
        steps.append("=" if expected == got else "D" if not got else "S" if expected else "I")
    return [hypothesis, "".join(steps)]


def _texts(
    facts: Comparison, reader: Reader, system: System, split: str
) -> Mapping[str, tuple[str, str]]:
    """Reference and text by key; empty where they are not to be had."""
    if system.trial == BASE:
        lines = reader.base_lines(split)
    else:
        row = facts.row(system.trial)
        assert row is not None
        lines = reader.lines(row.run_id, f"hypotheses/{split}.jsonl")
    return {
        line["key"]: (str(line.get("reference", "")), str(line.get("text", "")))
        for line in lines or ()
    }
