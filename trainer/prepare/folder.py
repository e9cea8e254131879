"""Recordings in a folder and a text that says what is said in which: ``NAME: TEXT``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from conf.errors import DataError
from trainer.prepare.lines import Line, Mistake, text_lines
from trainer.prepare.settings import Settings


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
