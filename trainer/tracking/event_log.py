"""A run's record: an append-only log of events beside its files."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

EVENTS = "events.jsonl"


class Tracker(Protocol):
    """What a fine-tune may tell the world."""

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record the effective config, flattened to dotted keys."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record facts to search by; a tag set again takes the new value."""

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Record numbers at an optimizer update; a metric is recorded once per step."""

    def log_artifact(self, path: Path, name: str | None = None) -> None:
        """Record a file; `name` as in `hypotheses/valid.jsonl` (default: the file's name)."""


class NullTracker:
    """Tracking that is switched off."""

    def log_params(self, params: Mapping[str, object]) -> None:
        """Do nothing."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Do nothing."""

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Do nothing."""

    def log_artifact(self, path: Path, name: str | None = None) -> None:
        """Do nothing."""


class EventLog:
    """A `Tracker` that appends to `events.jsonl` in a directory.

    With `resume`, what an earlier process recorded stays, and a metric that it recorded at some
    step is not recorded again: a trial that starts anew after a crash leaves one history, not two.

    Args:
        directory: The trial's directory; created if missing.
        resume: Keep the events that are already there; without it the log starts empty.
    """

    def __init__(self, directory: Path, *, resume: bool = False) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / EVENTS
        if not resume:
            path.write_bytes(b"")
        elif path.exists():
            _cut_torn_line(path)
        events = read_events(directory)
        self._recorded = {
            (key, e["step"]) for e in events if "metrics" in e for key in e["metrics"]
        }
        self._params = {key for event in events for key in event.get("params", ())}
        self._path = path

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record parameters; one that is already recorded keeps its value, as in MLflow."""
        new = {key: value for key, value in params.items() if key not in self._params}
        self._params.update(new)
        if new:
            self._append({"params": new})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags."""
        self._append({"tags": dict(tags)})

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Record metrics that are not yet recorded at this step."""
        new = {k: float(v) for k, v in metrics.items() if (k, step) not in self._recorded}
        self._recorded.update((key, step) for key in new)
        if new:
            self._append({"step": step, "metrics": new})

    def log_artifact(self, path: Path, name: str | None = None) -> None:
        """Record a file that lies under the log's directory."""
        relative = path.resolve().relative_to(self.directory.resolve())
        self._append({"artifact": name or path.name, "path": relative.as_posix()})

    def _append(self, event: dict[str, Any]) -> None:
        # One write call to a file opened for appending: a reader sees whole lines, and a process
        # killed in between leaves at most one torn line at the end.
        line = json.dumps({"timestamp_ms": _now_ms(), **event}, ensure_ascii=False)
        with self._path.open("ab", buffering=0) as file:
            file.write(line.encode() + b"\n")


def read_events(directory: Path) -> list[dict[str, Any]]:
    """Read a directory's event log in order; a torn last line, or a missing log, is no error."""
    path = directory / EVENTS
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines[:-1] if line]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _cut_torn_line(path: Path) -> None:
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        os.truncate(path, whole)
