"""The study as the record: every trial once, in a true state, through any number of drivers."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from sweeps.ledger import Ledger, count_ended
from sweeps.space import load_sweep, stage_configs
from sweeps.state import SweepDirectory, TrialState

pytestmark = pytest.mark.quick


def driver(*overrides: str) -> Ledger:
    """A driver starting on the sweep in the working directory."""
    sweep, places = load_sweep(Path("sweep.yaml"), overrides=overrides)
    directory = SweepDirectory.of(sweep.name)
    directory.create(sweep)
    return Ledger(directory, sweep, stage_configs(sweep, places))


def study() -> optuna.Study:
    """The study as anyone would open it."""
    path = SweepDirectory.of("tiny").study
    return optuna.load_study(storage=f"sqlite:///{path}", study_name="tiny")


def must_ask(ledger: Ledger) -> TrialState:
    """Ask where a trial is expected."""
    state = ledger.ask()
    assert state is not None
    return state


def test_defaults_come_first_and_run_as_they_are(place: Path) -> None:
    ledger = driver()
    first = [must_ask(ledger) for _ in range(5)]
    assert [(s.stage, s.baseline) for s in first[:4]] == [
        ("8k", True),
        ("s1", True),
        ("s2", True),
        ("s3", True),
    ]
    assert not first[4].baseline
    assert first[1].values == {"optim_conf.lr": 1e-3, "train_conf.max_epoch": 3}
    work = json.loads((SweepDirectory.of("tiny").trial(1) / "trial.json").read_text())
    assert work == {"number": 1, "stage": "s1", "baseline": True, "overrides": {}}
    assert [t.params["optim_conf.lr"] for t in study().trials[:4]] == [1e-3] * 4


def test_a_trial_ends_in_a_named_state(place: Path) -> None:
    ledger = driver("pruning.method=none")
    for number, (outcome, objective) in enumerate(
        [("completed", 0.3), ("pruned", None), ("failed", None), ("completed", float("nan"))]
    ):
        must_ask(ledger)
        ledger.report(number, 0, 0.9)
        ledger.report(number, 1, 0.5)
        ledger.tell(number, outcome, objective=objective, reason="why" if number == 2 else "")  # type: ignore[arg-type]
    states = ledger.states()
    assert [s.outcome for s in states] == ["completed", "pruned", "failed", "failed"]
    assert states[2].reason == "why"
    assert "got nan" in states[3].reason
    assert states[0].objective == 0.3
    assert states[1].curve == {0: 0.9, 1: 0.5}
    assert [t.state.name for t in study().trials] == ["COMPLETE", "PRUNED", "FAIL", "FAIL"]
    assert count_ended(SweepDirectory.of("tiny").study, "tiny") == 4


def test_the_next_driver_adopts_what_was_running(place: Path) -> None:
    first = driver()
    states = [must_ask(first) for _ in range(6)]
    first.report(5, 0, 0.9)
    first.tell(0, "completed", objective=0.5)

    second = driver()
    assert second.sweep_id == first.sweep_id
    adopted = [must_ask(second) for _ in range(5)]
    assert [s.number for s in adopted] == [1, 2, 3, 4, 5]
    assert adopted[-1].values == states[5].values
    second.report(5, 0, 0.1)  # the trial starts anew; what is on record stays
    assert second.state(5).curve == {0: 0.9}
    assert must_ask(second).number == 6


def test_a_sweep_has_its_number_of_trials(place: Path) -> None:
    ledger = driver("trials=4")
    for number in range(4):
        must_ask(ledger)
        assert not ledger.finished
        ledger.tell(number, "failed", reason="x")
    assert ledger.ask() is None
    assert ledger.finished
    longer = driver("trials=6")
    assert not longer.finished
    assert must_ask(longer).number == 4


def test_a_resumed_sweep_does_not_repeat_its_draws(place: Path) -> None:
    drawn = []
    for _ in range(2):
        ledger = driver()
        while len(drawn) < 8:
            state = must_ask(ledger)
            ledger.tell(state.number, "completed", objective=0.1 * state.number)
            drawn.append(state.values["optim_conf.lr"])
            if state.number == 5:
                break
    assert len(set(drawn[4:])) == 4


def test_baselines_and_last_epochs_are_not_pruned(place: Path) -> None:
    ledger = driver()
    for number in range(6):
        must_ask(ledger)
        ledger.report(number, 1, 0.1 * (number + 1))
    assert not ledger.prunes(3, 1, finished=False)
    assert ledger.prunes(5, 1, finished=False)
    assert not ledger.prunes(5, 1, finished=True)
