"""Manifests: JSON lines that name an audio file and what is said in it.

Two line forms are read, the plain one and FunASR's chat form:

    {"key": "call-7", "source": "call-7.wav", "target": "你好"}
    {"key": "call-7", "messages": [{"role": "user", "content": "…!call-7.wav<|endofspeech|>"},
                                   {"role": "assistant", "content": "你好"}]}

A *data list* is a manifest (``.jsonl`` or ``.json``) or, as in FunASR, a text file with one
manifest path per line. Relative paths are looked for beside the file that names them, then in the
working directory.

A manifest may hold millions of lines. All are checked when it is opened; what stays in memory are
their places in the file, and a line is parsed again each time it is asked for.
"""

from __future__ import annotations

import bisect
import hashlib
import io
import itertools
import json
import os
import re
import stat
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy
import numpy.typing
import orjson
import soundfile

from conf.errors import DataError
from conf.progress import Progress

_AUDIO_IN_PROMPT = re.compile(r"<\|startofspeech\|>!(.*?)<\|endofspeech\|>", re.DOTALL)
_CUT_OFF = re.compile(r"^\s*data : (\d+) \(should be (\d+)\)", re.MULTILINE)
_OPENING = re.compile(r"^Error opening (?:'.*?'|<.*?>): ")
_hash = hash
"""Of keys, as numbers; equal ones are looked at again."""
_UNKNOWN_SIZE = 2**31 - 2**16
FRAMES_PER_SECOND = 100
"""Of ``source_len``: frames of 10 ms."""
SLICED_BY = ("channel", "codec", "snr_db", "noise", "loss_rate", "domain")
"""Tags that hypotheses repeat: who reads those can tell where errors are without the manifest."""
CALL_KEYS = ("call", "call_id", "session", "session_id", "dialog_id", "conversation_id")
MARK = re.compile(r"<[A-Z]+(?:_[A-Z]+)+>|<\|[^|]*\|>")
"""What annotators and tools leave in transcripts: <ANNOTATION_ERROR>, <|nospeech|>."""
EMPTY = "0 samples"
MIN_SAMPLES = 2
"""Fewest samples of which FunASR's frontend makes a feature."""
_KNOWN_KEYS = frozenset(("key", "source", "target", "messages", "speaker_id"))
_MAX_PROBLEMS = 20
_MANY = 1000
"""Recordings whose headers take long enough to tell how far it is."""
_PLAIN_NAME = re.compile(r"\w[\w.-]*")
_MAX_NAME_BYTES = 180
_CHUNK_BYTES = 4 * 2**20
BOM = b"\xef\xbb\xbf"

Ints = numpy.typing.NDArray[numpy.int64]


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

    @property
    def call(self) -> str | None:
        """The call that it is part of, as the manifest names it (``call`` or ``call_id``)."""
        call = self.tags.get("call") or self.tags.get("call_id")
        return None if call is None else str(call)

    @property
    def duration_s(self) -> float | None:
        """As the manifest says it, in ``duration_s`` or in frames; the audio is not looked at."""
        seconds, frames = self.tags.get("duration_s"), self.tags.get("source_len")
        if isinstance(seconds, int | float):
            return float(seconds)
        return frames / FRAMES_PER_SECOND if isinstance(frames, int | float) else None


@dataclass(frozen=True, slots=True)
class Audio:
    """What an audio file's header says."""

    sample_rate_hz: int
    num_samples: int
    num_channels: int = 1

    @property
    def duration_s(self) -> float:
        return self.num_samples / self.sample_rate_hz

    @property
    def num_frames(self) -> int:
        """Length in 10 ms frames, FunASR's ``speech_length``."""
        return int(self.duration_s * FRAMES_PER_SECOND)


