"""The files that a preparation leaves behind, each whole or not there."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import orjson

from trainer.manifest import Audio, chat_line
from trainer.prepare.rules import BAD_INPUT
from trainer.prepare.split import number_of

_MEASURES = ("bandwidth_hz", "level_dbfs", "peak_dbfs", "clipped", "sha256")


class Writer:
    """Writes utterances and left-out lines as they come, and counts them.

    Args:
        output_dir: Gets the files.
        splits: Those that are written, even if empty.
    """

    def __init__(self, output_dir: Path, splits: tuple[str, ...]) -> None:
        self._directory = output_dir
        self._files = ExitStack()
        self._manifests = {s: self._open(output_dir / f"{s}.jsonl") for s in splits}
        self._chats = {s: self._open(output_dir / "chat" / f"{s}.jsonl") for s in splits}
        self._left_out = self._open(output_dir / "left_out.jsonl")
        self._utterances = dict.fromkeys(splits, 0)
        self._seconds = dict.fromkeys(splits, 0.0)
        self._speakers: dict[str, set[int]] = {split: set() for split in splits}
        self._calls: dict[str, set[int]] = {split: set() for split in splits}
        self._rates: Counter[int] = Counter()
        self._lines_out: Counter[str] = Counter()
        self._seconds_out: dict[str, float] = defaultdict(float)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self._files.__exit__(*error)  # type: ignore[arg-type]

    def _open(self, path: Path) -> IO[bytes]:
        return self._files.enter_context(replacing(path))

    def keep(self, split: str, line: Mapping[str, Any]) -> None:
        """An utterance, as `manifest_line` makes it but with an absolute source."""
        path = line["source"]
        _write(self._manifests[split], {**line, "source": _from(self._directory, path)})
        num_frames, num_tokens = line["source_len"], line["target_len"]
        chat = chat_line(
            line["key"], path, line["target"], num_frames=num_frames, num_tokens=num_tokens
        )
        _write(self._chats[split], chat)
        self._utterances[split] += 1
        self._seconds[split] += line["duration_s"]
        self._rates[line["sample_rate_hz"]] += 1
        for name, seen in (("speaker_id", self._speakers), ("call", self._calls)):
            if name in line:
                seen[split].add(number_of(line[name]))

    def leave_out(self, record: Mapping[str, Any], rule: str, why: str) -> None:
        """A line of the input that is in no manifest."""
        line = {name: record[name] for name in ("key", "place", "source", "text")}
        line |= {"rule": rule, "why": why}
        if duration_s := record.get("duration_s"):
            line["duration_s"] = round(duration_s, 3)
            self._seconds_out[rule] += duration_s
        self._lines_out[rule] += 1
        _write(self._left_out, line)

    @property
    def utterances(self) -> dict[str, int]:
        """How many each split has."""
        return dict(self._utterances)

    @property
    def left_out(self) -> dict[str, int]:
        """How many lines each rule left out."""
        return dict(self._lines_out)

    def summary(self) -> dict[str, Any]:
        """Counts and hours, for ``prepare.json``."""
        return {
            "splits": {
                split: {
                    "utterances": self._utterances[split],
                    "hours": _hours(self._seconds[split]),
                    "speakers": len(self._speakers[split]),
                    "calls": len(self._calls[split]),
                }
                for split in self._utterances
            },
            "left_out": {
                rule: {
                    "lines": count,
                    "hours": _hours(self._seconds_out[rule]),
                    "bad_input": rule in BAD_INPUT,
                }
                for rule, count in sorted(self._lines_out.items())
            },
            "sample_rates_hz": {str(rate): self._rates[rate] for rate in sorted(self._rates)},
        }


def manifest_line(record: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The line of an utterance; its source is absolute.

    Args:
        record: Of the first pass.
        found: Of the second, {} without one.
    """
    audio = Audio(record["rate_hz"], record["samples"])
    named = {"speaker_id": record["speaker"], "call": record["call"]}
    return {
        "key": record["key"],
        "source": found.get("path", record["path"]),
        "target": record["target"],
        "source_len": audio.num_frames,
        "target_len": record["tokens"],
        "duration_s": round(audio.duration_s, 6),
        "sample_rate_hz": audio.sample_rate_hz,
        **{name: value for name, value in named.items() if value is not None},
        **record["fields"],
        **{name: found[name] for name in _MEASURES if name in found},
    }


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its place when it is whole; with an error, the old one stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        yield file
    partial.replace(path)


def _write(file: IO[bytes], line: Mapping[str, Any]) -> None:
    file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))


def _from(directory: Path, path: str) -> str:
    """Relative if it lies below the directory, so that both can be moved together."""
    return os.path.relpath(path, directory) if path.startswith(f"{directory}/") else path


def _hours(seconds: float) -> float:
    return round(seconds / 3600, 4)
