"""Which keys mattered to a search, and what pruning saved."""

from __future__ import annotations

import pytest

from analysis.facts.comparison import comparison
from analysis.facts.importance import FEWEST_TRIALS, importances, pruning
from tests.analysis.fakes import FakeStore, stored_trial

pytestmark = pytest.mark.quick


@pytest.fixture
def searched(make_store) -> FakeStore:
    """Trials of 8 epochs whose objective follows the learning rate alone, and two that were cut."""
    trials = []
    for number in range(FEWEST_TRIALS + 2):
        cut = number >= FEWEST_TRIALS
        errors = (100 + 50 * number, 0, 0)
        trial = stored_trial(
            number,
            "8k",
            1e-4 * 2**number,
            "pruned" if cut else "completed",
            errors,
            epochs=8,
            epochs_run=2 if cut else None,
        )
        trial.params["scheduler_conf.warmup_steps"] = str(100 + 10 * (number % 2))
        trials.append(trial)
    store = make_store(trials)
    for number, trial in enumerate(trials):
        curve = [(epoch, 0.9 - 0.01 * epoch + 0.001 * number) for epoch in (0, 1, 2, 4, 8)]
        store.histories[trial.run_id, "valid/cer"] = curve
        store.histories[trial.run_id, "epoch"] = [(epoch, epoch) for epoch, _ in curve]
    return store


def test_the_key_that_moved_the_objective_comes_first(searched):
    [of_8k] = importances(comparison("demo", searched))
    assert (of_8k.stage, of_8k.trials) == ("8k", FEWEST_TRIALS)
    assert sum(of_8k.shares.values()) == pytest.approx(1)
    assert list(of_8k.shares) == ["optim_conf.lr", "scheduler_conf.warmup_steps"]


def test_few_trials_say_nothing_of_importance(demo_store):
    assert importances(comparison("demo", demo_store)) == ()


def test_pruning_is_weighed_by_the_epochs_it_saved_and_the_order_it_kept(searched):
    saved = pruning(comparison("demo", searched))
    assert (saved.pruned, saved.epochs_saved) == (2, 2 * 6)
    assert saved.epochs_run == 8 * FEWEST_TRIALS + 2 * 2
    assert [(rung.epoch, rung.trials) for rung in saved.rungs] == [
        (1, FEWEST_TRIALS),
        (2, FEWEST_TRIALS),
        (4, FEWEST_TRIALS),
    ]
    assert all(rung.correlation == pytest.approx(1) for rung in saved.rungs)