class Manifest(Sequence[Utterance]):
    """The utterances of some manifests, in order; each is parsed when it is asked for.

    The files stay open, so a manifest that is replaced meanwhile does no harm.

    Args:
        parts: The manifests.
        chosen: Positions in ``parts``, counted through, where only some are meant.
    """

    def __init__(self, parts: Sequence[_File], chosen: Ints | None = None) -> None:
        self._parts = tuple(parts)
        self._ends = list(itertools.accumulate(len(part) for part in parts))
        self._chosen = chosen

    def __len__(self) -> int:
        if self._chosen is not None:
            return len(self._chosen)
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Utterance: ...

    @overload
    def __getitem__(self, index: slice) -> Manifest: ...

    def __getitem__(self, index: int | slice) -> Utterance | Manifest:
        if isinstance(index, slice):
            positions = numpy.arange(*index.indices(len(self)))
            chosen = positions if self._chosen is None else self._chosen[positions]
            return Manifest(self._parts, chosen)
        position = range(len(self))[index]
        if self._chosen is not None:
            position = int(self._chosen[position])
        part = bisect.bisect_right(self._ends, position)
        return self._parts[part][position - (self._ends[part - 1] if part else 0)]

    def __iter__(self) -> Iterator[Utterance]:
        if self._chosen is None:
            return itertools.chain.from_iterable(self._parts)
        return (self[index] for index in range(len(self)))


class Audios(Sequence[Audio]):
    """Headers of many audio files, as arrays.

    Attributes:
        sample_rates_hz: Of each file.
        num_samples: Of each file; 0 where there is a problem.
        problems: Why a file cannot be used, by index.
    """

    def __init__(
        self,
        sample_rates_hz: Ints,
        num_samples: Ints,
        problems: Mapping[int, str] | None = None,
    ) -> None:
        self.sample_rates_hz = sample_rates_hz
        self.num_samples = num_samples
        self.problems = problems or {}

    def __len__(self) -> int:
        return len(self.num_samples)

    @overload
    def __getitem__(self, index: int) -> Audio: ...

    @overload
    def __getitem__(self, index: slice) -> Audios: ...

    def __getitem__(self, index: int | slice) -> Audio | Audios:
        if isinstance(index, slice):
            positions = range(len(self))[index]
            problems = {
                new: self.problems[old]
                for new, old in enumerate(positions if self.problems else ())
                if old in self.problems
            }
            return Audios(self.sample_rates_hz[index], self.num_samples[index], problems)
        return Audio(int(self.sample_rates_hz[index]), int(self.num_samples[index]))

    @property
    def durations_s(self) -> numpy.typing.NDArray[numpy.float64]:
        return self.num_samples / self.sample_rates_hz

    @property
    def num_frames(self) -> Ints:
        """Lengths in 10 ms frames, as :attr:`Audio.num_frames`."""
        return (self.durations_s * FRAMES_PER_SECOND).astype(numpy.int64)


def read_data_list(path: str | Path) -> Manifest:
    """Opens a manifest, or a text file that lists manifests, and checks every line.

    Raises:
        DataError: A file is missing or empty, a line is malformed or a key occurs twice; all
            mistakes at once, each with file and line.
    """
    problems: list[str] = []
    parts = [_File(manifest, problems) for manifest in _manifests(Path(path))]
    utterances = Manifest(parts)
    problems += _duplicate_keys(utterances, [part.key_hashes() for part in parts])
    if not utterances and not problems:
        problems.append(f"{path}: got no utterances, expected at least one JSON line")
    _raise_if_any(problems)
    return utterances


