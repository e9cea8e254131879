"""Manifests: JSON lines that name an audio file and what is said in it.

Two line forms are read, the plain one and FunASR's chat form:

    {"key": "call-7", "source": "call-7.wav", "target": "你好"}
    {"key": "call-7", "messages": [{"role": "user", "content": "…!call-7.wav<|endofspeech|>"},
                                   {"role": "assistant", "content": "你好"}]}

A *data list* is a manifest (``.jsonl`` or ``.json``) or, as in FunASR, a text file with one
manifest path per line. Relative paths are looked for beside the file that names them, then in the
working directory.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soundfile

from conf.errors import DataError

_AUDIO_IN_PROMPT = re.compile(r"<\|startofspeech\|>!(.*?)<\|endofspeech\|>", re.DOTALL)
_PLAIN_KEYS = ("source", "target")
_MAX_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recording with its transcript, and where the manifest says so."""

    key: str
    source: Path
    target: str
    manifest: Path
    line: int
    speaker: str | None = None
    tags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """``MANIFEST:LINE``, for messages."""
        return f"{self.manifest}:{self.line}"


@dataclass(frozen=True, slots=True)
class Audio:
    """What an audio file's header says."""

    sample_rate_hz: int
    num_samples: int

    @property
    def duration_s(self) -> float:
        return self.num_samples / self.sample_rate_hz

    @property
    def num_frames(self) -> int:
        """Length in 10 ms frames, FunASR's ``speech_length``."""
        return int(self.duration_s * 100)


def read_data_list(path: str | Path) -> list[Utterance]:
    """Reads a manifest, or a text file that lists manifests, in order.

    Raises:
        DataError: A file is missing or empty, a line is malformed or a key occurs twice; all
            mistakes at once, each with file and line.
    """
    utterances: list[Utterance] = []
    problems: list[str] = []
    for manifest in _manifests(Path(path)):
        for item in _read_lines(manifest):
            if isinstance(item, Utterance):
                utterances.append(item)
            else:
                problems.append(item)
    problems += _duplicate_keys(utterances)
    if not utterances and not problems:
        problems.append(f"{path}: got no utterances, expected at least one JSON line")
    _raise_if_any(problems)
    return utterances


def read_headers(utterances: Sequence[Utterance]) -> list[Audio]:
    """Opens every audio file's header: durations, and proof that it is there and is audio.

    Raises:
        DataError: Naming manifest, line and key of each file that is missing, unreadable or empty.
    """
    audios: list[Audio] = []
    problems: list[str] = []
    for utterance in utterances:
        where = f"{utterance.place}: source: got {str(utterance.source)!r}"
        try:
            info = soundfile.info(str(utterance.source))
        except (OSError, RuntimeError) as error:
            reason = "no such file" if not utterance.source.exists() else _one_line(error)
            problems.append(f"{where} ({reason}), expected a readable audio file")
            continue
        if info.frames == 0:
            problems.append(f"{where} (0 samples), expected a recording")
            continue
        audios.append(Audio(info.samplerate, info.frames))
    _raise_if_any(problems)
    return audios


def fingerprint(utterances: Sequence[Utterance], audios: Sequence[Audio]) -> str:
    """SHA-256 over keys, transcripts and audio lengths, wherever the files lie."""
    digest = hashlib.sha256()
    for utterance, audio in zip(utterances, audios, strict=True):
        line = (utterance.key, utterance.target, audio.sample_rate_hz, audio.num_samples)
        digest.update(json.dumps(line, ensure_ascii=False).encode())
    return digest.hexdigest()


def _manifests(path: Path) -> list[Path]:
    if not path.is_file():
        raise DataError(f"{path}: got no such file, expected a manifest (.jsonl) or a list of them")
    if path.suffix in (".jsonl", ".json"):
        return [path]
    manifests: list[Path] = []
    problems: list[str] = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not (name := line.strip()):
            continue
        manifest = _resolve(name, path.parent)
        if manifest.suffix not in (".jsonl", ".json") or not manifest.is_file():
            problems.append(f"{path}:{number}: got {name!r}, expected a .jsonl manifest's path")
        manifests.append(manifest)
    _raise_if_any(problems)
    return manifests


def _read_lines(manifest: Path) -> Iterator[Utterance | str]:
    for number, line in enumerate(_text(manifest).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{manifest}:{number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            yield f"{where}: got no JSON ({error.msg} at column {error.colno}), expected an object"
            continue
        if not isinstance(record, dict):
            yield f"{where}: got {type(record).__name__}, expected a JSON object"
            continue
        yield _parse(record, manifest, number)


def _parse(record: dict[str, Any], manifest: Path, line: int) -> Utterance | str:
    where = f"{manifest}:{line}"
    if "messages" in record:
        plain = _from_chat(record["messages"])
        if plain is None:
            return (
                f"{where}: messages: got no user turn with <|startofspeech|>!PATH<|endofspeech|> "
                "followed by an assistant turn, expected FunASR's chat form"
            )
        source, target = plain
    else:
        missing = [key for key in _PLAIN_KEYS if not isinstance(record.get(key), str)]
        if missing:
            got = ", ".join(sorted(record)) or "nothing"
            return f"{where}: {missing[0]}: got {got}, expected the text keys source and target"
        source, target = record["source"], record["target"]
    speaker = record.get("speaker_id")
    known = {"key", "source", "target", "messages", "speaker_id"}
    return Utterance(
        key=str(record.get("key") or f"{manifest.stem}-{line}"),
        source=_resolve(source, manifest.parent),
        target=target,
        manifest=manifest,
        line=line,
        speaker=None if speaker is None else str(speaker),
        tags={key: value for key, value in record.items() if key not in known},
    )


def _from_chat(messages: Any) -> tuple[str, str] | None:
    """The audio path of the first spoken user turn and the assistant's answer to it."""
    if not isinstance(messages, list):
        return None
    source: str | None = None
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            return None
        if message.get("role") == "user" and source is None:
            match = _AUDIO_IN_PROMPT.search(message["content"])
            source = match.group(1) if match else None
        elif message.get("role") == "assistant" and source is not None:
            return source, message["content"]
    return None


def _duplicate_keys(utterances: Iterable[Utterance]) -> list[str]:
    first: dict[str, Utterance] = {}
    problems = []
    for utterance in utterances:
        seen = first.setdefault(utterance.key, utterance)
        if seen is not utterance:
            problems.append(
                f"{utterance.place}: key: got {utterance.key!r} a second time "
                f"(first at {seen.place}), expected keys to be unique"
            )
    return problems


def _resolve(name: str, directory: Path) -> Path:
    path = Path(name).expanduser()
    beside = directory / path
    return beside if path.is_absolute() or beside.exists() or not path.exists() else path


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: got bytes that are not UTF-8 at {error.start}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _raise_if_any(problems: Sequence[str]) -> None:
    if not problems:
        return
    shown = list(problems[:_MAX_PROBLEMS])
    if len(problems) > _MAX_PROBLEMS:
        shown.append(f"… and {len(problems) - _MAX_PROBLEMS} more of this kind")
    raise DataError(shown)
