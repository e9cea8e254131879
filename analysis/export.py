"""The best trial of a sweep as things to use: an annotated config and a model directory.

    python -m analysis export --sweep demo --output_dir exports/demo

writes `best_config.yaml` (trains again with `python -m trainer train --config`), `model/` (loads in
stock `funasr.AutoModel`) and `export.json` (where they come from). The model directory is built and
verified by `python -m trainer package` in a process of its own: this one never loads torch. Nothing
half-written is left behind: all is made in a temporary directory beside the goal and then renamed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from analysis.compare import objective_of, winner
from analysis.provenance import PROVENANCE, recorded, seal
from analysis.runs import RunSource, SweepRecord, TrialRecord, load_sweep
from conf.errors import ConfigError, DataError, UserError, WorkError

CONFIG, MODEL, ORIGIN = "best_config.yaml", "model", "export.json"
MODEL_FILES = ("config.yaml", "configuration.json", "model.pt")
"""What stock FunASR cannot do without; without model.pt it would build random weights, silently."""


@dataclass(frozen=True)
class Origin:
    """What an export was made from; its file also marks a directory as an export of ours."""

    sweep: str
    sweep_run_id: str
    trial: int
    trial_run_id: str
    stage: str
    objective: str
    value: float
    verification: str | None
    """What reloading the model showed; None if nobody looked."""


def best_config(name: str, store: RunSource) -> str:
    """The best trial's whole config as YAML, each value set against the pretrained model's.

    Raises:
        DataError: No such sweep, no completed trial, or its config is not in the store.
    """
    sweep = load_sweep(name, store)
    trial, value = best_trial(sweep)
    return _annotated(sweep, trial, value, store)


def best_trial(sweep: SweepRecord) -> tuple[TrialRecord, float]:
    """The sweep's winner, and its objective.

    Raises:
        DataError: No candidate has completed.
    """
    trial = winner(sweep)
    value = None if trial is None else objective_of(trial, sweep.objective)
    if trial is None or value is None:
        raise DataError(
            f"sweep {sweep.name}: got no completed trial among {len(sweep.trials)}, expected one"
        )
    return trial, value


def export(name: str, store: RunSource, output_dir: Path, *, verify: bool = True) -> Origin:
    """Write the best trial's config and model directory.

    Args:
        name: The sweep.
        store: Where it is recorded.
        output_dir: A new or empty directory, or an earlier export, which is then replaced.
        verify: Decode the validation set with stock FunASR and compare with the trial's texts.

    Raises:
        UserError: The sweep, its best trial's files or the goal are not what they should be.
        WorkError: Building or verifying the model directory failed; nothing is left of it.
    """
    _check_goal(output_dir)
    sweep = load_sweep(name, store)
    trial, value = best_trial(sweep)
    run_dir = _trial_directory(sweep, trial)
    text = _annotated(sweep, trial, value, store)
    try:
        with _replacing(output_dir) as scratch:
            (scratch / CONFIG).write_text(text, encoding="utf-8")
            said = _package(run_dir, scratch / MODEL, verify=verify)
            if (chain := recorded(sweep.run_id, trial.trial, store)) is not None:
                text = seal(scratch / MODEL, chain).to_json()
                (scratch / MODEL / PROVENANCE).write_text(text, encoding="utf-8")
            origin = Origin(
                sweep=sweep.name,
                sweep_run_id=sweep.run_id,
                trial=trial.trial,
                trial_run_id=trial.run_id,
                stage=trial.stage,
                objective=sweep.objective,
                value=value,
                verification=said if verify else None,
            )
            (scratch / ORIGIN).write_text(json.dumps(asdict(origin), indent=2) + "\n")
    except OSError as error:
        reason = error.strerror or str(error)
        raise WorkError(f"--output_dir {output_dir}: {reason}; nothing was written") from error
    return origin


def _annotated(sweep: SweepRecord, trial: TrialRecord, value: float, store: RunSource) -> str:
    from conf.delta import annotate
    from conf.load import load_config

    with tempfile.TemporaryDirectory() as scratch:
        path = store.download(trial.run_id, "config.yaml", Path(scratch))
        try:
            # Without the trial's output_dir: the next fine-tune goes somewhere else.
            config = load_config(path).replace({"output_dir": None}, "export")
        except ConfigError as error:
            place = f"sweep {sweep.name}, trial {trial.trial}: config.yaml"
            raise ConfigError(line.replace(str(path), place) for line in error.problems) from error
    head = (
        f"# Best trial of sweep {sweep.name}: trial {trial.trial}, stage {trial.stage}, "
        f"{sweep.objective} {100 * value:.2f} % (MLflow run {trial.run_id}).\n"
    )
    return head + annotate(config)


def _trial_directory(sweep: SweepRecord, trial: TrialRecord) -> Path:
    where = f"sweep {sweep.name}, trial {trial.trial}"
    if trial.directory is None:
        raise DataError(f"{where}: its MLflow run has no tag trial.dir, so its weights are unknown")
    if not trial.directory.is_dir():
        raise DataError(f"{where}: its directory {trial.directory} (with the weights) is gone")
    return trial.directory


def _package(run_dir: Path, model_dir: Path, *, verify: bool) -> str:
    """Build the model directory in a child process, see that it is whole, return the last word."""
    command = [sys.executable, "-m", "trainer", "package"]
    command += ["--run", str(run_dir), "--output_dir", str(model_dir)]
    if not verify:
        command.append("--no_verify")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        # Its scratch directory is of no use to the reader.
        problem = _last_line(done.stderr).replace(str(model_dir), MODEL)
        kind = DataError if done.returncode == UserError.exit_code else WorkError
        raise kind(f"packaging {run_dir}: {problem.removeprefix('trainer: ')}")
    missing = [name for name in MODEL_FILES if not (model_dir / name).is_file()]
    if missing:
        raise WorkError(f"packaging {run_dir} left out {', '.join(missing)}")
    return _last_line(done.stdout)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _check_goal(output_dir: Path) -> None:
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"--output_dir: got the file {output_dir}, expected a directory")
    if not output_dir.is_dir() or (output_dir / ORIGIN).is_file():
        return
    if any(output_dir.iterdir()):
        raise UserError(
            f"--output_dir: got {output_dir}, which holds other files; expected a new or empty "
            "directory, or an earlier export"
        )


@contextmanager
def _replacing(goal: Path) -> Iterator[Path]:
    """Give an empty directory that takes the goal's place if all goes well, else disappears."""
    goal = goal.absolute()
    goal.parent.mkdir(parents=True, exist_ok=True)
    # Beside the goal, since a rename is atomic only within one file system.
    scratch = Path(tempfile.mkdtemp(prefix=f".{goal.name}.", dir=goal.parent))
    new, old = scratch / "new", scratch / "old"
    try:
        new.mkdir()
        yield new
        if goal.exists():
            os.rename(goal, old)
        try:
            os.rename(new, goal)
        except OSError:
            if old.exists():
                os.rename(old, goal)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
