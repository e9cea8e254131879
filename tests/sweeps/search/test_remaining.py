"""What is left of a sweep, and what it has cost, follow from the record alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.directory import SweepDirectory
from sweeps.search.remaining import is_finished, spent
from sweeps.search.study import load_study
from sweeps.spec.sweep_file import SweepFile, load_sweep
from tests.sweeps.study_kit import driver, must_ask, run_all

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def one_stage(place: Path) -> None:
    """The sweep in the working directory, of one stage."""
    path = place / "sweep.yaml"
    path.write_text(path.read_text().replace("[8k, s1, s2, s3]", "[8k]"))


def sweep(*overrides: str) -> SweepFile:
    """The sweep as another start would read it."""
    return load_sweep(Path("sweep.yaml"), overrides=overrides)[0]


def finished(*overrides: str) -> bool:
    """Whether nothing is left of it, asked as the next start would."""
    return is_finished(SweepDirectory.of("tiny"), sweep(*overrides))


def test_a_sweep_is_finished_when_all_its_trials_have_ended() -> None:
    assert not finished(), "nothing has been started"
    ledger = driver("trials=2")
    run_all(ledger, limit=1)
    assert not finished("trials=2")
    last = must_ask(ledger)
    assert not finished("trials=2"), "the last one is under way"
    ledger.tell(last.number, "failed", reason="x")
    assert finished("trials=2")
    assert not finished("trials=3"), "another start may ask for more"
    assert not finished("trials=2", "replicates=1"), "or for the best with other seeds"


def test_a_budget_or_a_goal_leaves_nothing_to_search() -> None:
    run_all(driver(), limit=1)
    assert not finished()
    assert finished("budget.epochs=1")
    assert finished("goal=10")
    assert not finished("goal=10", "replicates=1"), "the best are repeated all the same"
    assert finished("goal=10", "replicates=1", "budget.epochs=1")


def test_cost_is_that_of_all_trials_on_record() -> None:
    now = [0.0]
    ledger = driver(clock=lambda: now[0])
    state = must_ask(ledger)
    now[0] = 1800.0
    ledger.report(state.number, state.epochs, 0.5)
    ledger.tell(state.number, "completed", objective=0.5)
    study = load_study(SweepDirectory.of("tiny").study, "tiny")
    assert study is not None
    cost = spent(study.get_trials(), sweep("resources.gpu=2"), wall_s=3600.0, waiting_s=900.0)
    assert cost.epochs == state.epochs
    assert (cost.trial_hours, cost.gpu_hours, cost.wall_hours) == (0.75, 1.5, 1.0)
