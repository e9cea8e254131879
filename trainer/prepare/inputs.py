"""What people have, recognised by its ending or content, and read line by line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conf.errors import DataError
from trainer.data.manifest import one_line, resolve
from trainer.prepare.lines import Line, Mistake, open_bytes, text_lines
from trainer.prepare.read_kaldi import OPTIONAL, read_kaldi
from trainer.prepare.read_tables import looks_like_a_table, read_jsonl, read_table
from trainer.prepare.settings import Given, Settings

_FORMS = "a manifest (.jsonl), a table (.csv, .tsv), a list of them (.txt) or Kaldi's directory"


@dataclass(frozen=True)
class File:
    """A file that was read.

    Attributes:
        path: As it was given.
        sha256: Of its content.
        num_lines: Line ends in it; about what is to be done.
    """

    path: Path
    sha256: str
    num_lines: int


def read(settings: Settings) -> Iterator[Line]:
    """Every line of every input, in order; one that cannot be used says so.

    Raises:
        DataError: A file cannot be read at all.
    """
    for given in settings.given:
        yield from _read(given, settings)


def files(settings: Settings) -> list[File]:
    """All that is read, with digests: what decides the result beside the settings.

    Raises:
        DataError: One cannot be read.
    """
    paths: dict[Path, None] = {}
    for given in settings.given:
        if _is_kaldi(given):
            wav_scp, beside = _kaldi_files(given)
            paths |= dict.fromkeys((wav_scp, *beside.values()))
            continue
        paths[given.path] = None
        if given.wav_dir is None and _form(given.path, settings) == "list":
            listed = (path for _, path in _listed(given.path, settings))
            paths |= dict.fromkeys(path for path in listed if isinstance(path, Path))
    return [_file(path) for path in paths]


def _read(given: Given, settings: Settings) -> Iterator[Line]:
    if given.wav_dir is not None:
        yield from read_folder(given.wav_dir, given.path, given.split, settings)
        return
    if _is_kaldi(given):
        wav_scp, beside = _kaldi_files(given)
        yield from read_kaldi(wav_scp, beside, given.split, settings)
        return
    form = _form(given.path, settings)
    if form == "list":
        for place, path in _listed(given.path, settings):
            if isinstance(path, Mistake):
                yield Line(place, split=given.split, mistake=(path.rule, path.why))
            else:
                yield from _read_file(path, _form(path, settings), given.split, settings)
    else:
        yield from _read_file(given.path, form, given.split, settings)


def _read_file(path: Path, form: str, split: str | None, settings: Settings) -> Iterator[Line]:
    reader = read_table if form == "table" else read_jsonl
    return reader(path, split, settings)


def _is_kaldi(given: Given) -> bool:
    return given.wav_dir is None and (
        bool(given.beside) or given.path.is_dir() or given.path.name == "wav.scp"
    )


def _kaldi_files(given: Given) -> tuple[Path, dict[str, Path]]:
    """``wav.scp``, and those of Kaldi's other files that were given or lie beside it.

    Raises:
        DataError: There is no ``wav.scp`` or no ``text``.
    """
    wav_scp = given.path / "wav.scp" if given.path.is_dir() else given.path
    if not wav_scp.is_file():
        raise DataError(f"{given.path}: got no wav.scp in it, expected {_FORMS}")
    beside = dict(given.beside)
    if not beside:
        usual = {name: wav_scp.parent / name for name in ("text", *OPTIONAL)}
        beside = {name: path for name, path in usual.items() if path.is_file()}
    if "text" not in beside:
        raise DataError(f"{wav_scp}: got no text beside it, expected transcripts (--text FILE)")
    return wav_scp, beside


def _form(path: Path, settings: Settings) -> str:
    """``table``, ``jsonl`` or ``list``: by the ending, else by the first line.

    Raises:
        DataError: It is neither.
    """
    name = path.name.removesuffix(".gz")
    if name.endswith((".csv", ".tsv")):
        return "table"
    if name.endswith((".jsonl", ".ndjson")):
        return "jsonl"
    lines = (text for _, text in text_lines(path, settings.encoding))
    head = next((text for text in lines if isinstance(text, Mistake) or text.strip()), "")
    if isinstance(head, Mistake):
        raise DataError(f"{path}:1: {head.why}, expected {_FORMS}")
    if head.lstrip().startswith("{"):
        return "jsonl"
    if head.lstrip().startswith("["):
        raise DataError(f"{path}:1: got one JSON list, expected one object a line")
    listed = resolve(head.strip(), path.parent)
    if listed.suffix and listed.is_file():
        return "list"
    if looks_like_a_table(head):
        return "table"
    raise DataError(f"{path}:1: got {head[:80]!r}, expected {_FORMS}")


def _listed(path: Path, settings: Settings) -> Iterator[tuple[str, Path | Mistake]]:
    """The manifests that a list names, as in FunASR: one a line."""
    for number, text in text_lines(path, settings.encoding):
        place = f"{path}:{number}"
        if isinstance(text, Mistake):
            yield place, text
        elif name := text.strip():
            listed = resolve(name, path.parent)
            if not listed.is_file():
                yield (
                    place,
                    Mistake("no such manifest", f"got {name!r}, expected a manifest's path"),
                )
            elif listed.samefile(path):
                yield place, Mistake("list names itself", f"got {name!r}, which is this list")
            elif _form(listed, settings) == "list":
                yield (
                    place,
                    Mistake("no such manifest", f"got {name!r}, a list, expected a manifest"),
                )
            else:
                yield place, listed


def _file(path: Path) -> File:
    digest, num_lines = hashlib.sha256(), 0
    try:
        open_bytes(path).close()  # says what is wrong, if something is
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
                num_lines += block.count(b"\n")
    except OSError as error:
        raise DataError(f"{path}: got {one_line(error)}, expected a readable file") from error
    return File(path, digest.hexdigest(), num_lines)


def read_folder(
    wav_dir: Path, transcripts: Path, split: str | None, settings: Settings
) -> Iterator[Line]:
    """The utterances of a folder; NAME is a file below it without its ending.

    Lines that start with ``;`` are comments. The transcripts may be gzipped.

    Raises:
        DataError: The folder holds no ``.wav``.
    """
    if next(wav_dir.rglob("*.wav"), None) is None:
        raise DataError(f"{wav_dir}: got no .wav file below it, expected recordings")
    for number, text in text_lines(transcripts, settings.encoding):
        place = f"{transcripts}:{number}"
        if isinstance(text, Mistake):
            yield Line(place, split=split, mistake=(text.rule, text.why))
            continue
        if not text.strip() or text.startswith(";"):
            continue
        name, colon, said = (part.strip() for part in text.partition(":"))
        if colon:
            yield Line(place, name, f"{name}.wav", said, str(wav_dir), split)
        else:
            why = f"got {name[:80]!r}, expected NAME: TEXT"
            yield Line(place, split=split, mistake=("malformed line", why))
