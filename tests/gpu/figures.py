"""The figures of a run on a GPU next to what was predicted, written to a file as they come."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from conf.files import write_json

PREDICTED: Mapping[str, float | str] = {
    "update 8k: ms": 125,
    "update s1: ms": 120,
    "update s2: ms": 82,
    "update s3: ms": 2 * 96,
    "update 8k: kernels": 11_081,
    "update s1: kernels": 10_738,
    "update s2: kernels": 6_765,
    "update s3: kernels": 2 * 7_873,
    "update 8k: us a kernel": 12.1,
    "update s1: us a kernel": 12.1,
    "update s2: us a kernel": 12.1,
    "update s3: us a kernel": 12.1,
    "update 8k: busy share": "0.25 to 0.4",
    "update s1: busy share": "0.25 to 0.4",
    "update s2: busy share": "0.25 to 0.4",
    "update s3: busy share": "0.25 to 0.4",
    "update 8k: waits": 10,
    "update s1: waits": 10,
    "update s2: waits": 10,
    "update s3: waits": 2 * 10,
    "decoding 64 rows: ms a step": 20,
    "decoding 256 rows: ms a step": 20,
    "decoding 512 rows: ms a step": 20,
    "decoding 64 rows: encoder ms": 24,
    "4 processes: times one": 2.3,
}
"""Deduced before any run, for 15 utterances of 4 s: kernels counted on the meta device, times
12.1 us each (a public profile of the released model on a B200). Stage 3 makes an update of two
batches."""


def default_path() -> Path:
    """`gpu.json` in the directory that `OUT` names, else in `outputs/`."""
    return Path(os.environ.get("OUT") or "outputs") / "gpu.json"


class Figures:
    """What was measured, each figure next to its prediction.

    Args:
        path: Written again after each figure, so that a run that is cut off leaves what it had;
            figures of an earlier command on the same device stay.
        device: That they are of.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path = path
        self._started_s = time.monotonic()
        self._machine = _machine(device)
        self._figures: dict[str, dict[str, Any]] = {}
        if path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            if before["machine"] == self._machine:
                self._figures = before["figures"]

    def add(self, name: str, value: float, note: str = "") -> str:
        """Keep a figure; returns its line."""
        found: dict[str, Any] = {"measured": value}
        if name in PREDICTED:
            found["predicted"] = PREDICTED[name]
        if note:
            found["note"] = note
        self._figures[name] = found
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._path, {"machine": self._machine, "figures": self._figures})
        predicted = f", predicted {PREDICTED[name]}" if name in PREDICTED else ""
        after_s = time.monotonic() - self._started_s
        return f"[{after_s:4.0f} s] {name} {value:.4g}{predicted}{f' ({note})' if note else ''}"


def _machine(device: torch.device) -> dict[str, str]:
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or "cpu",
        "memory": f"{torch.cuda.mem_get_info(device)[1] / 1e9:.1f} GB" if cuda else "",
        "cuda": str(torch.version.cuda) if cuda else "",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
