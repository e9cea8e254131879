"""The names of a run's files, and what its result says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHECKPOINTS, HYPOTHESES, POINTS, RESULT = "checkpoints", "hypotheses", "resume", "result.json"


POINT_FILES = "update-*.pt"


EPOCHS = "train_conf.max_epoch"


def read_result(directory: Path) -> dict[str, Any] | None:
    """Read the end of a fine-tune: `identity`, `epochs` and the state of the `run`."""
    path = directory / RESULT
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result
