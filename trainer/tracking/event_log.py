"""A run's record: an append-only log of events beside its files.

A line is there whole or not at all, on a full disk, too. One that is damaged later is named and
passed over; what it said is lost, but for what a resumed fine-tune knows and records again.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from conf.files import full_disk_said

EVENTS = "events.jsonl"

_LOG = logging.getLogger(__name__)


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

    Threads may share it: what writes files records them, while training records its numbers.

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
        self._lock = threading.Lock()

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record parameters; one that is already recorded keeps its value, as in MLflow."""
        new = {key: value for key, value in params.items() if key not in self._params}
        if new:
            self._append({"params": new})
        self._params.update(new)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags."""
        self._append({"tags": dict(tags)})

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Record metrics that are not yet recorded at this step."""
        new = {k: float(v) for k, v in metrics.items() if (k, step) not in self._recorded}
        if new:
            self._append({"step": step, "metrics": new})
        self._recorded.update((key, step) for key in new)

    def log_artifact(self, path: Path, name: str | None = None) -> None:
        """Record a file that lies under the log's directory."""
        relative = path.resolve().relative_to(self.directory.resolve())
        self._append({"artifact": name or path.name, "path": relative.as_posix()})

    def _append(self, event: dict[str, Any]) -> None:
        # One write call to a file opened for appending: a reader sees whole lines, and a process
        # killed in between leaves at most one torn line at the end.
        line = json.dumps({"timestamp_ms": now_ms(), **event}, ensure_ascii=False).encode() + b"\n"
        then = "what is recorded so far is whole, the same command goes on"
        with (
            self._lock,  # an error cuts off all that was written after its beginning
            full_disk_said(self._path, then),
            self._path.open("ab", buffering=0) as file,
        ):
            start = file.seek(0, os.SEEK_END)
            try:
                # A full disk takes a part of it without an error, which the next call then raises.
                while line:
                    line = line[file.write(line) :]
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(start)
                raise


def read_events(directory: Path) -> list[dict[str, Any]]:
    """Read a directory's event log in order.

    A torn last line, or a missing log, is no error; a damaged line is named and passed over.
    """
    path = directory / EVENTS
    if not path.exists():
        return []
    events = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        if (event := _event(line)) is not None:
            events.append(event)
        elif line:
            _name_damaged(path, number)
    return events


def _event(line: bytes) -> dict[str, Any] | None:
    """What a line says; None if it is damaged."""
    try:
        event = json.loads(line)
        metrics = event.get("metrics", {})
        is_whole = (
            isinstance(event["timestamp_ms"], int)
            and all(isinstance(value, int | float) for value in metrics.values())
            and (not metrics or isinstance(event["step"], int))
            and all(isinstance(event.get(kind, {}), dict) for kind in ("params", "tags"))
            and ("artifact" not in event or isinstance(event["path"], str))
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return event if is_whole else None


@functools.cache  # who projects a log reads it again and again
def _name_damaged(path: Path, number: int) -> None:
    _LOG.warning("%s:%d: got a damaged line, which is passed over; expected an event", path, number)


def now_ms() -> int:
    """Milliseconds since 1970, as MLflow counts them."""
    return time.time_ns() // 1_000_000


def _cut_torn_line(path: Path) -> None:
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        os.truncate(path, whole)
