"""The study's file: what is written there with Optuna is read back as the state of a trial."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from sweeps.search.study import create_study, load_study, read_states
from sweeps.trial_state import TrialState

pytestmark = pytest.mark.quick


def ask(study: optuna.Study, **attributes: object) -> optuna.Trial:
    """A trial of stage 1 with some attributes."""
    trial = study.ask()
    trial.suggest_categorical("stage", ["s1"])
    for name, value in attributes.items():
        trial.set_user_attr(name.replace("__", "."), value)
    return trial


def test_opened_twice_it_is_the_same_study(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    ask(create_study(path, "calls"))
    assert len(create_study(path, "calls").trials) == 1
    assert load_study(path, "of another name") is None
    assert read_states(path, "of another name") == ()


def test_a_trial_is_read_back_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    study = create_study(path, "calls")
    values = {"optim_conf.lr": 1e-3}
    trial = ask(study, tries={"epochs": 4, "values": values})
    trial.report(0.9, 0)
    trial.report(0.4, 1)
    [state] = read_states(path, "calls")
    assert (state.outcome, state.objective, state.ended_ms) == ("running", None, None)
    assert (state.stage, state.epochs, state.values) == ("s1", 4, values)
    assert state.curve == {0: 0.9, 1: 0.4}
    trial.set_user_attr("metrics", {"wideband/cer": 0.2})
    study.tell(trial, 0.3)
    [state] = read_states(path, "calls")
    assert (state.outcome, state.objective) == ("completed", 0.3)
    assert state.metrics == {"wideband/cer": 0.2}
    assert state.ended_ms is not None
    assert state.started_ms <= state.ended_ms


def test_only_a_completed_trial_has_an_objective(tmp_path: Path) -> None:
    """Optuna gives a pruned one the last value that was reported."""
    path = tmp_path / "study.db"
    study = create_study(path, "calls")
    pruned, failed = ask(study), ask(study, reason="MemoryError: 80 GB")
    pruned.report(0.4, 1)
    study.tell(pruned, state=optuna.trial.TrialState.PRUNED)
    study.tell(failed, state=optuna.trial.TrialState.FAIL)
    states = read_states(path, "calls")
    assert [(s.outcome, s.objective) for s in states] == [("pruned", None), ("failed", None)]
    assert [s.reason for s in states] == ["", "MemoryError: 80 GB"]


def test_a_default_config_outside_the_ranges_keeps_its_stage(tmp_path: Path) -> None:
    study = create_study(tmp_path / "study.db", "calls")
    study.ask().set_user_attr("baseline", "8k")
    [state] = read_states(tmp_path / "study.db", "calls")
    assert (state.stage, state.baseline) == ("8k", True)


def test_notes_are_what_the_trial_has_to_say_of_itself(tmp_path: Path) -> None:
    """That it ended with the sweep is a note once it has ended, not before."""
    path = tmp_path / "study.db"
    study = create_study(path, "calls")
    trial = ask(study, replicate__of=3, ended__by="goal", drawn=7)

    def notes() -> object:
        [state] = read_states(path, "calls")
        assert isinstance(state, TrialState)
        return state.notes

    assert notes() == {"replicate.of": "3"}
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    assert notes() == {"replicate.of": "3", "ended.by": "goal"}
