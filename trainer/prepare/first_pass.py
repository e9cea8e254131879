"""The first pass: each line's path, text and header. No audio is read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import Any

from conf.errors import DataError
from trainer.data.manifest import EMPTY, Audio, read_header, resolve
from trainer.prepare import filters
from trainer.prepare.lines import Line, Mistake
from trainer.prepare.settings import Settings

Record = dict[str, Any]
"""What is known of a line, as it is kept between the passes: plain JSON."""
Header = Callable[[str], tuple[Audio, str]]

_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def check_lines(lines: Sequence[Line], settings: Settings, audio_dir: str | None) -> list[Record]:
    """A record of each line; one that is left out has ``rule`` and ``why``.

    Args:
        lines: Of the input.
        settings: What is asked for.
        audio_dir: Where audio is replaced, and so cannot be read from; None if nowhere.
    """
    header = lru_cache(maxsize=64)(read_header)  # parts of one recording stand together
    return [_check(line, settings, audio_dir, header) for line in lines]


def _check(line: Line, settings: Settings, audio_dir: str | None, header: Header) -> Record:
    record: Record = {
        "place": line.place,
        "key": line.key,
        "source": line.source,
        "text": line.text,
        "split": line.split,
    }
    try:
        if line.mistake:
            raise Mistake(*line.mistake)
        if found := filters.against_text(line.text, settings):
            raise Mistake(*found)
        path = _path(line, settings)
        if audio_dir and path.startswith(f"{audio_dir}/"):
            why = f"source: got {path!r}, where this command writes, expected another directory"
            raise Mistake("audio that would be replaced", why)
        audio = _audio(path, header)
        first, last = _span(line, audio)
        record["duration_s"] = (last - first) / audio.sample_rate_hz
        target = filters.target_of(line.text, settings)
        if found := filters.against_length(
            record["duration_s"], audio.sample_rate_hz, target, settings
        ):
            raise Mistake(*found)
        side = _side(line, audio, settings)
    except Mistake as error:
        return record | {"rule": error.rule, "why": error.why}
    record |= {
        "path": path,
        "target": target,
        "tokens": counter(settings.model)(target),
        "rate_hz": audio.sample_rate_hz,
        "samples": last - first,
        "speaker": line.speaker,
        "call": line.call,
        "fields": dict(line.fields),
    }
    if side is not None or last - first < audio.num_samples:
        record["cut"] = [first, last, side]
    return record


def _path(line: Line, settings: Settings) -> str:
    """Where the recording is, absolute."""
    source = line.source
    for theirs, ours in settings.map_paths:
        if source.startswith(theirs):
            source = ours + source.removeprefix(theirs)
            break
    if _DRIVE.match(source):
        raise _elsewhere(source, PureWindowsPath(source).anchor)
    root = settings.root
    path = Path(source).expanduser() if root is None else root / Path(source).expanduser()
    absolute = os.path.abspath(path if root is not None else resolve(source, Path(line.directory)))
    if root is not None and not Path(absolute).is_relative_to(os.path.abspath(root)):
        raise Mistake("outside --root", f"got {line.source!r}, expected a path below {root}")
    if path.is_absolute() and root is None and not os.path.isdir(os.path.dirname(absolute)):
        raise _elsewhere(source, os.path.dirname(absolute))
    return absolute


def _elsewhere(source: str, missing: str) -> Mistake:
    why = f"got {source!r}, but there is no {missing} here (--map_path OLD=NEW moves it)"
    return Mistake("absolute path not on this machine", why)


def _audio(path: str, header: Header) -> Audio:
    audio, problem = header(path)
    if not problem:
        return audio
    got = f"source: got {path!r} ({problem}"
    if problem == "no such file":
        raise Mistake("no such file", f"{got}), expected a recording")
    if problem in ("a directory", "no file"):
        raise Mistake("not a file", f"{got}), expected a recording")
    if problem.startswith("cut off"):
        raise Mistake("cut off audio", f"{got}), expected a whole recording")
    if problem == EMPTY or _is_empty(path):
        raise Mistake("empty audio", f"{got}), expected a recording")
    if path.endswith((".jsonl", ".json", ".csv", ".tsv", ".txt", ".scp")):
        raise Mistake("manifest instead of audio", f"{got}), expected a recording")
    raise Mistake("no readable audio", f"{got}{_what_it_is(path)}), expected a recording")


def _is_empty(path: str) -> bool:
    try:
        return os.path.getsize(path) == 0
    except (OSError, ValueError):
        return False


def _what_it_is(path: str) -> str:
    """What a file that is no sound to us begins like, after a semicolon."""
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except (OSError, ValueError):
        return ""
    if start[4:8] == b"ftyp":
        return "; it begins like MPEG-4: ffmpeg -i makes a WAV of it"
    if start.startswith(b"#!AMR"):
        return "; it begins like AMR: ffmpeg -i makes a WAV of it"
    try:
        start.decode("ascii")
    except UnicodeDecodeError:
        return ""
    return "; it begins like a text"


def _span(line: Line, audio: Audio) -> tuple[int, int]:
    """First sample and the one after the last of an utterance in its recording."""
    if line.span_s is None:
        return 0, audio.num_samples
    begin_s, end_s = line.span_s
    first = round(begin_s * audio.sample_rate_hz)
    last = audio.num_samples if end_s == float("inf") else round(end_s * audio.sample_rate_hz)
    # Segments are written with two decimals, and so may end a little behind the end.
    if audio.num_samples < last <= audio.num_samples + 0.05 * audio.sample_rate_hz:
        last = audio.num_samples
    if not first < last <= audio.num_samples:
        why = f"got {begin_s:g} to {end_s:g} s, expected within {audio.duration_s:.2f} s"
        raise Mistake("span outside the recording", why)
    return first, last


def _side(line: Line, audio: Audio, settings: Settings) -> int | None:
    """The channel to take, of a recording that has several; None takes the mean of all."""
    if audio.num_channels == 1:
        return None  # of a recording that is one side, also where the side is named
    if line.side is None:
        if "stereo without a side" in settings.keep:
            return None
        why = f"got {audio.num_channels} channels, expected side or channel_index to name one"
        raise Mistake("stereo without a side", why)
    if line.side >= audio.num_channels:
        why = f"got channel {line.side} (from 0), but there are {audio.num_channels}"
        raise Mistake("no such side", why)
    return line.side


@lru_cache(maxsize=1)
def counter(model: Path | None) -> Callable[[str], int]:
    """Counts the tokens that the LLM of a model directory makes of a text.

    Without a model characters are counted, which are about as many in Chinese: FunASR sorts and
    cuts batches by them, and our trainer counts for itself.

    Raises:
        DataError: The directory holds no tokenizer.
    """
    if model is None:
        return len
    found = sorted(model.glob("*/tokenizer.json"))
    if len(found) != 1:
        raise DataError(
            f"{model}: got {len(found)} folders with a tokenizer.json, expected the LLM's folder"
        )
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(found[0]))
    return lambda text: len(tokenizer.encode(text).ids)
