"""What a preparation is asked for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

SPLITS = ("train", "valid", "test")
SplitBy = Literal["auto", "call", "speaker", "key"]


@dataclass(frozen=True)
class Given:
    """Files to read, and the split that they are, where that is said.

    Attributes:
        path: A manifest, a table, a list of manifests, a directory of Kaldi's, ``wav.scp``, or
            transcripts by name.
        split: One of `SPLITS`; None is to be split.
        wav_dir: Where the recordings of transcripts by name are.
        beside: Kaldi's other files, by their usual name (``text``, ``segments`` ...).
    """

    path: Path
    split: str | None = None
    wav_dir: Path | None = None
    beside: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True)
class Settings:
    """Everything that decides what comes out, but for the content of the files.

    Attributes:
        given: What to read, in this order.
        root: Where relative paths start, and what none may leave.
        columns: Our name of a column or key, and theirs.
        map_paths: Beginnings of paths, and what stands there on this machine.
        encoding: Of all texts that are read.
        valid_share: Of the utterances that are to be split.
        test_share: Of the same.
        split_by: What may not be in two splits.
        min_s: Shortest recording.
        max_s: Longest recording.
        min_chars_per_s: Fewest letters, digits and Chinese characters a second.
        max_chars_per_s: Most of them.
        rates_hz: Sample rates to take; none given takes all.
        spoken: Write transcripts as they are spoken: lower case, without punctuation.
        keep_spaces: Leave spaces between Chinese characters.
        keep: Rules that leave nothing out.
        model: A model directory, whose tokenizer counts.
        scan: Read all audio.
        simulate: The name of a telephone channel, or its YAML.
        seed: Of the simulation.
        strict: Stop at the first bad line instead of leaving it out.
    """

    given: tuple[Given, ...]
    root: Path | None = None
    columns: tuple[tuple[str, str], ...] = ()
    map_paths: tuple[tuple[str, str], ...] = ()
    encoding: str = "utf-8"
    valid_share: float = 0.1
    test_share: float = 0.0
    split_by: SplitBy = "auto"
    min_s: float = 0.1
    max_s: float = 30.0
    min_chars_per_s: float = 0.2
    max_chars_per_s: float = 30.0
    rates_hz: tuple[int, ...] = ()
    spoken: bool = False
    keep_spaces: bool = False
    keep: tuple[str, ...] = field(default=())
    model: Path | None = None
    scan: bool = True
    simulate: str | None = None
    seed: int = 0
    strict: bool = False

    def as_json(self) -> dict[str, Any]:
        """Of plain types, as they are written down; what resuming compares."""
        values = dataclasses.asdict(self)
        del values["strict"]  # decides whether something comes out, and not what
        plain: dict[str, Any] = _plain(values)
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
