"""The output directory: whose it is, and what is kept in it while the work goes on."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from conf.errors import UserError
from conf.files import locked, write_bytes
from trainer.prepare.settings import SPLITS
from trainer.prepare.write import MARK

_AROUND = ".prepare"
_AUDIO_MARK = ".prepared"


def refuse_foreign(output_dir: Path, read: Sequence[Path]) -> None:
    """Refuses to replace manifests that were not made here, above all what is read.

    Args:
        output_dir: Where manifests will be written.
        read: The input's files.

    Raises:
        UserError: One would be replaced.
    """
    written = [output_dir / f"{split}.jsonl" for split in SPLITS] + [output_dir / "left_out.jsonl"]
    for path in read:
        if path.resolve() in written:
            raise UserError(
                f"--output_dir: got {output_dir}, where {path.name} would be overwritten, "
                "which is read; expected another directory"
            )
    prepared = (output_dir / MARK).is_file() or (output_dir / _AROUND).is_dir()
    for path in written:
        if path.exists() and not prepared:
            raise UserError(
                f"--output_dir: got {output_dir}, whose {path.name} was not prepared here (there "
                f"is no {MARK}); expected an empty or another directory"
            )


@contextlib.contextmanager
def working(output_dir: Path, about: dict[str, Any]) -> Iterator[Path]:
    """Where the passes keep what they found; it goes when all is written.

    What another command, or the same one on other files, left there is thrown away.

    Args:
        output_dir: Made if it is not there.
        about: Everything that decides what the passes find.

    Raises:
        UserError: Another process works there.
    """
    around = output_dir / _AROUND
    around.mkdir(parents=True, exist_ok=True)
    with locked(around / "lock", f"{output_dir}: is being prepared by another process:"):
        mark = around / "about.json"
        told = orjson.dumps(about)
        if not mark.is_file() or mark.read_bytes() != told:
            for path in around.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
            write_bytes(mark, told)
        yield around
        shutil.rmtree(around)


def is_ours(audio_dir: Path) -> bool:
    """Whether an earlier preparation wrote its audio there."""
    return (audio_dir / _AUDIO_MARK).is_file()


def take_audio_dir(audio_dir: Path, *, anew: bool) -> None:
    """Makes the directory for audio ours; nobody else's recordings are there to be replaced.

    Args:
        audio_dir: ``wav`` in the output directory.
        anew: Throw away what an earlier preparation wrote there.

    Raises:
        UserError: It holds what was not written here.
    """
    if audio_dir.exists() and any(audio_dir.iterdir()) and not is_ours(audio_dir):
        raise UserError(
            f"--output_dir: got {audio_dir.parent}, whose {audio_dir.name}/ holds recordings that "
            "were not written here, where sides or parts of calls have to be written; expected "
            "another directory"
        )
    if anew and audio_dir.exists():
        for path in audio_dir.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
    audio_dir.mkdir(parents=True, exist_ok=True)
    (audio_dir / _AUDIO_MARK).touch()
