"""Drivers of a sweep without Ray: they ask the ledger and tell it what the formula says."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from conf.files import file_sha256
from conf.load import Config
from sweeps.ledger import Ledger
from sweeps.space import load_sweep, stage_configs
from sweeps.state import SweepDirectory, TrialState
from sweeps.trial import Finetune, Work, run_trial, trial_config
from tests import fakes
from trainer.data import read_data
from trainer.longer import identity


def driver(*overrides: str, clock: Callable[[], float] = lambda: 0.0) -> Ledger:
    """A driver starting on the sweep in the working directory."""
    sweep, places = load_sweep(Path("sweep.yaml"), overrides=overrides)
    directory = SweepDirectory.of(sweep.name)
    directory.create(sweep)
    return Ledger(directory, sweep, stage_configs(sweep, places), clock)


def must_ask(ledger: Ledger) -> TrialState:
    """Ask where a trial is expected."""
    state = ledger.ask()
    assert state is not None
    return state


def run_one(ledger: Ledger, state: TrialState, train: Finetune | None = None) -> None:
    """Train one trial in this process, as Tune and its searcher do."""
    if state.outcome != "running":
        return
    directory = ledger._directory

    def report(what: dict[str, Any]) -> None:
        if "outcome" in what:
            told = {k: what[k] for k in ("objective", "metrics", "reason") if k in what}
            ledger.tell(state.number, what["outcome"], **told)
            return
        ledger.report(state.number, what["epoch"], what["value"])
        if ledger.prunes(state.number, what["epoch"], finished=what["finished"]):
            ledger.tell(state.number, "pruned")
            raise SystemExit
        if not what["finished"] and ledger.end_with_sweep(state.number):
            raise SystemExit

    with contextlib.suppress(SystemExit):
        run_trial(directory.root, state.number, report, train or finetune)


def book_one(ledger: Ledger, state: TrialState) -> None:
    """Book what the formula says of a trial, without a worker."""
    if state.outcome != "running":
        return
    config = {
        "optim_conf.lr": 1e-3,
        "finetune_conf.seed": int(state.notes.get("replicate.turn", 0)),
        **state.values,
    }
    curve = [cer_after(config, epoch, state.stage) for epoch in range(state.epochs + 1)]
    for epoch, value in enumerate(curve):
        finished = epoch == state.epochs
        ledger.report(state.number, epoch, value)
        if ledger.prunes(state.number, epoch, finished=finished):
            ledger.tell(state.number, "pruned")
            return
        if not finished and ledger.end_with_sweep(state.number):
            return
    best = min(curve[1:])
    ledger.tell(state.number, "completed", objective=best, metrics=scores(best))


def run_all(
    ledger: Ledger, limit: int = 1000, run: Callable[[Ledger, TrialState], None] = book_one
) -> list[TrialState]:
    """Run trials one after the other until there are no more, or so many."""
    for _ in range(limit):
        state = ledger.ask()
        if state is None:
            break
        run(ledger, state)
    return list(ledger.states())


def finetune(config: Config, tracker: Any, on_eval: Callable[[Any], None]) -> Any:
    """As `fakes.finetune`, but with the trainer's own choice of a checkpoint, and other sets.

    The curve falls and rises again; the average of the best epochs is a little better than they.
    It keeps the trainer's files, and goes on from them: `trained` has a line for each epoch.
    """
    directory = Path(config["output_dir"])
    points = [int(path.stem.split("-")[1]) for path in directory.glob("resume/update-*.pt")]
    trained = max(points, default=0) // 10
    tracker.log_params(config.flat())
    tracker.set_tags({"stage": config.stage, "checkpoint": "epoch-001"})
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
            on_eval(fakes.Evaluation(epoch, 10 * epoch, last, finished=False))
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
    final = last | scores(objective) | {"objective": objective}
    tracker.set_tags({"checkpoint": name})
    if config.get("finetune_conf.test_data_set_list") is not None:
        final["test/cer"] = objective * 1.1
    tracker.log_metrics(final, step=10 * epochs + 1)
    hypotheses = directory / "hypotheses/valid.jsonl"
    hypotheses.parent.mkdir(exist_ok=True)
    hypotheses.write_text(json.dumps({"key": "a", "text": name}) + "\n")
    tracker.log_artifact(hypotheses, "hypotheses/valid.jsonl")
    contents = read_data(config).sha256, file_sha256(Path(config["init_param"]))
    kept = [[f"epoch-{epoch:03d}", epoch, value] for value, epoch in ranked]
    result = {"identity": identity(config, *contents), "epochs": epochs, "run": {"kept": kept}}
    (directory / "result.json").write_text(json.dumps(result))
    on_eval(fakes.Evaluation(epochs, 10 * epochs, final, finished=True))
    return fakes.FinetuneResult(objective, chosen, name, final, directory)


def scores(cer: float) -> dict[str, float]:
    """What every evaluation measures: what is good for calls is bad for clean speech."""
    return {"valid/cer": cer, "valid/cer_ctc": 2 * cer, "wideband/cer": 0.5 - 0.5 * cer}


def cer_after(config: Any, epoch: int, stage: str) -> float:
    """Falls until an epoch that the learning rate decides, and rises again."""
    distance = math.log10(config["optim_conf.lr"] / 1e-3)
    handicap = {"8k": 0.0, "s1": 0.01, "s2": 0.1, "s3": 0.15}[stage]
    falls = 0.2 + handicap + 0.1 * abs(distance) + 0.5 * math.exp(-epoch / (1 + abs(distance)))
    return falls + 0.02 * max(0.0, epoch - 3 + 2 * distance) + 0.001 * config["finetune_conf.seed"]


def course_of(ledger: Ledger) -> Iterator[tuple[Any, ...]]:
    """What was tried and how it ended, trial by trial."""
    for state in ledger.states():
        yield (state.number, state.stage, dict(state.values), state.outcome, state.objective)


def anew(ledger: Ledger, number: int, directory: Path) -> tuple[dict[int, float], float]:
    """Train a trial once more, elsewhere: its curve and objective."""
    root = ledger._directory
    work = Work(**json.loads((root.trial(number) / "trial.json").read_text()))
    sweep, _ = load_sweep(root.sweep_yaml)
    config = trial_config(sweep, work, directory)
    curve: dict[int, float] = {}

    class Nobody:
        def __getattr__(self, _: str) -> Callable[..., None]:
            return lambda *a, **k: None

    directory.mkdir()
    result = finetune(
        config, Nobody(), lambda e: curve.__setitem__(e.epoch, e.metrics["valid/cer"])
    )
    return curve, result.objective