def read_headers(utterances: Sequence[Utterance], *, leave_out: bool = False) -> Audios:
    """Opens every audio file's header: durations, and proof that it is there and is audio.

    Args:
        utterances: What is to be read.
        leave_out: Note what cannot be used in ``problems``, for training to leave out.

    Raises:
        DataError: Naming manifest, line and key of each file that is missing, unreadable, empty or
            cut off, unless they may be left out.
    """
    rates, samples = array("q"), array("q")
    problems: dict[int, str] = {}
    places: list[str] = []
    progress = Progress(quiet=len(utterances) < _MANY, forks=True)
    with progress.of("headers", len(utterances), "recordings") as advance:
        for index, utterance in enumerate(utterances):
            audio, problem = read_header(os.fspath(utterance.source))
            rates.append(audio.sample_rate_hz)
            samples.append(audio.num_samples)
            if problem:
                problems[index] = problem
                if len(places) <= _MAX_PROBLEMS and not leave_out:
                    where = f"{utterance.place}: source: got {str(utterance.source)!r}"
                    places.append(f"{where} ({problem}), expected a recording")
            if not (index + 1) % _MANY:
                advance(_MANY)
    if not leave_out and problems:
        _raise_if_any(places, len(problems))
    return Audios(
        numpy.frombuffer(rates, dtype=numpy.int64),
        numpy.frombuffer(samples, dtype=numpy.int64),
        problems,
    )


def check_evaluable(utterances: Sequence[Utterance], audios: Sequence[Audio], max_s: float) -> None:
    """Refuses recordings that evaluation cannot or shall not take.

    Args:
        utterances: An evaluation set.
        audios: Their headers, in the same order.
        max_s: ``finetune_conf.eval_max_s``.

    Raises:
        DataError: Naming manifest and line of each that is longer, or too short for a feature.
    """
    problems = []
    for utterance, audio in zip(utterances, audios, strict=True):
        where = f"{utterance.place}: source: got {str(utterance.source)!r}"
        if audio.duration_s > max_s:
            problems.append(
                f"{where} of {audio.duration_s:.1f} s, expected at most {max_s:g} s "
                "(finetune_conf.eval_max_s); cut it into utterances"
            )
        elif audio.num_samples < MIN_SAMPLES:
            problems.append(f"{where} (1 sample), expected a recording")
    _raise_if_any(problems)


def chat_line(
    key: str, source: str | Path, target: str, *, num_frames: int, num_tokens: int
) -> dict[str, Any]:
    """A line in FunASR's chat form, the only one that stock's dataset reads.

    Args:
        key: The utterance's name.
        source: Absolute, since stock looks for relative paths where it is started.
        target: What is said.
        num_frames: Length in 10 ms frames.
        num_tokens: LLM tokens of the target; stock leaves out a line without any.
    """
    content = f"语音转写：<|startofspeech|>!{source}<|endofspeech|>"
    return {
        "key": key,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": content},
            {"role": "assistant", "content": target},
        ],
        "speech_length": num_frames,
        "text_length": num_tokens,
    }


def file_name(key: str, ending: str = ".wav") -> str:
    """A file's name for an utterance's recording, another one for every key.

    A key may hold slashes, or be longer than a file's name may be.
    """
    if _PLAIN_NAME.fullmatch(key) and len(key.encode()) <= _MAX_NAME_BYTES:
        return key + ending
    readable = re.sub(r"[^\w.-]+", "_", key).strip("._").encode()[:_MAX_NAME_BYTES]
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{readable.decode(errors='ignore')}~{digest}{ending}"


def fingerprint(utterances: Iterable[Utterance], audios: Iterable[Audio]) -> str:
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
        manifest = resolve(name, path.parent)
        if manifest.suffix not in (".jsonl", ".json") or not manifest.is_file():
            # A line of something else, named by mistake, is not for a log.
            listed = repr(name) if manifest.suffix in (".jsonl", ".json") else "something else"
            problems.append(f"{path}:{number}: got {listed}, expected a .jsonl manifest's path")
        manifests.append(manifest)
    _raise_if_any(problems)
    return manifests


