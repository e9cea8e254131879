"""What a data report says, as typed records; nothing here reads or draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.prepare.report.histogram import Scale, Spread

SCALES: Mapping[str, Scale] = {
    "duration_s": Scale(0, 0.1, 600),
    "characters": Scale(0, 1, 500),
    "characters_per_s": Scale(0, 0.1, 400),
    "words_per_s": Scale(0, 0.1, 200),
    "bandwidth_hz": Scale(0, 100, 240),
    "level_dbfs": Scale(-100, 1, 100),
    "peak_dbfs": Scale(-100, 1, 105),
    "clipped": Scale(0, 0.001, 200),
    "snr_db": Scale(-20, 1, 100),
    "hum_db": Scale(-20, 1, 100),
    "echo_db": Scale(-20, 1, 100),
    "loss_rate": Scale(0, 0.005, 100),
}
"""What is counted of each utterance. Characters are those that the CER counts, words those that the
MER counts: Chinese characters singly, other runs as words."""

MEASURED = ("bandwidth_hz", "level_dbfs", "peak_dbfs", "clipped")
"""What the second pass of `prepare` measures; `sha256` too."""
DRAWN = ("snr_db", "hum_db", "echo_db", "loss_rate")
"""What a simulated telephone channel has drawn."""
TAGS = ("domain", "channel", "codec", "noise")

TELEPHONE_BAND_HZ = 4200
"""Up to here a recording is narrow-band: 4 kHz, and what a resampler's slope leaves above."""
FULL_BAND_HZ = 7000
"""From here on a recording fills what 16 kHz can carry."""
LONG_TEXT_WORDS = 8
"""Texts of fewer words recur by chance in calls: 您好 请问 有 什么 is said in every one."""
RARE = 2
"""A character that occurs no oftener than this is hardly learnt."""


@dataclass(frozen=True)
class Split:
    """One manifest.

    Attributes:
        name: train, valid or test.
        utterances: Its lines.
        spreads: By quantity what was found; a quantity that no line has is missing.
        rates_hz: Utterances per sample rate and band (`narrow`, `between`, `wide`, or empty where
            the band was not measured).
        domains: Utterances per domain that the manifest names and band.
        scripts: Characters per script: chinese, latin, digits, other.
        kinds: Utterances by the scripts in their text: chinese, latin, mixed, digits, other, empty.
        words: Latin words, and Chinese characters singly, as the MER counts them.
        speakers: How many are named.
        without_speaker: Utterances that name none.
        calls: How many are named.
        without_call: Utterances that name none.
        largest: The speakers with most seconds, and how many those are.
        repeated_texts: Long texts that stand in this split before already.
        long_texts: Texts of `LONG_TEXT_WORDS` and more.
        repeated_audio: Utterances whose audio content stands in this split before already.
        hashed: Utterances whose audio content is known.
        tags: Utterances per value of a tag; of many values the most frequent.
    """

    name: str
    utterances: int
    spreads: Mapping[str, Spread]
    rates_hz: Mapping[tuple[int, str], int]
    domains: Mapping[tuple[str, str], int]
    scripts: Mapping[str, int]
    kinds: Mapping[str, int]
    words: int
    speakers: int
    without_speaker: int
    calls: int
    without_call: int
    largest: tuple[tuple[str, float], ...]
    repeated_texts: int
    long_texts: int
    repeated_audio: int
    hashed: int
    tags: Mapping[str, Mapping[str, int]]

    @property
    def seconds(self) -> float:
        """Speech in all."""
        spread = self.spreads.get("duration_s")
        return spread.total if spread else 0.0

    def spread(self, name: str) -> Spread | None:
        """A quantity's values, if any line has it."""
        return self.spreads.get(name)


@dataclass(frozen=True)
class Crossing:
    """What two splits have in common.

    Attributes:
        what: speakers, calls, texts or audio.
        one: The earlier split.
        other: The later one.
        common: How many names or contents.
        utterances: Of the later split, how many have one of them.
        of: Of the later split, how many have a name or content at all.
        examples: A few of the names, or of the later split's keys or texts.
    """

    what: str
    one: str
    other: str
    common: int
    utterances: int
    of: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Characters:
    """Characters of the texts as they stand, without white space.

    Attributes:
        distinct: How many different ones.
        total: How many in all.
        rare: Those of the training set that occur no oftener than `RARE`, rarest first.
        rare_count: How many those are; `rare` shows the first of them.
        unseen: Of validation and test set, with counts, those that the training set lacks.
        unseen_count: How many those are.
        unspelt: By tokenizer, with counts, those that it does not give back; None if no tokenizer
            was asked.
    """

    distinct: int
    total: int
    rare: tuple[tuple[str, int], ...]
    rare_count: int
    unseen: tuple[tuple[str, int], ...]
    unseen_count: int
    unspelt: Mapping[str, tuple[tuple[str, int], ...]] | None


@dataclass(frozen=True)
class Rule:
    """What one rule left out.

    Attributes:
        name: The rule.
        lines: How many lines.
        examples: Place, text and reason of the first few.
    """

    name: str
    lines: int
    examples: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Picked:
    """A recording worth looking at.

    Attributes:
        why: loudest, quietest, narrowest, most clipped, longest, or random.
        split: Where it stands.
        key: Its key.
        source: Its file.
        text: What is said.
        values: What the manifest says of it, by name.
    """

    why: str
    split: str
    key: str
    source: Path
    text: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Facts:
    """Everything a report says.

    Attributes:
        directory: What was read.
        settings: What `prepare` was asked for, as it wrote it down.
        splits: The manifests, in the order of `SPLITS`.
        crossings: What they share, where they share something.
        characters: Of all texts.
        left_out: By rule, most lines first.
        picked: Recordings to look at.
    """

    directory: Path
    settings: Mapping[str, Any]
    splits: tuple[Split, ...]
    crossings: tuple[Crossing, ...]
    characters: Characters
    left_out: tuple[Rule, ...]
    picked: tuple[Picked, ...]

    def split(self, name: str) -> Split | None:
        """A split by its name, if there is one."""
        return next((split for split in self.splits if split.name == name), None)

    @property
    def left_out_lines(self) -> int:
        """In all."""
        return sum(rule.lines for rule in self.left_out)
