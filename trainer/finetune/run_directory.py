"""The names of a run's files, who may write them, and what its result says."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conf.errors import ConfigError
from conf.files import locked_directory
from conf.reading import flatten, read_yaml
from trainer.tracking.event_log import EVENTS
from trainer.tracking.mlflow_store import RUN_ID

CHECKPOINTS, HYPOTHESES, POINTS, RESULT = "checkpoints", "hypotheses", "resume", "result.json"
CONFIG = "config.yaml"
ORIGIN = "went_on_from.json"

POINT_FILES = "update-*.pt"

EPOCHS = "train_conf.max_epoch"

_LOG = logging.getLogger(__name__)
_PARTIAL = re.compile(r"\..+\.partial")
_OURS = frozenset(
    {
        *(CHECKPOINTS, HYPOTHESES, POINTS, RESULT, ORIGIN, EVENTS, RUN_ID),
        *("lock", "stock", "left_out.jsonl", "deltas.json", "deltas.md"),
    }
)
"""What lies beside the configuration; a start that is cut off before that has some of it."""


def is_foreign(directory: Path) -> bool:
    """Whether something lies in a directory that no fine-tune put there.

    Of a run that has not written its configuration it is known by the names of its files.
    """
    if not directory.is_dir() or (directory / CONFIG).exists():
        return False
    names = (path.name for path in directory.iterdir())
    return any(name not in _OURS and not _PARTIAL.fullmatch(name) for name in names)


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold a run's directory for this process; one that nothing came of is removed again.

    Raises:
        UserError: Another process trains there; the message names its pid and since when.
    """
    with locked_directory(directory, "this directory is being trained in by"):
        yield


def written_values(path: Path) -> dict[str, Any]:
    """Read the values by dotted key of the configuration that a run wrote.

    Raises:
        ConfigError: The file is damaged.
    """
    try:
        values = flatten(read_yaml(path).values)
        found = values.get(EPOCHS, "nothing")
        problem = "" if isinstance(found, int) else f"{path}: {EPOCHS}: got {found}"
    except ConfigError as error:
        problem = str(error)
    if problem:
        raise ConfigError(
            f"{problem}; the file is damaged: delete it, and the same train command writes it "
            "again and goes on (with other settings it would train anew)"
        )
    return values


def read_result(directory: Path) -> dict[str, Any] | None:
    """Read the end of a fine-tune: `identity`, `epochs` and the state of the `run`.

    One that is damaged is named and passed over: the end can be made again.
    """
    path = directory / RESULT
    if not path.exists():
        return None
    try:
        result: dict[str, Any] = json.loads(path.read_bytes())
        _ = result["identity"], result["epochs"], result["run"]["kept"]
    except (ValueError, LookupError, TypeError):
        _LOG.warning("%s is damaged, so this fine-tune does not count as finished", path)
        return None
    return result
