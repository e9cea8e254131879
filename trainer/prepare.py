"""Manifests from recordings and transcripts as people have them.

    python -m trainer prepare --wav_dir SOUNDS --transcripts names.txt --spoken --output_dir data/x
    python -m trainer prepare --wav_scp wav.scp --text text --output_dir data/x

Writes ``train.jsonl`` and ``valid.jsonl``, split by key so that the same input gives the same
split, and ``left_out.jsonl`` with every line that is in neither and the rule that left it out.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from conf.errors import DataError
from trainer.manifest import EMPTY, read_header

_ANNOTATION_ERROR = "<ANNOTATION_ERROR>"
_NOT_SPOKEN = re.compile(r"[\[\]()<>{}*#@$%^&_=+|\\/~]")
_NUMERAL = re.compile(r"\d{2,}|\d[.,]\d")
_MAX_DURATION_S = 30.0


@dataclass(frozen=True)
class Recording:
    """A line of the input: what was said in which file, and where that is written."""

    key: str
    source: Path
    text: str
    place: str


@dataclass(frozen=True)
class Prepared:
    """What became of the input: utterances per manifest, and lines left out per rule."""

    train: int
    valid: int
    left_out: dict[str, int]

    def __str__(self) -> str:
        rules = ", ".join(f"{count} {rule}" for rule, count in sorted(self.left_out.items()))
        total = sum(self.left_out.values())
        return f"train {self.train}, valid {self.valid}, left out {total}" + (
            f" ({rules})" if rules else ""
        )


def read_folder(wav_dir: Path, transcripts: Path) -> list[Recording]:
    """Reads ``NAME: text`` lines; NAME is a file below ``wav_dir`` without its ending.

    Lines that start with ``;`` are comments. The file may be gzipped.

    Raises:
        DataError: A line has no colon, or the folder holds no audio.
    """
    files = {
        path.relative_to(wav_dir).with_suffix("").as_posix(): path
        for path in sorted(wav_dir.rglob("*.wav"))
    }
    if not files:
        raise DataError(f"{wav_dir}: got no .wav file below it, expected recordings")
    return [
        Recording(name, files.get(name, wav_dir / f"{name}.wav"), text, place)
        for place, name, text in _named_lines(transcripts, ":")
    ]


def read_kaldi(wav_scp: Path, text: Path) -> list[Recording]:
    """Reads Kaldi's ``wav.scp`` (``KEY PATH``) and ``text`` (``KEY TRANSCRIPT``).

    Raises:
        DataError: A line has one field, or a key is in one file only.
    """
    sources = {key: (place, path) for place, key, path in _named_lines(wav_scp, None)}
    texts = {key: (place, said) for place, key, said in _named_lines(text, None)}
    problems = [
        f"{place}: got key {key!r} that the other file lacks, expected it in {wav_scp} and {text}"
        for mine, other in ((sources, texts), (texts, sources))
        for key, (place, _) in mine.items()
        if key not in other
    ]
    if problems:
        raise DataError(problems[:20])
    return [
        Recording(key, _beside(path, wav_scp.parent), texts[key][1], place)
        for key, (place, path) in sources.items()
    ]


def prepare(
    recordings: Sequence[Recording], output_dir: Path, *, valid_share: float, spoken: bool
) -> Prepared:
    """Filters, splits and writes.

    Args:
        recordings: The input in its order.
        output_dir: Made if it is not there; its manifests are replaced.
        valid_share: Fraction of the utterances that goes to ``valid.jsonl``.
        spoken: Write transcripts as they are spoken: lower case, without punctuation.

    Raises:
        DataError: Nothing is left.
    """
    kept: list[Recording] = []
    left_out: list[tuple[Recording, str]] = []
    seen: set[str] = set()
    for recording in recordings:
        rule = _rule_against(recording, seen)
        if rule:
            left_out.append((recording, rule))
        else:
            seen.add(recording.key)
            kept.append(recording)
    if not kept:
        rules = Counter(rule for _, rule in left_out)
        raise DataError(f"{output_dir}: got no usable utterance ({dict(rules)}), expected some")
    valid_keys = _valid_keys(kept, valid_share)
    output_dir.mkdir(parents=True, exist_ok=True)
    lines = {
        name: [_line(item, spoken) for item in kept if (item.key in valid_keys) == is_valid]
        for name, is_valid in (("train", False), ("valid", True))
    }
    for name, split in lines.items():
        _write(output_dir / f"{name}.jsonl", split)
    _write(
        output_dir / "left_out.jsonl",
        [{"key": r.key, "place": r.place, "text": r.text, "rule": rule} for r, rule in left_out],
    )
    counts = Counter(rule for _, rule in left_out)
    return Prepared(len(lines["train"]), len(lines["valid"]), dict(counts))


def _rule_against(recording: Recording, seen: set[str]) -> str | None:
    """The name of the first rule that leaves a recording out."""
    text = recording.text
    if recording.key in seen:
        return "duplicate key"
    if _ANNOTATION_ERROR in text:
        return "annotation error"
    if not any(char.isalnum() for char in text):
        return "empty text"
    if _NOT_SPOKEN.search(text):
        return "symbols without a spoken form"
    if _NUMERAL.search(text):
        return "numeral that can be read in several ways"
    audio, problem = read_header(str(recording.source))
    if problem:
        return "empty audio" if problem == EMPTY else "no readable audio"
    return "longer than 30 s" if audio.duration_s > _MAX_DURATION_S else None


def _valid_keys(recordings: Iterable[Recording], share: float) -> set[str]:
    """The keys whose hash comes first: independent of order and of the other keys' number."""

    def rank(key: str) -> str:
        return hashlib.sha256(key.encode()).hexdigest()

    ranked = sorted((recording.key for recording in recordings), key=rank)
    return set(ranked[: round(share * len(ranked))])


def _line(recording: Recording, spoken: bool) -> dict[str, str]:
    text = recording.text.strip()
    if spoken:
        text = re.sub(r"[^\w' ]+", " ", text.lower())
    return {
        "key": recording.key,
        "source": str(recording.source.resolve()),
        "target": " ".join(text.split()),
    }


def _named_lines(path: Path, separator: str | None) -> Iterator[tuple[str, str, str]]:
    """``(FILE:LINE, name, rest)`` of each line that is not empty or a comment."""
    if not path.is_file():
        raise DataError(f"{path}: got no such file, expected transcripts")
    open_text = gzip.open if path.suffix == ".gz" else open
    with open_text(path, "rt", encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip() or line.startswith(";"):
                continue
            name, *rest = line.strip().split(separator, 1)
            if not rest:
                expected = f"NAME{separator or ' '}TEXT"
                raise DataError(f"{path}:{number}: got {line.strip()!r}, expected {expected}")
            yield f"{path}:{number}", name.strip(), rest[0].strip()


def _beside(name: str, directory: Path) -> Path:
    path = Path(name).expanduser()
    return path if path.is_absolute() else directory / path


def _write(path: Path, lines: Iterable[dict[str, str]]) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    partial.replace(path)
