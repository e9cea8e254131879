"""A fine-tune that trains nothing: its CER is a formula of the config."""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.export import best_trial
from analysis.runs import load_sweep
from conf.errors import WorkError
from conf.files import file_sha256
from conf.load import Config
from trainer.tracking import Tracker

BEST_LR = 1e-3


@dataclass(frozen=True)
class Evaluation:
    """As `trainer.run.Evaluation`, whose module would import torch."""

    epoch: int
    step: int
    metrics: dict[str, float]
    finished: bool


@dataclass(frozen=True)
class FinetuneResult:
    """As `trainer.run.FinetuneResult`."""

    objective: float
    epoch: int
    checkpoint: str
    metrics: dict[str, float]
    output_dir: Path


def cer_after(config: Config, epoch: int) -> float:
    """Falls with every epoch, the faster the nearer the learning rate is to `BEST_LR`."""
    distance = abs(math.log10(config["optim_conf.lr"] / BEST_LR))
    handicap = {"8k": 0.0, "s1": 0.01, "s2": 0.1, "s3": 0.15}.get(config.stage, 0.0)
    return 0.2 + handicap + 0.1 * distance + 0.5 * math.exp(-epoch / (1 + distance))


def finetune(config: Config, tracker: Tracker, on_eval: Callable[[Any], None]) -> FinetuneResult:
    """Report `cer_after` epoch by epoch and write what a fine-tune writes."""
    directory = Path(config["output_dir"])
    tracker.log_params(config.flat())
    tracker.set_tags(
        {
            "stage": config.stage,
            "delta.critical": "optim_conf.lr",
            "init.sha256": file_sha256(Path(config["init_param"])),
        }
    )
    (directory / "config.yaml").write_text(config.to_yaml())
    tracker.log_artifact(directory / "config.yaml")
    epochs = config["train_conf.max_epoch"]
    metrics: dict[str, float] = {}
    for epoch in range(epochs + 1):
        cer = cer_after(config, epoch)
        metrics = {"valid/cer": cer, "valid/cer_ctc": cer, "epoch": float(epoch)}
        tracker.log_metrics(metrics, step=10 * epoch)
        on_eval(Evaluation(epoch, 10 * epoch, metrics, finished=epoch == epochs))
    tracker.log_metrics({"objective": metrics["valid/cer"]}, step=10 * epochs + 1)
    hypotheses = directory / "hypotheses/valid.jsonl"
    hypotheses.parent.mkdir(exist_ok=True)
    hypotheses.write_text(json.dumps({"key": "a", "reference": "一", "text": "一"}) + "\n")
    tracker.log_artifact(hypotheses, "hypotheses/valid.jsonl")
    return FinetuneResult(metrics["valid/cer"], epochs, f"epoch-{epochs:03d}", metrics, directory)


def slow_finetune(
    config: Config, tracker: Tracker, on_eval: Callable[[Any], None]
) -> FinetuneResult:
    """As `finetune`, a third of a second per epoch."""

    def wait(evaluation: Any) -> None:
        on_eval(evaluation)
        time.sleep(0.3)

    return finetune(config, tracker, wait)


def failing_finetune(
    config: Config, tracker: Tracker, on_eval: Callable[[Any], None]
) -> FinetuneResult:
    """As `finetune`, but stage 2 raises, and stage 3 takes its process down."""
    if config.stage == "s2":
        raise RuntimeError("no weights\nat all")
    if config.stage == "s3":
        os._exit(9)
    return finetune(config, tracker, on_eval)


def troubled_finetune(
    config: Config, tracker: Tracker, on_eval: Callable[[Any], None]
) -> FinetuneResult:
    """As `finetune`, but stage 1 hangs at first, stage 2 always, and stage 3 has no memory."""
    directory = Path(config["output_dir"])
    first = not (directory / "hung").exists()
    if config.stage == "s3":
        raise MemoryError("cannot allocate 80 GB")

    def hang(evaluation: Any) -> None:
        on_eval(evaluation)
        if config.stage == "s2" or (config.stage == "s1" and first):
            print("about to hang", flush=True)
            (directory / "hung").touch()
            time.sleep(3600)

    return finetune(config, tracker, hang)


def full_disk_finetune(
    config: Config, tracker: Tracker, on_eval: Callable[[Any], None]
) -> FinetuneResult:
    """As `finetune`, but trial 1 finds the disk full as long as a file says so."""
    if Path("full").exists() and Path(config["output_dir"]).name == "001":
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise WorkError("checkpoint: the disk is full") from error
    return finetune(config, tracker, on_eval)


def brief_finetune(
    config: Config, tracker: Tracker, on_eval: Callable[[Any], None]
) -> FinetuneResult:
    """As `finetune`, a fifth of a second per epoch."""

    def wait(evaluation: Any) -> None:
        on_eval(evaluation)
        time.sleep(0.2)

    return finetune(config, tracker, wait)


def package(sweep: str, store: Any, goal: Path) -> None:
    """As `analysis.export.export`, which loads torch in a child: weights that only this trial has.

    The pieces are written one by one, with time between them to be killed in.
    """
    trial, _ = best_trial(load_sweep(sweep, store))
    model = goal / "model"
    model.mkdir(parents=True, exist_ok=True)
    assert trial.directory is not None
    config = (trial.directory / "config.yaml").read_text(encoding="utf-8")
    for name, text in {
        "config.yaml": config,
        "model.pt": f"weights of {sweep}, trial {trial.trial}",
        "README.md": "# Fun-ASR-Nano, fine-tuned\n",
    }.items():
        (model / name).write_text(text, encoding="utf-8")
        time.sleep(float(os.environ.get("PACKAGE_PAUSE_S", "0")))