class _File:
    """One manifest, indexed: where each utterance's line starts, and its number.

    Args:
        path: The manifest.
        problems: Gets what is wrong with its lines.
    """

    def __init__(self, path: Path, problems: list[str]) -> None:
        self.path = path
        self._fd = -1
        self._starts = array("q")
        self._lines = array("i")
        self._hashes = array("q")
        try:
            with path.open("rb", buffering=0) as file:
                self._index(file, problems)
                self._stat = os.fstat(file.fileno())
                self._fd = os.dup(file.fileno())
        except OSError as error:
            raise DataError(f"{path}: got {one_line(error)}, expected a manifest") from error

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_fd": -1}

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Utterance:
        start, end = self._starts[index], self._starts[index + 1]
        return self._utterance(os.pread(self._file(), end - start, start), self._lines[index])

    def __iter__(self) -> Iterator[Utterance]:
        for first in range(0, len(self), 1024):
            last = min(first + 1024, len(self))
            offset = self._starts[first]
            data = os.pread(self._file(), self._starts[last] - offset, offset)
            for index in range(first, last):
                start, end = self._starts[index] - offset, self._starts[index + 1] - offset
                yield self._utterance(data[start:end], self._lines[index])

    def key_hashes(self) -> Ints:
        """A number per utterance, equal for equal keys; only once."""
        hashes, self._hashes = self._hashes, array("q")
        return numpy.frombuffer(hashes, dtype=numpy.int64)

    def _file(self) -> int:
        if self._fd < 0:  # in another process, to which it was sent
            self._fd = os.open(self.path, os.O_RDONLY)
            if not os.path.samestat(os.fstat(self._fd), self._stat):
                raise self._changed()
        return self._fd

    def _changed(self) -> DataError:
        return DataError(f"{self.path}: got other lines than at the start, expected them to stay")

    def _utterance(self, data: bytes, line: int) -> Utterance:
        try:
            # Lines that were skipped may follow.
            record = parse_line(data.split(b"\n", 1)[0].removeprefix(BOM))
            key, source, target = fields_of(record)
        except Malformed as error:
            raise self._changed() from error
        speaker = record.get("speaker_id")
        return Utterance(
            key=key or self._default_key(line),
            source=resolve(source, self.path.parent),
            target=target,
            manifest=self.path,
            line=line,
            speaker=None if speaker is None else str(speaker),
            tags={name: value for name, value in record.items() if name not in _KNOWN_KEYS},
        )

    def _default_key(self, line: int) -> str:
        return f"{self.path.stem}-{line}"

    def _index(self, file: io.FileIO, problems: list[str]) -> None:
        """Checks each line and notes where it starts."""
        number = offset = 0
        rest = b""
        while True:
            chunk = file.read(_CHUNK_BYTES)
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop() if chunk else b""
            for raw in lines:
                number += 1
                start, offset = offset, offset + len(raw) + 1
                if number == 1:
                    raw = raw.removeprefix(BOM)
                try:
                    key = fields_of(parse_line(raw))[0] or self._default_key(number)
                except Malformed as error:
                    if raw.strip():
                        problems.append(f"{self.path}:{number}: {error}")
                    continue
                self._starts.append(start)
                self._lines.append(number)
                self._hashes.append(_hash(key))
            if not chunk:
                self._starts.append(offset)
                return


class Malformed(ValueError):
    """What is wrong with a line."""


def parse_line(raw: bytes) -> dict[str, Any]:
    """The object that a line holds.

    Raises:
        Malformed: It holds none.
    """
    try:
        record = orjson.loads(raw)
    except orjson.JSONDecodeError:
        # It refuses what Python's own accepts, as NaN, and places mistakes in another way.
        try:
            record = json.loads(raw.decode("utf-8"))
            json.dumps(record, ensure_ascii=False).encode()
        except json.JSONDecodeError as error:
            raise Malformed(
                f"got no JSON ({error.msg} at column {error.colno}), expected an object"
            ) from None
        except (UnicodeDecodeError, UnicodeEncodeError) as error:
            raise Malformed(f"got text that is not UTF-8 ({error.reason})") from None
        except RecursionError:
            raise Malformed("got JSON nested too deeply, expected an object") from None
    if not isinstance(record, dict):
        raise Malformed(f"got {type(record).__name__}, expected a JSON object")
    return record


