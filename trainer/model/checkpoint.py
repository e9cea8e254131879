"""Checkpoints of a fine-tune: only the weights that it trains, written whole or not at all.

An epoch's checkpoint is a safetensors file of the trainable weights; with the base's weights, which
its metadata names by SHA-256, it is the whole model. At full size a LoRA checkpoint is 18 MB and
not 3.5 GB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from conf.errors import DataError, WorkError
from conf.files import replacing

_Read = TypeVar("_Read")
_CONTENT = "content.sha256"


@dataclass(frozen=True)
class Checkpoint:
    """A saved candidate: its name, file and validation CER."""

    name: str
    path: Path
    epoch: int
    cer: float


class CheckpointFolder:
    """The best epochs of one fine-tune.

    Args:
        directory: Made if it is not there.
        keep: How many epochs stay on disk (``train_conf.keep_nbest_models``).
        base_sha256: Of the weights that the fine-tune started from.
    """

    def __init__(self, directory: Path, keep: int, base_sha256: str) -> None:
        self.directory = directory
        self._keep = max(1, keep)
        self._base_sha256 = base_sha256
        self._kept: list[Checkpoint] = []
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def ranked(self) -> list[Checkpoint]:
        """Kept epochs, best CER first; of equals the earlier one."""
        return sorted(self._kept, key=_rank)

    def restore(self, kept: Iterable[tuple[str, int, float]]) -> None:
        """Takes up what an interrupted run had kept: name, epoch and CER of each."""
        self._kept = [self.named(*item) for item in kept]

    def named(self, name: str, epoch: int, cer: float) -> Checkpoint:
        """The checkpoint of that name in this folder."""
        return Checkpoint(name, self._path(name), epoch, cer)

    def add(self, epoch: int, cer: float) -> Checkpoint:
        """Ranks an epoch among the kept ones; `write` does to the files what follows from it."""
        checkpoint = self.named(f"epoch-{epoch:03d}", epoch, cer)
        self._kept = sorted([*self._kept, checkpoint], key=_rank)[: self._keep]
        return checkpoint

    def write(self, checkpoint: Checkpoint, state: Mapping[str, torch.Tensor]) -> None:
        """Writes an epoch's weights, if they are among the best, and deletes those that are not."""
        if checkpoint in self._kept:
            self._write(state, checkpoint)
        stay = {kept.path for kept in self._kept}
        for path in self.directory.glob("epoch-*.safetensors"):
            if path not in stay:
                path.unlink(missing_ok=True)

    def save_average(self, members: Sequence[Checkpoint], cer: float) -> Checkpoint:
        """Writes the mean of some kept epochs' weights as a candidate of its own."""
        checkpoint = self.named(f"average-{len(members)}", members[0].epoch, cer)
        self._write(average(members), checkpoint)
        return checkpoint

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.safetensors"

    def _write(self, state: Mapping[str, torch.Tensor], checkpoint: Checkpoint) -> None:
        path = checkpoint.path
        metadata = {
            "epoch": str(checkpoint.epoch),
            "valid/cer": repr(checkpoint.cer),
            "base.sha256": self._base_sha256,
            _CONTENT: content_sha256(state),
        }
        try:
            with replacing(path, sync=True) as partial:
                save_file(dict(state), partial, metadata=metadata)
        except (OSError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise WorkError(f"{path}: could not write the checkpoint ({reason})") from error


def _rank(checkpoint: Checkpoint) -> tuple[float, int]:
    return checkpoint.cer, checkpoint.epoch


def average(members: Sequence[Checkpoint]) -> dict[str, torch.Tensor]:
    """The mean of checkpoints' weights, summed in float64 so that order does not matter."""
    sums: dict[str, torch.Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    for member in sorted(members, key=lambda checkpoint: checkpoint.epoch):
        for name, value in load_state(member.path).items():
            sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + value.double()
            dtypes[name] = value.dtype
    return {name: (value / len(members)).to(dtypes[name]) for name, value in sums.items()}


def content_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of some weights on the CPU, in any order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_state(path: Path) -> dict[str, torch.Tensor]:
    """Weights of a checkpoint file.

    Raises:
        DataError: It is no such file, or not what was written.
    """
    state: dict[str, torch.Tensor] = _reading(path, lambda: load_file(path))
    if load_metadata(path).get(_CONTENT) != content_sha256(state):
        raise DataError(f"{path}: got weights that do not match their checksum, expected all whole")
    return state


def load_metadata(path: Path) -> dict[str, str]:
    """``epoch``, ``valid/cer`` and ``base.sha256`` of a checkpoint file."""

    def read() -> dict[str, str]:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})

    return _reading(path, read)


def _reading(path: Path, read: Callable[[], _Read]) -> _Read:
    try:
        return read()
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: got {reason}, expected a checkpoint of this trainer") from error
