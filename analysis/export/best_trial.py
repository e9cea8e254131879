"""The best trial of a sweep as things to use: an annotated config and a model directory.

    python -m analysis export --sweep demo --output_dir exports/demo

writes

- `best_config.yaml`, which trains again with `python -m trainer train --config`, and with stock
  FunASR's own command by `train_with_stock.sh`, on the data lists in `stock/`;
- `model/`, which loads in stock `funasr.AutoModel`, with its card;
- `export.json`: where they come from;

and makes the model the champion of a registered model of MLflow. What was written is decoded with
in a fresh process before anybody is told of it. The model directory is built by `python -m trainer
package` in a process of its own: this one never loads torch. Nothing half-written is left behind:
all is made in a directory beside the goal and then renamed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from analysis.export import card
from analysis.export.provenance import PROVENANCE, recorded, seal
from analysis.facts.comparison import objective_of, winner
from analysis.facts.records import OUTCOMES, Source, SweepRecord, TrialRecord, load_sweep
from conf.document.numbers import measured
from conf.errors import ConfigError, DataError, UserError, WorkError
from conf.files import file_sha256, replacing_directory, write_json
from conf.load import Config
from conf.progress import Progress, say_loading
from trainer.export import mlflow_model, verify

CONFIG, MODEL, ORIGIN = "best_config.yaml", "model", "export.json"
STOCK, SCRIPT = "stock", "train_with_stock.sh"
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
    model_sha256: str
    """Of model.pt."""
    verification: tuple[str, ...] | None
    """What reloading the model showed, in stock FunASR and as it is served; None if not looked."""
    registered: str | None
    """What became of it in MLflow's registry; None if it was not to be registered."""
    notes: tuple[str, ...] = ()
    """What else is to be known of the choice."""


def best_config(name: str, store: Source) -> str:
    """The best trial's whole config as YAML, each value set against the pretrained model's.

    Raises:
        DataError: No such sweep, no completed trial, or its config is not in the store.
    """
    sweep = load_sweep(name, store)
    trial, value = best_trial(sweep)
    return _annotated(_config(sweep, trial, store), sweep, trial, value)


def best_trial(sweep: SweepRecord) -> tuple[TrialRecord, float]:
    """The sweep's winner, and its objective.

    Raises:
        DataError: No candidate has completed.
    """
    trial = winner(sweep)
    value = None if trial is None else objective_of(trial, sweep.objective)
    if trial is None or value is None:
        ended = Counter(trial.outcome for trial in sweep.trials)
        said = ", ".join(f"{ended[outcome]} {outcome}" for outcome in OUTCOMES if ended[outcome])
        raise DataError(
            f"sweep {sweep.name}: got no completed trial that may be chosen among "
            f"{len(sweep.trials)} ({said or 'none'}), expected one"
        )
    return trial, value


def export(
    name: str,
    store: Source,
    output_dir: Path,
    *,
    verified: bool = True,
    register_as: str | None = None,
    allow_running: bool = False,
) -> Origin:
    """Write the best trial's config and model directory; whole and verified, or not at all.

    Args:
        name: The sweep.
        store: Where it is recorded.
        output_dir: A new or empty directory, or an earlier export, which is then replaced.
        verified: Decode the validation set anew and compare with what the trial logged.
        register_as: Registered model of MLflow whose champion this becomes; None leaves it.
        allow_running: Take the best so far of a sweep that has not ended.

    Raises:
        UserError: The sweep, its best trial's files or the goal are not what they should be.
        WorkError: Building, verifying or registering it failed; nothing is left of it.
    """
    _check_goal(output_dir)
    sweep = load_sweep(name, store)
    notes = _notes(sweep, allow_running=allow_running)
    trial, value = best_trial(sweep)
    run_dir = _trial_directory(sweep, trial)
    config = _config(sweep, trial, store)
    say_loading(config)
    progress = Progress()
    try:
        refusal = f"--output_dir: got {output_dir.absolute()}, which another export is writing:"
        with replacing_directory(output_dir, refusal) as scratch:
            model, served = scratch / MODEL, scratch.with_name("served")
            text = _annotated(config, sweep, trial, value)
            (scratch / CONFIG).write_text(text, encoding="utf-8")
            with progress.step(f"building the model directory of {run_dir}"):
                _package(run_dir, model, scratch / STOCK)
            _complete_card(model, config, sweep, trial, store, notes)
            if register_as is not None:
                with progress.step("writing the model that MLflow serves"):
                    mlflow_model.save(model, served)
            results = None
            if verified:
                served_too = None if register_as is None else served
                results = tuple(map(str, _verify(model, run_dir, served_too)))
            weights = file_sha256(model / "model.pt")
            registered = None
            if register_as is not None:
                tags = _tags(sweep, trial, value, weights, results)
                with progress.step(f"registering the model as {register_as}"):
                    registered = str(
                        mlflow_model.register(served, store.uri, register_as, trial.run_id, tags)
                    )
            origin = Origin(
                sweep=sweep.name,
                sweep_run_id=sweep.run_id,
                trial=trial.trial,
                trial_run_id=trial.run_id,
                stage=trial.stage,
                objective=sweep.objective,
                value=value,
                model_sha256=weights,
                verification=results,
                registered=registered,
                notes=notes,
            )
            write_json(scratch / ORIGIN, asdict(origin))
    except OSError as error:
        reason = error.strerror or str(error)
        raise WorkError(f"--output_dir {output_dir}: {reason}; nothing was written") from error
    return origin


