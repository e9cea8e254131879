"""The files that a preparation leaves behind."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from trainer.data.manifest import Audio, chat_line
from trainer.prepare.filters import STOPS
from trainer.prepare.passes import dumps
from trainer.prepare.settings import SPLITS

MARK = "prepare.json"
_MEASURES = ("bandwidth_hz", "level_dbfs", "peak_dbfs", "clipped", "sha256")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a line.

    Attributes:
        record: Of the first pass.
        split: "" if it is left out.
        line: Of the manifest, with an absolute source; None if it is left out.
        reason: Rule and why, if it is left out.
    """

    record: dict[str, Any]
    split: str = ""
    line: dict[str, Any] | None = None
    reason: tuple[str, str] = ("", "")


class Writer:
    """Writes utterances and left-out lines as they come, and counts them.

    Args:
        output_dir: Gets the files, all at the end.
        around: Where they are written until then, on the same disk.
        splits: Those that are written, even if empty.
    """

    def __init__(self, output_dir: Path, around: Path, splits: tuple[str, ...]) -> None:
        self._directory, self._new = output_dir, around / "new"
        self._splits = splits
        self._files = ExitStack()
        self._manifests = {split: self._open(f"{split}.jsonl") for split in splits}
        self._chats = {split: self._open(f"chat/{split}.jsonl") for split in splits}
        self._left_out = self._open("left_out.jsonl")
        self._seconds = dict.fromkeys(splits, 0.0)
        self._seconds_out: dict[str, float] = defaultdict(float)
        self.utterances = dict.fromkeys(splits, 0)
        self.left_out: Counter[str] = Counter()
        self.rates_hz: Counter[int] = Counter()
        self.first_of_rate: dict[int, str] = {}

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def _open(self, name: str) -> IO[bytes]:
        path = self._new / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return self._files.enter_context(path.open("wb"))

    def add(self, outcome: Outcome) -> None:
        """What became of the next line of the input."""
        if outcome.line is None:
            self._leave_out(outcome.record, *outcome.reason)
        else:
            self._keep(outcome.split, outcome.line, outcome.record["place"])

    def _keep(self, split: str, line: Mapping[str, Any], place: str) -> None:
        path = line["source"]
        _write(self._manifests[split], {**line, "source": _from(self._directory, path)})
        num_frames, num_tokens = line["source_len"], line["target_len"]
        chat = chat_line(
            line["key"], path, line["target"], num_frames=num_frames, num_tokens=num_tokens
        )
        _write(self._chats[split], chat)
        self.utterances[split] += 1
        self._seconds[split] += line["duration_s"]
        self.rates_hz[line["sample_rate_hz"]] += 1
        self.first_of_rate.setdefault(line["sample_rate_hz"], place)

    def _leave_out(self, record: Mapping[str, Any], rule: str, why: str) -> None:
        line = {name: record[name] for name in ("key", "place", "source", "text")}
        line |= {"rule": rule, "why": why}
        if duration_s := record.get("duration_s"):
            line["duration_s"] = round(duration_s, 3)
            self._seconds_out[rule] += duration_s
        self.left_out[rule] += 1
        _write(self._left_out, line)

    def summary(self) -> dict[str, Any]:
        """Counts and hours, for ``prepare.json``."""
        return {
            "splits": {
                split: {"utterances": count, "hours": _hours(self._seconds[split])}
                for split, count in self.utterances.items()
            },
            "left_out": {
                rule: {
                    "lines": count,
                    "hours": _hours(self._seconds_out[rule]),
                    "bad_input": rule in STOPS,
                }
                for rule, count in sorted(self.left_out.items())
            },
            "sample_rates_hz": {str(rate): self.rates_hz[rate] for rate in sorted(self.rates_hz)},
        }

    def finish(self) -> None:
        """Puts all files in their places, and takes away those of splits that are no more.

        Meanwhile the mark is not there, so that nobody takes old and new for one.
        """
        self._files.close()
        (self._directory / MARK).unlink(missing_ok=True)
        (self._directory / "chat").mkdir(exist_ok=True)
        for split in SPLITS:
            for name in (f"{split}.jsonl", f"chat/{split}.jsonl"):
                if split in self._splits:
                    (self._new / name).replace(self._directory / name)
                else:
                    (self._directory / name).unlink(missing_ok=True)
        (self._new / "left_out.jsonl").replace(self._directory / "left_out.jsonl")


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


def _write(file: IO[bytes], line: Mapping[str, Any]) -> None:
    file.write(dumps(line) + b"\n")


def _from(directory: Path, path: str) -> str:
    """Relative if it lies below the directory, so that both can be moved together."""
    return os.path.relpath(path, directory) if path.startswith(f"{directory}/") else path


def _hours(seconds: float) -> float:
    return round(seconds / 3600, 4)
