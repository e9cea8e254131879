"""A fine-tune that trains nothing: its CER is a formula of the config.

There is one, `finetune`; the others are that one with something that goes wrong, or waits.
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from pathlib import Path
from typing import Any

from analysis.export.best_trial import best_trial
from analysis.facts.records import load_sweep
from conf.errors import WorkError
from conf.files import file_sha256
from conf.load import Config
from trainer.data.sets import read_data
from trainer.finetune.extend import identity
from trainer.finetune.result import Evaluation, FinetuneResult, OnEval
from trainer.tracking.event_log import Tracker


def cer_after(config: Any, epoch: int, stage: str) -> float:
    """Falls until an epoch that the learning rate decides, and rises again."""
    distance = math.log10(config["optim_conf.lr"] / 1e-3)
    handicap = {"8k": 0.0, "s1": 0.01, "s2": 0.1, "s3": 0.15}[stage]
    falls = 0.2 + handicap + 0.1 * abs(distance) + 0.5 * math.exp(-epoch / (1 + abs(distance)))
    return falls + 0.02 * max(0.0, epoch - 3 + 2 * distance) + 0.001 * config["finetune_conf.seed"]


def scores(cer: float) -> dict[str, float]:
    """What every evaluation measures: what is good for calls is bad for clean speech."""
    return {"valid/cer": cer, "valid/cer_ctc": 2 * cer, "wideband/cer": 0.5 - 0.5 * cer}


def finetune(config: Config, tracker: Tracker, on_eval: OnEval) -> FinetuneResult:
    """Report `cer_after` epoch by epoch, and choose a checkpoint as the trainer does.

    The average of the best epochs is a little better than they. It keeps the trainer's files, and
    goes on from them: `trained` has a line for each epoch.
    """
    directory = Path(config["output_dir"])
    points = [int(path.stem.split("-")[1]) for path in directory.glob("resume/update-*.pt")]
    trained = max(points, default=0) // 10
    weights = file_sha256(Path(config["init_param"]))
    tracker.log_params(config.flat())
    tracker.set_tags(
        {
            "stage": config.stage,
            "delta.critical": "optim_conf.lr",
            "init.sha256": weights,
            "checkpoint": "epoch-001",
        }
    )
    (directory / "config.yaml").write_text(config.to_yaml())
    tracker.log_artifact(directory / "config.yaml")
    epochs, last = config["train_conf.max_epoch"], {}
    curve: dict[int, float] = {}
    for epoch in range(epochs + 1):
        curve[epoch] = cer_after(config, epoch, config.stage)
        last = scores(curve[epoch]) | {"epoch": float(epoch), "train/loss": 1.0 / (1 + epoch)}
        tracker.log_metrics(last, step=10 * epoch)
        if epoch > trained:
            with (directory / "trained").open("a") as file:
                file.write(f"{epoch}\n")
            (directory / "checkpoints").mkdir(exist_ok=True)
            (directory / f"checkpoints/epoch-{epoch:03d}.safetensors").write_text("weights")
        if epoch < epochs:
            on_eval(Evaluation(epoch, 10 * epoch, last, finished=False))
    (directory / "resume").mkdir(exist_ok=True)
    (directory / f"resume/update-{10 * epochs:08d}-x.pt").write_text("point")
    ranked = sorted((value, epoch) for epoch, value in curve.items() if epoch)
    members = ranked[
        : min(config["train_conf.avg_nbest_model"], config["train_conf.keep_nbest_models"])
    ]
    objective, chosen = ranked[0]
    name = f"epoch-{chosen:03d}"
    if len(members) > 1:
        average = sum(value for value, _ in members) / len(members) - 0.01
        if average < objective:
            objective, name = average, f"average-{len(members)}"
            (directory / f"checkpoints/{name}.safetensors").write_text("weights")
    final = scores(objective) | {"objective": objective}
    tracker.set_tags({"checkpoint": name})
    if config.get("finetune_conf.test_data_set_list") is not None:
        final["test/cer"] = objective * 1.1
    tracker.log_metrics(final, step=10 * epochs + 1)
    hypotheses = directory / "hypotheses/valid.jsonl"
    hypotheses.parent.mkdir(exist_ok=True)
    hypotheses.write_text(json.dumps({"key": "a", "reference": "一", "text": name}) + "\n")
    tracker.log_artifact(hypotheses, "hypotheses/valid.jsonl")
    kept = [[f"epoch-{epoch:03d}", epoch, value] for value, epoch in ranked]
    result = {
        "identity": identity(config, read_data(config).sha256, weights),
        "epochs": epochs,
        "run": {"kept": kept},
    }
    (directory / "result.json").write_text(json.dumps(result))
    on_eval(Evaluation(epochs, 10 * epochs, last | final, finished=True))
    return FinetuneResult(objective, chosen, name, last | final, directory)


def held_finetune(config: Config, tracker: Tracker, on_eval: OnEval) -> FinetuneResult:
    """As `finetune`, but trials from the one that a file `hold` names wait until it is gone.

    So a test acts while trials are under way for certain, however fast or slow the machine is.
    """
    number = int(Path(config["output_dir"]).name)

    def held() -> bool:
        try:
            return number >= int(Path("hold").read_text())
        except FileNotFoundError:
            return False

    def wait(evaluation: Any) -> None:
        on_eval(evaluation)
        while held():
            time.sleep(0.05)

    return finetune(config, tracker, wait)


def failing_finetune(config: Config, tracker: Tracker, on_eval: OnEval) -> FinetuneResult:
    """As `finetune`, but stage 2 raises, and stage 3 takes its process down."""
    if config.stage == "s2":
        raise RuntimeError("no weights\nat all")
    if config.stage == "s3":
        os._exit(9)
    return finetune(config, tracker, on_eval)


def troubled_finetune(config: Config, tracker: Tracker, on_eval: OnEval) -> FinetuneResult:
    """As `finetune`, but stage 1 hangs at first, stage 2 always, and stage 3 has no memory.

    A trial that hangs adds to the file `hangs`, by which a test may reckon time.
    """
    directory = Path(config["output_dir"])
    first = not (directory / "hung").exists()
    if config.stage == "s3":
        raise MemoryError("cannot allocate 80 GB")

    def hang(evaluation: Any) -> None:
        on_eval(evaluation)
        if config.stage == "s2" or (config.stage == "s1" and first):
            print("about to hang", flush=True)
            (directory / "hung").touch()
            while True:
                with Path("hangs").open("a") as file:
                    file.write(".")
                time.sleep(0.1)

    return finetune(config, tracker, hang)


def full_disk_finetune(config: Config, tracker: Tracker, on_eval: OnEval) -> FinetuneResult:
    """As `finetune`, but trial 1 finds the disk full as long as a file says so."""
    if Path("full").exists() and Path(config["output_dir"]).name == "001":
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise WorkError("checkpoint: the disk is full") from error
    return finetune(config, tracker, on_eval)


def brief_finetune(config: Config, tracker: Tracker, on_eval: OnEval) -> FinetuneResult:
    """As `finetune`, a fifth of a second per epoch."""

    def wait(evaluation: Any) -> None:
        on_eval(evaluation)
        time.sleep(0.2)

    return finetune(config, tracker, wait)


def package(sweep: str, store: Any, goal: Path) -> None:
    """As `analysis.export.best_trial`, which loads torch in a child: this trial's own weights.

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
