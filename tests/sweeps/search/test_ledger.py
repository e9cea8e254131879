"""The study as the record: every trial once, in a true state, through any number of drivers."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from sweeps.directory import SweepDirectory
from sweeps.search.ledger import Ledger
from sweeps.search.remaining import is_finished
from sweeps.search.study import read_states
from sweeps.spec.sweep_file import load_sweep
from sweeps.trial_state import TrialState
from tests.sweeps.conftest import SWEEP
from tests.sweeps.study_kit import driver, must_ask, run_all

pytestmark = pytest.mark.quick


def study() -> optuna.Study:
    """The study as anyone would open it."""
    path = SweepDirectory.of("tiny").study
    return optuna.load_study(storage=f"sqlite:///{path}", study_name="tiny")


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


def test_a_default_outside_its_range_is_not_told_to_the_study(place: Path) -> None:
    state = must_ask(driver("optim_conf.lr=1e-6", "stages=[8k]"))
    assert state.values == {"optim_conf.lr": 1e-6, "train_conf.max_epoch": 3}
    assert study().trials[0].params == {"stage": "8k", "train_conf.max_epoch": 3}


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
    ended = read_states(SweepDirectory.of("tiny").study, "tiny")
    assert sum(state.outcome != "running" for state in ended) == 4


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


def test_what_was_decided_of_an_epoch_stands(place: Path) -> None:
    ledger = driver()
    for _ in range(7):
        must_ask(ledger)
    ledger.report(5, 1, 0.5)
    assert not ledger.prunes(5, 1, finished=False)  # the first at its rung
    for number in (0, 1, 2, 6):
        ledger.report(number, 1, 0.1)
    again = driver()
    for _ in range(7):
        must_ask(again)
    again.report(5, 1, 0.5)  # its worker starts anew
    assert not again.prunes(5, 1, finished=False)
    again.report(5, 2, 0.5)  # and the driver is killed before it decides
    again.report(0, 2, 0.1)
    once_more = driver()
    for _ in range(7):
        must_ask(once_more)
    assert once_more.prunes(5, 2, finished=False)


def test_values_that_leave_nothing_to_train_are_a_failure(place: Path) -> None:
    keys = ("audio_encoder_conf.freeze", "ctc_decoder_conf.freeze")
    lines = "".join(f"  {key}: {{choices: [true, false]}}\n" for key in keys)
    (place / "sweep.yaml").write_text(SWEEP.replace("space:\n", "space:\n" + lines))
    states = run_all(driver("stages=[8k]", "trials=12", "sampler=random"))
    frozen = [s for s in states if all(s.values[key] for key in keys)]
    assert frozen
    assert [s.number for s in states if s.outcome == "failed"] == [s.number for s in frozen]
    assert "freeze: got every part frozen" in frozen[0].reason


def test_a_budget_of_epochs_ends_the_sweep_in_order(place: Path) -> None:
    ledger = driver("budget.epochs=7", "pruning.method=none")
    first, second, third = (must_ask(ledger) for _ in range(3))
    for epoch in range(4):
        ledger.report(0, epoch, 0.5)
    ledger.tell(0, "completed", objective=0.5)
    for epoch in range(3):
        ledger.report(1, epoch, 0.5)
    assert not ledger.stopped
    assert not ledger.end_with_sweep(1)
    ledger.report(2, 1, 0.5)
    ledger.report(2, 2, 0.5)
    assert ledger.stopped == "budget.epochs: 7 of 7 spent"
    assert ledger.end_with_sweep(second.number)
    assert must_state(ledger, 1).outcome == "pruned"
    assert must_state(ledger, 1).reason == "budget.epochs: 7 of 7 spent"
    assert ledger.ask() is None
    assert ledger.exhausted
    assert not ledger.finished
    assert not is_finished(SweepDirectory.of("tiny"), load_sweep(Path("sweep.yaml"))[0])

    again = driver("budget.epochs=7", "pruning.method=none")  # killed before the third ended
    ended = must_ask(again)
    assert (ended.number, ended.outcome) == (third.number, "pruned")
    assert again.ask() is None
    assert again.finished
    assert study().user_attrs["stopped"] == "budget.epochs: 7 of 7 spent"
    assert study().user_attrs["pruning.saved_epochs"] == 0
    assert first.number == 0

    longer = driver("budget.epochs=70", "pruning.method=none")
    assert not longer.stopped
    assert must_ask(longer).number == 3


def test_hours_are_counted_over_all_starts_and_not_between(place: Path) -> None:
    now = [0.0]
    options = ("resources.gpu=2", "budget.gpu_hours=3", "budget.wall_hours=1.5")
    ledger = driver(*options, clock=lambda: now[0])
    must_ask(ledger)
    now[0] += 3600
    ledger.report(0, 0, 0.5)
    now[0] += 900
    spent = ledger.spent()
    assert (spent.gpu_hours, spent.wall_hours) == (2.5, 1.25)
    now[0] += 1e6  # interrupted: what was not yet booked is lost with what was not yet trained

    ledger = driver(*options, clock=lambda: now[0])
    assert must_ask(ledger).number == 0
    assert ledger.spent().gpu_hours == 2
    now[0] += 1800
    ledger.report(0, 1, 0.5)
    assert ledger.stopped == "budget.gpu_hours: 3 of 3 spent"
    assert ledger.end_with_sweep(0)


def test_a_goal_ends_the_search_but_not_the_replicates(place: Path) -> None:
    ledger = driver("goal=0.4", "replicates=1", "pruning.method=none")
    for _ in range(3):
        must_ask(ledger)
    ledger.report(1, 1, 0.5)
    ledger.tell(0, "completed", objective=0.39)
    assert ledger.stopped == "goal: valid/cer 0.39 is at most 0.4"
    assert ledger.ask() is None
    assert not ledger.exhausted  # the goal is to be confirmed
    assert ledger.end_with_sweep(1)
    ledger.tell(2, "completed", objective=0.45)  # it was at its last epoch
    repeated = must_ask(ledger)
    assert repeated.notes["replicate.of"] == "0"
    assert not ledger.end_with_sweep(repeated.number)


def test_the_best_are_repeated_with_other_seeds(place: Path) -> None:
    ledger = driver("replicates=2", "trials=8")
    states = run_all(ledger, limit=8)
    assert all(not state.notes for state in states)
    best = [state.number for state in ledger.best[:3]]
    default = next(state.number for state in ledger.best if state.baseline)
    finalists = list(dict.fromkeys([*best, default]))
    assert ledger.preferred[: len(finalists)] == finalists  # anyone of them may win
    assert sorted(ledger.preferred) == sorted(state.number for state in ledger.best)
    states = run_all(ledger)
    repeats = states[8:]
    assert [int(s.notes["replicate.of"]) for s in repeats] == finalists * 2
    assert [s.notes["replicate.turn"] for s in repeats] == ["1"] * len(finalists) + ["2"] * len(
        finalists
    )
    assert {s.outcome for s in repeats} == {"completed"}
    for state in repeats:
        of = states[int(state.notes["replicate.of"])]
        assert (state.stage, state.values, state.epochs) == (of.stage, of.values, of.epochs)
        work = json.loads(
            (SweepDirectory.of("tiny").trial(state.number) / "trial.json").read_text()
        )
        assert work["overrides"]["finetune_conf.seed"] == int(state.notes["replicate.turn"])
        assert not state.baseline
    assert ledger.finished
    assert [s.number for s in ledger.best[:3]] == best

    longer = driver("replicates=2", "trials=9")  # one more to search
    found = must_ask(longer)
    assert "replicate.of" not in found.notes
    assert found.number == len(states)


def test_replicates_are_never_pruned_and_prune_nobody(place: Path) -> None:
    ledger = driver("replicates=1", "trials=4", "pruning.grace=1")
    run_all(ledger, limit=4)
    repeated = must_ask(ledger)
    ledger.report(repeated.number, 1, 9.0)
    assert not ledger.prunes(repeated.number, 1, finished=False)


def test_interrupted_anywhere_replicates_are_the_same(place: Path) -> None:
    options = ("replicates=1", "trials=4", "stages=[8k, s1]")
    whole = run_all(driver("name=whole", *options))
    for first in (3, 4, 5):
        name = f"name=cut-{first}"
        run_all(driver(name, *options), limit=first)
        driver(name, *options).ask()
        again = run_all(driver(name, *options))
        assert [(s.stage, s.values, s.notes) for s in again] == [
            (s.stage, s.values, s.notes) for s in whole
        ]


def test_what_pruning_saved_is_recorded(place: Path) -> None:
    ledger = driver("trials=12", "train_conf.max_epoch=6")
    states = run_all(ledger)
    saved = sum(s.epochs - max(s.curve) for s in states if s.outcome == "pruned")
    assert saved > 0
    assert study().user_attrs["pruning.saved_epochs"] == saved
    assert study().user_attrs["best"] == [ledger.best[0].number]


def test_several_objectives_have_a_front(place: Path) -> None:
    _with_wideband(place)
    ledger = driver("objective=[valid/cer, wideband/cer]", "trials=10", "pruning.grace=2")
    states = run_all(ledger)
    front = {s.number for s in states if s.notes.get("pareto") == "true"}
    assert front == {s.number for s in ledger.best} == set(study().user_attrs["best"])
    for state in states:
        if state.outcome == "completed":
            betters = [
                o.number
                for o in states
                if o.outcome == "completed"
                and (o.objective or 9, o.metrics["wideband/cer"])
                != (state.objective, state.metrics["wideband/cer"])
                and (o.objective or 9) <= (state.objective or 0)
                and o.metrics["wideband/cer"] <= state.metrics["wideband/cer"]
            ]
            assert bool(betters) == (state.number not in front)


def test_a_bound_over_the_base_leaves_trials_out_of_the_best(place: Path) -> None:
    _with_wideband(place)
    ledger = driver("at_most.wideband/cer=+10%", "trials=8", "pruning.method=none")
    states = run_all(ledger, limit=4)
    assert not any(state.notes for state in states)  # the base is not yet scored
    base = SweepDirectory.of("tiny").base
    base.mkdir()
    (base / "scores.json").write_text(json.dumps({"wideband": {"cer": 0.3}}))
    states = run_all(ledger)
    beyond = [s for s in states if s.metrics["wideband/cer"] > 0.33 + 1e-9]
    assert beyond
    assert [s.number for s in states if "beyond" in s.notes] == [s.number for s in beyond]
    assert not {s.number for s in ledger.best} & {s.number for s in beyond}


@pytest.mark.parametrize("found", [None, float("nan"), float("inf")])
def test_not_a_number_is_a_failure_for_every_metric(place: Path, found: float | None) -> None:
    _with_wideband(place)
    ledger = driver("objective=[valid/cer, wideband/cer]")
    must_ask(ledger)
    ledger.tell(0, "completed", objective=0.3, metrics={"wideband/cer": found})
    assert must_state(ledger, 0).outcome == "failed"
    assert must_state(ledger, 0).reason.startswith(f"wideband/cer: got {found}, expected a finite")


def must_state(ledger: Ledger, number: int) -> TrialState:
    """What is on record of a trial."""
    return next(state for state in ledger.states() if state.number == number)


def _with_wideband(place: Path) -> None:
    text = SWEEP.replace("valid.jsonl}", "valid.jsonl, wideband: data/valid.jsonl}")
    (place / "sweep.yaml").write_text(text)
