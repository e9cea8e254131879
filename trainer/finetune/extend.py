"""A finished fine-tune as the first epochs of a longer one.

Where neither the schedule nor anything else in an epoch depends on the number of epochs, a run of
20 epochs begins as the run of 5 with the same other settings does. So a finished run keeps the
point at the end of its last epoch, before weights were averaged, and a longer one goes on from it,
with the checkpoints, texts and numbers of the epochs so far as if it had trained them itself.

    finished = read_finished(shorter_dir)     # None: it has not finished, or its point is gone
    extend_from(finished, longer_dir, "12")   # `finetune` in longer_dir then goes on from there

Nothing heavy is imported: the driver of a sweep does this for its workers.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from conf.files import link, replacing_directory, write_json, write_text
from conf.load import Config
from trainer.finetune.run_directory import (
    CHECKPOINTS,
    CONFIG,
    EPOCHS,
    HYPOTHESES,
    ORIGIN,
    POINT_FILES,
    POINTS,
    RESULT,
    read_result,
    written_values,
)
from trainer.tracking.event_log import EVENTS, read_events
from trainer.tracking.mlflow_store import RUN_ID

_LOG = logging.getLogger(__name__)


def equivalence(config: Config) -> str | None:
    """What runs have in common that differ in their number of epochs alone; None if none do."""
    if config["scheduler"] != "warmuplr" or config.get("finetune_conf.engine", "here") != "here":
        return None
    return config.replace({EPOCHS: 1}, "epochs").fingerprint()


def identity(config: Config, data_sha256: str, weights_sha256: str, *others: str) -> str:
    """What a run's points and results hold for: configuration, data and initial weights.

    Args:
        config: Its number of epochs is left out where it decides nothing but the end.
        data_sha256: Of all sets, as in `Data`.
        weights_sha256: Of the file that the run starts from.
        others: Of whatever else the configuration only names.
    """
    ours = equivalence(config) or config.fingerprint()
    return " ".join([ours, data_sha256, weights_sha256, *others])


@dataclass(frozen=True)
class Finished:
    """A finished fine-tune that a longer one can go on from."""

    directory: Path
    identity: str
    epochs: int


def read_finished(directory: Path) -> Finished | None:
    """Read what a fine-tune's directory says of its end; None without one or without its files."""
    result = read_result(directory)
    if result is None or not any((directory / POINTS).glob(POINT_FILES)):
        return None
    kept = [directory / CHECKPOINTS / f"{name}.safetensors" for name, *_ in result["run"]["kept"]]
    if not all(path.exists() for path in kept):
        return None
    return Finished(directory, result["identity"], result["epochs"])


def extend_from(finished: Finished, directory: Path, origin: str) -> None:
    """Put a longer run where the finished one was at the end of its last epoch.

    Cut off anywhere it can be done again; the point itself comes last. Large files are linked, as
    nobody ever changes them.

    Args:
        finished: The shorter run.
        directory: Of the longer one, which has not begun.
        origin: What the shorter one is called.
    """
    source = finished.directory
    shutil.rmtree(directory / POINTS, ignore_errors=True)
    write_json(directory / ORIGIN, {"from": origin, "epochs": finished.epochs}, indent=None)
    for path in sorted((source / CHECKPOINTS).glob("epoch-*.safetensors")):
        link(path, directory / CHECKPOINTS / path.name)
    _copy_texts(source, directory)
    write_text(directory / EVENTS, events_before_the_end(source, finished.epochs))
    with replacing_directory(directory / POINTS) as points:
        for path in (source / POINTS).glob(POINT_FILES):
            link(path, points / path.name)


def extended_from(directory: Path) -> tuple[str, int] | None:
    """What a run went on from, and after how many epochs; None if it did not.

    A damaged record of it is named and counts as none: the run is put there again.
    """
    path = directory / ORIGIN
    if not path.exists() or not (directory / POINTS).is_dir():
        return None
    try:
        found = json.loads(path.read_bytes())
        origin, epochs = found["from"], found["epochs"]
        if isinstance(origin, str) and isinstance(epochs, int):
            return origin, epochs
    except (ValueError, LookupError, TypeError):
        pass
    _LOG.warning("%s is damaged, so this run is put again where a shorter one ended", path)
    return None


def has_begun(directory: Path) -> bool:
    """Whether a run has begun by itself; one that was only put where another ended has not."""
    return (directory / EVENTS).exists() and not (directory / ORIGIN).exists()


def can_extend(directory: Path, config: Config) -> bool:
    """Whether a directory holds a run of this configuration with fewer epochs, which can go on."""
    epochs = _described_epochs(directory)
    return epochs is not None and equivalence(config) is not None and epochs < config[EPOCHS]


def reopen(directory: Path) -> None:
    """Put a run back to the end of its last epoch, to go on in the same directory.

    Its numbers then go to a new run in MLflow, where parameters and points cannot be taken back.
    """
    (directory / RUN_ID).unlink(missing_ok=True)
    _copy_texts(directory, directory)
    text = events_before_the_end(directory, _described_epochs(directory))
    write_text(directory / EVENTS, text)
    (directory / RESULT).unlink(missing_ok=True)


def keep_texts(directory: Path) -> None:
    """Keep the best epoch's texts with the point, before those of an average take their place."""
    kept, texts = directory / POINTS / HYPOTHESES, directory / HYPOTHESES
    if kept.exists() or not kept.parent.is_dir():  # an end that was cut off may have replaced them
        return
    with replacing_directory(kept) as partial:
        for path in texts.glob("*.jsonl"):
            shutil.copy2(path, partial / path.name)


def events_before_the_end(directory: Path, epochs: int | None) -> str:
    """A run's event log without its parameters, up to the end of an epoch if one is given."""
    lines = []
    for event in read_events(directory):
        if "params" not in event:
            lines.append(json.dumps(event, ensure_ascii=False) + "\n")
        if epochs is not None and event.get("metrics", {}).get("epoch") == epochs:
            break
    return "".join(lines)


def _described_epochs(directory: Path) -> int | None:
    """The number of epochs in a run's configuration; None without one."""
    path = directory / CONFIG
    return written_values(path)[EPOCHS] if path.exists() else None


def _copy_texts(source: Path, directory: Path) -> None:
    """The texts of every set as they were before the end, and those of the base."""
    for texts in (source / HYPOTHESES, source / POINTS / HYPOTHESES):
        if texts.is_dir() and texts != directory / HYPOTHESES:
            shutil.copytree(texts, directory / HYPOTHESES, dirs_exist_ok=True)
