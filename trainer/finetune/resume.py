"""The point that an interrupted fine-tune goes on from: weights, optimizer, schedule, random states
and the place in the data, in one file.

A point is written beside the one before it, hashed on the way and only then renamed, the hash
in its name; whenever the process is killed, the newest whole point is found again. On the CPU,
training that goes on from it takes bit by bit the same way as training that was never stopped.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import numpy
import torch

from conf.errors import ConfigError, WorkError
from conf.files import aside, file_sha256
from conf.load import PATHS, Config
from trainer.finetune.extend import can_extend
from trainer.finetune.run_directory import (
    CONFIG,
    EPOCHS,
    HYPOTHESES,
    POINT_FILES,
    is_foreign,
    written_values,
)

_LOG = logging.getLogger(__name__)
_HASH_CHARS = 32


class ResumeFolder:
    """The newest resume point of one fine-tune.

    Args:
        directory: Made when the first point is written.
        identity: What a point must have been written for: configuration, data and initial weights.
    """

    def __init__(self, directory: Path, identity: str) -> None:
        self.directory = directory
        self._identity = identity

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Writes a point and then deletes older ones.

        Args:
            step: Updates so far.
            state: Tensors, numbers, texts, and lists and dictionaries of them.

        Raises:
            WorkError: It cannot be written, for example to a full disk; the point before it stays.
        """
        try:
            with aside(self.directory / "update") as partial:
                with partial.open("wb") as file:
                    hashing: Any = _HashingFile(file)
                    torch.save({"identity": self._identity, **state}, hashing)
                    file.flush()
                    os.fsync(file.fileno())  # before older points go
                path = self.directory / f"update-{step:08d}-{hashing.digest()}.pt"
                os.replace(partial, path)
        except (OSError, RuntimeError) as error:  # torch wraps what the file raises
            reason = " ".join(str(error.__context__ or error).split())
            raise WorkError(
                f"{self.directory}: could not write the resume point of update {step} ({reason}); "
                "the one before it is whole"
            ) from error
        for other in self._points():
            if other != path:
                other.unlink(missing_ok=True)
        shutil.rmtree(self.directory / HYPOTHESES, ignore_errors=True)  # of an earlier end

    def load(self) -> dict[str, Any] | None:
        """The newest whole point, or None; a damaged one, or another run's, is passed over."""
        for path in self._points():
            if file_sha256(path)[:_HASH_CHARS] != path.stem.rpartition("-")[2]:
                _LOG.warning("%s is damaged and passed over: it does not match its name", path)
                continue
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if state.pop("identity") == self._identity:
                return state
            _LOG.warning("%s is of another configuration, other data or other weights", path)
        return None

    def clear(self) -> None:
        """Deletes every point."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _points(self) -> list[Path]:
        """Newest first."""
        return sorted(self.directory.glob(POINT_FILES), reverse=True)


def refuse_another_run(directory: Path, config: Config) -> None:
    """Checks that a directory is new, or holds a fine-tune of this configuration to go on with.

    One of fewer epochs may go on where the schedule does not depend on their number. Where one was
    cut off before it wrote its configuration, its resume points say whose they are.

    Raises:
        ConfigError: It holds something else, or a damaged configuration; names the keys that
            differ.
    """
    if is_foreign(directory):
        raise ConfigError(
            f"output_dir: got {str(directory)!r}, which is not empty; expected a new directory, or "
            "one of an interrupted run"
        )
    described = directory / CONFIG
    if not described.exists():
        return
    there, here = written_values(described), config.flat()
    free = PATHS | {"train_conf.resume"} | ({EPOCHS} if can_extend(directory, config) else set())
    problems = [
        f"output_dir: {directory} holds a run of another configuration: {key} is "
        f"{there.get(key, 'not set')} there; got {here.get(key, 'nothing')}, expected the same, "
        "or a new directory"
        for key in dict.fromkeys([*there, *here])
        if key not in free and there.get(key) != here.get(key)
    ]
    if problems:
        raise ConfigError(problems)


def random_state() -> dict[str, Any]:
    """States of all random generators that training draws from."""
    name, keys, *position = numpy.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(numpy.asarray(keys).astype(numpy.int64)), *position),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Puts back what :func:`random_state` took."""
    random.setstate(state["python"])
    name, keys, *position = state["numpy"]
    numpy.random.set_state((name, keys.numpy().astype(numpy.uint32), *position))
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


class _HashingFile:
    """A file to write to that knows the SHA-256 of what it got."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._sha256.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def digest(self) -> str:
        return self._sha256.hexdigest()[:_HASH_CHARS]