def _notes(sweep: SweepRecord, *, allow_running: bool) -> tuple[str, ...]:
    """What the choice leaves aside; a sweep under way is refused unless it may be."""
    notes = []
    if sweep.status == "RUNNING":
        ended = sum(trial.outcome != "running" for trial in sweep.trials)
        so_far = f"{ended} of {len(sweep.trials)} trials have ended"
        if not allow_running:
            raise UserError(
                f"sweep {sweep.name}: is still running, or was cut off ({so_far}); wait, or go on "
                "with it by its command, or take the best so far with --allow_running"
            )
        notes.append(f"the best so far: the sweep was not at its end, {so_far}")
    best = winner(sweep)
    value = None if best is None else objective_of(best, sweep.objective)
    for trial in sweep.trials:
        better = objective_of(trial, sweep.objective)
        if trial.outcome == "pruned" and better is not None and (value is None or better < value):
            notes.append(
                f"trial {trial.trial} had {sweep.objective} "
                f"{measured(sweep.objective, better)} when it was pruned; "
                "only completed trials are exported"
            )
    return tuple(notes)


def _tags(
    sweep: SweepRecord,
    trial: TrialRecord,
    value: float,
    weights: str,
    results: tuple[str, ...] | None,
) -> dict[str, str]:
    """Of the registered version: what to search by, and what it was made of."""
    known = {name: trial.metric(name) for name in ("valid/cer", "test/cer", "wideband/cer")}
    return {
        "sweep": sweep.name,
        "sweep.run_id": sweep.run_id,
        "trial": str(trial.trial),
        "stage": trial.stage,
        sweep.objective: f"{value:.6f}",
        **{name: f"{rate:.6f}" for name, rate in known.items() if rate is not None},
        "weights.sha256": weights,
        **{tag: digest for tag, digest in trial.comparable.items() if tag.endswith(".sha256")},
        "verified": "false" if results is None else "true",
    }


def _verify(model: Path, run_dir: Path, served: Path | None) -> list[verify.Verification]:
    try:
        return verify.verify(model, run_dir, served)
    except (DataError, WorkError) as error:
        # Its scratch directory is of no use to the reader.
        raise type(error)(str(error).replace(str(model), MODEL)) from error


def _complete_card(
    model: Path,
    config: Config,
    sweep: SweepRecord,
    trial: TrialRecord,
    store: Source,
    notes: tuple[str, ...],
) -> None:
    facts = card.compared(sweep, trial, store)
    remark = "".join(f"; {note}" for note in notes)
    with (model / "README.md").open("a", encoding="utf-8") as file:
        file.write("\n" + card.card(facts, trial, config, card.data_sets(config), remark))
    if (chain := recorded(sweep.run_id, trial.trial, store)) is not None:
        text = seal(model, chain).to_json()
        (model / PROVENANCE).write_text(text, encoding="utf-8")


def _config(sweep: SweepRecord, trial: TrialRecord, store: Source) -> Config:
    """The trial's, without its output_dir: the next fine-tune goes somewhere else."""
    from conf.load import load_config

    with tempfile.TemporaryDirectory() as scratch:
        path = store.download(trial.run_id, "config.yaml", Path(scratch))
        try:
            return load_config(path).replace({"output_dir": None}, "export")
        except ConfigError as error:
            place = f"sweep {sweep.name}, trial {trial.trial}: config.yaml"
            raise ConfigError(line.replace(str(path), place) for line in error.problems) from error


def _annotated(config: Config, sweep: SweepRecord, trial: TrialRecord, value: float) -> str:
    from conf.delta import annotate

    head = (
        f"# Best trial of sweep {sweep.name}: trial {trial.trial}, stage {trial.stage}, "
        f"{sweep.objective} {measured(sweep.objective, value)} (MLflow run {trial.run_id}).\n"
    )
    return head + annotate(config)


def _trial_directory(sweep: SweepRecord, trial: TrialRecord) -> Path:
    where = f"sweep {sweep.name}, trial {trial.trial}"
    if trial.directory is None:
        raise DataError(f"{where}: its MLflow run has no tag trial.dir, so its weights are unknown")
    if not trial.directory.is_dir():
        raise DataError(f"{where}: its directory {trial.directory} (with the weights) is gone")
    return trial.directory


def _package(run_dir: Path, model: Path, stock: Path) -> None:
    """Build model directory, script and data in a child process, and see that all is there."""
    command = [sys.executable, "-m", "trainer", "package", "--no_verify"]
    command += ["--run", str(run_dir), "--output_dir", str(model), "--stock_dir", str(stock)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        problem = _last_line(done.stderr).replace(str(model), MODEL)
        kind = DataError if done.returncode == UserError.exit_code else WorkError
        raise kind(f"packaging {run_dir}: {problem.removeprefix('trainer: ')}")
    missing = [name for name in MODEL_FILES if not (model / name).is_file()]
    if missing:
        raise WorkError(f"packaging {run_dir} left out {', '.join(missing)}")


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
