"""The seam between search and training: a trial's parameters become a checked config, the config
a fine-tune, and its evaluations reports. No Ray, no Optuna, no MLflow: everything a trial needs
lies in its sweep's directory, and what it has to say goes to `report`.

    run_trial(Path("outputs/sweeps/demo"), 7, print)
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from conf.errors import UserError, WorkError
from conf.files import is_full_disk, locked
from conf.load import Config, load_config, stage_config_path
from conf.progress import say_loading
from sweeps.directory import SweepDirectory
from sweeps.output import descriptors_to, lasting_file
from sweeps.spec.sweep_file import SweepFile, load_sweep
from trainer.finetune.result import Evaluation, FinetuneResult, OnEval
from trainer.tracking.event_log import EventLog, Tracker

Finetune = Callable[[Config, Tracker, OnEval], FinetuneResult]
Report = Callable[[dict[str, Any]], None]
"""Takes the number of an epoch with its value, or the trial's outcome; may not return (pruned)."""

TRIAL_LOG = "trial.log"
LOCK = "lock"
_REASON_CHARS = 500


@dataclass(frozen=True)
class Work:
    """What `trial.json` says."""

    number: int
    stage: str
    baseline: bool
    overrides: Mapping[str, Any]


def run_trial(root: Path, number: int, report: Report, finetune: Finetune | None = None) -> None:
    """Train one trial of a sweep and report each epoch, then the outcome.

    An exception is a result: the trial has failed, with one line as the reason and the traceback in
    `trial.log`. Only the death of this process is left for others to notice.

    Args:
        root: The sweep's directory.
        number: The trial.
        report: Gets `{"epoch", "value", "finished"}` after each evaluation (epoch 0 is before
            training), at the end `{"outcome": "completed", "objective", "metrics", "checkpoint"}`,
            `{"outcome": "failed", "reason"}`, or `{"outcome": "stopped", "reason"}` where the whole
            sweep cannot go on (a full disk), and the trial goes on with it later.
        finetune: The training function; default `trainer.finetune.run.finetune`.
    """
    directory = SweepDirectory(root)
    trial_directory = directory.trial(number)
    with (
        # A worker that outlives its driver for a moment must not write beside its successor. The
        # lock says who works, so that a driver can end a worker that hangs.
        locked(trial_directory / LOCK),
        lasting_file(trial_directory / TRIAL_LOG) as log,
        _output_to(log),
    ):
        try:
            sweep, _ = load_sweep(directory.sweep_yaml)
            work = Work(**json.loads((trial_directory / "trial.json").read_text()))
            config = trial_config(sweep, work, trial_directory)
            say_loading(config)
            if finetune is None:
                from trainer.finetune.run import finetune as the_real_one

                finetune = partial(the_real_one, shared=directory.shared)
            tracker = EventLog(trial_directory, resume=True)

            def on_eval(evaluation: Evaluation) -> None:
                report(_epoch_report(evaluation, sweep.objective))

            result = finetune(config, tracker, on_eval)
            outcome = {
                "outcome": "completed",
                "objective": _objective(result, sweep.objective),
                "metrics": {name: result.metrics.get(name) for name in sweep.measured},
                "checkpoint": result.checkpoint,
            }
        except Exception as error:
            traceback.print_exc(file=log)
            full = is_full_disk(error)
            outcome = {"outcome": "stopped" if full else "failed", "reason": reason(error)}
    report(outcome)


def trial_config(sweep: SweepFile, work: Work, directory: Path) -> Config:
    """Build the config of one trial: stage file <- fixed overrides <- its values <- its places."""
    gpu = sweep.resources.gpu > 0
    places = {
        "train_data_set_list": sweep.data.train,
        "valid_data_set_list": sweep.data.valid,
        "finetune_conf.test_data_set_list": sweep.data.test,
        "finetune_conf.wideband_data_set_list": sweep.data.wideband,
        "output_dir": str(directory),
        "device": "cuda:0" if gpu else "cpu",
    }
    return load_config(
        stage_config_path(work.stage),
        init_param=Path(sweep.base) / "model.pt",
        layers=[
            ("sweep.yaml: set", sweep.fixed(work.stage)),
            (f"trial {work.number}", work.overrides),
            ("sweep.yaml", places),
        ],
    )


def reason(error: Exception) -> str:
    """Say in one line why a trial failed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else "no message"
    ours = isinstance(error, UserError | WorkError)
    return (first if ours else f"{type(error).__name__}: {first}")[:_REASON_CHARS]


def _epoch_report(evaluation: Evaluation, objective: str) -> dict[str, Any]:
    value = evaluation.metrics[objective]
    if not math.isfinite(value):
        raise WorkError(f"{objective}: got {value} after epoch {evaluation.epoch}")
    return {"epoch": evaluation.epoch, "value": value, "finished": evaluation.finished}


def _objective(result: FinetuneResult, name: str) -> float:
    """The value that decides: of the checkpoint that would be exported."""
    return result.objective if name == "valid/cer" else result.metrics[name]


@contextlib.contextmanager
def _output_to(log: TextIO) -> Iterator[None]:
    """Send all that the trial prints or logs to its own file, and a crash's traceback, too."""
    handler = logging.StreamHandler(log)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with (
            descriptors_to(log.fileno()),
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
