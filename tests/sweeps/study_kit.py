"""Drivers of a sweep without Ray: they ask the ledger and tell it what the formula says."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sweeps.directory import SweepDirectory
from sweeps.search.ledger import Ledger
from sweeps.spec.sweep_file import load_sweep, stage_configs
from sweeps.trial import Finetune, Work, run_trial, trial_config
from sweeps.trial_state import TrialState
from tests.fakes import cer_after, finetune, scores


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


def history_of(ledger: Ledger) -> Iterator[tuple[Any, ...]]:
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