def fields_of(record: dict[str, Any]) -> tuple[str, str, str]:
    """Key (empty if there is none), source and target of a line in either form.

    Raises:
        Malformed: One of the last two is not there.
    """
    key = record.get("key")
    if type(key) is not str:
        key = str(key or "")
    if "messages" in record:
        plain = _from_chat(record["messages"])
        if plain is None:
            raise Malformed(
                "messages: got no user turn with <|startofspeech|>!PATH<|endofspeech|> "
                "followed by an assistant turn, expected FunASR's chat form"
            )
        return key, *plain
    source, target = record.get("source"), record.get("target")
    if type(source) is str and type(target) is str:
        return key, source, target
    missing = "target" if type(source) is str else "source"
    got = ", ".join(sorted(record)) or "nothing"
    raise Malformed(f"{missing}: got {got}, expected the text keys source and target")


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


def _duplicate_keys(utterances: Manifest, hashes: Sequence[Ints]) -> list[str]:
    """Lines whose key was there before; only keys of equal hashes are read again."""
    together = numpy.concatenate([*hashes, numpy.empty(0, dtype=numpy.int64)])
    order = numpy.argsort(together, kind="stable")
    equal = together[order[1:]] == together[order[:-1]]
    suspects = numpy.union1d(order[1:][equal], order[:-1][equal])
    first: dict[str, Utterance] = {}
    problems = []
    for index in suspects:
        utterance = utterances[int(index)]
        seen = first.setdefault(utterance.key, utterance)
        if seen is not utterance:
            problems.append(
                f"{utterance.place}: key: got {utterance.key!r} a second time "
                f"(first at {seen.place}), expected keys to be unique"
            )
    return problems


def read_header(path: str) -> tuple[Audio, str]:
    """What a file's header says, and why the file cannot be used, if so."""
    nothing = Audio(1, 0)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
            return nothing, "no file" if not os.path.isdir(path) else "a directory"
        info = soundfile.info(path)
    except FileNotFoundError:
        return nothing, "no such file"
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        return nothing, one_line(error)
    if info.frames == 0:
        return nothing, EMPTY
    if missing := _missing_bytes(info.extra_info):
        return nothing, f"cut off, {missing} bytes are missing"
    return Audio(info.samplerate, info.frames, info.channels), ""


def _missing_bytes(log: str) -> int:
    """Bytes that a WAV's header promises and its file lacks, from libsndfile's log."""
    match = _CUT_OFF.search(log)
    if match is None:
        return 0
    promised, present = int(match.group(1)), int(match.group(2))
    # Written to a pipe, a header could not know the length: no promise.
    return max(0, promised - present) if promised < _UNKNOWN_SIZE else 0


def resolve(name: str, directory: Path) -> Path:
    """What a file in ``directory`` means by ``name``: beside it, else from where we are."""
    path = Path(name).expanduser()
    candidate = directory / path
    # As text: pathlib's own tests of existence take longer than all the rest.
    if path.is_absolute() or os.path.exists(candidate) or not os.path.exists(path):
        return candidate
    return path


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: got bytes that are not UTF-8 at {error.start}") from error


def one_line(error: BaseException) -> str:
    """What an error says, without soundfile's name of the file, which may be an address."""
    return _OPENING.sub("", " ".join(str(error).split())) or type(error).__name__


def _raise_if_any(problems: Sequence[str], total: int | None = None) -> None:
    if not problems:
        return
    total = len(problems) if total is None else total
    shown = list(problems[:_MAX_PROBLEMS])
    if total > _MAX_PROBLEMS:
        shown.append(f"… and {total - _MAX_PROBLEMS} more of this kind")
    raise DataError(shown)
