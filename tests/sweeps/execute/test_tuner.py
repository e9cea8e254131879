"""A whole sweep with real Ray, Optuna and MLflow: answers, replicates and a budget end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.directory import SweepDirectory
from sweeps.search.study import read_states
from tests.sweeps.conftest import SWEEP
from tests.sweeps.driving import assert_whole, drive
from trainer.tracking.mlflow_store import Store

GRID = (
    SWEEP.replace("{low: 1e-5, high: 1e-2, log: true}", "{choices: [1e-3, 3e-3]}")
    .replace("[2, 3, 6]", "[2, 4]")
    .replace("[8k, s1, s2, s3]", "[8k, s1]")
    .replace("trials: 8", "trials: 10")
    + "sampler: grid\nreplicates: 1\npruning: {method: none}\n"
)


def test_a_grid_with_answers_and_replicates(place: Path) -> None:
    (place / "sweep.yaml").write_text(GRID)
    result = drive("sweep.yaml", "finetune", "train_conf.avg_nbest_model=1", "concurrency=2")
    assert result.returncode == 0, result.stderr
    states = read_states(SweepDirectory.of("tiny").study, "tiny")
    notes = {
        state.number: dict(state.notes) for state in states if "replicate.of" not in state.notes
    }
    answered = [number for number, note in notes.items() if "answered.from" in note]
    repeats = [state for state in states if "replicate.of" in state.notes]
    # 2 epochs are known from the default 3, where that had ended before they were asked for.
    assert set(answered) <= {2, 4}
    assert {
        n: (note["went_on.from"], note["went_on.after"]) for n, note in notes.items() if n > 5
    } == {
        6: ("0", "3"),
        7: ("3", "2"),
        8: ("1", "3"),
        9: ("5", "2"),
    }
    assert [state.number for state in repeats] == list(range(10, len(states)))
    assert 3 <= len(repeats) <= 4
    for number in answered:
        longer = states[int(notes[number]["answered.from"])]
        assert states[number].objective == min(longer.curve[1], longer.curve[2])
    # Points that longer trials went on from are gone, but for those of the best five.
    left = {
        int(path.parent.name) for path in SweepDirectory.of("tiny").root.glob("trials/*/resume")
    }
    assert len(left) <= 5

    store = Store.open()
    parent = store.sweep_run("tiny")
    assert parent is not None
    trained = sum(state.epochs for state in states if state.number not in answered)
    trained -= 3 + 2 + 3 + 2
    assert parent.metrics["cost/epochs"] == trained
    assert parent.metrics["pruning/saved_epochs"] == 0
    for run, state in zip(store.trial_runs("tiny"), states, strict=True):
        for name, value in state.notes.items():
            assert run.tags[name] == value
        assert (run.status, run.tags["outcome"]) == ("FINISHED", "completed")
        assert run.params["train_conf.max_epoch"] == str(state.epochs)
        assert run.metrics["valid/cer"] == run.metrics["objective"] == state.objective


def test_metrics_beside_the_objective_come_from_the_workers(place: Path) -> None:
    bounded = "objective: {metric: valid/cer, at_most: {valid/cer_ctc: 0.7}}\n"
    (place / "sweep.yaml").write_text(SWEEP + bounded)
    result = drive("sweep.yaml", "finetune", "trials=4", "pruning.method=none")
    assert result.returncode == 0, result.stderr
    states = read_states(SweepDirectory.of("tiny").study, "tiny")
    assert [state.outcome for state in states] == ["completed"] * 4
    assert len({state.metrics["valid/cer_ctc"] for state in states}) > 1
    for state, run in zip(states, Store.open().trial_runs("tiny"), strict=True):
        beyond = state.metrics["valid/cer_ctc"] > 0.7
        assert run.tags.get("beyond", "") == ("valid/cer_ctc" if beyond else "")


@pytest.mark.slow  # three starts of Ray; test_ledger holds the budgets themselves
def test_a_budget_ends_a_sweep_which_a_larger_one_continues(place: Path) -> None:
    first = drive("sweep.yaml", "finetune", "budget.epochs=9", "concurrency=1")
    assert first.returncode == 0, first.stderr
    states = read_states(SweepDirectory.of("tiny").study, "tiny")
    assert sum(max(state.curve, default=0) for state in states) == 9
    assert_whole("tiny", len(states))
    again = drive("sweep.yaml", "finetune", "budget.epochs=9", "concurrency=1")
    assert again.returncode == 0, again.stderr
    assert "starting Ray" not in again.stdout
    more = drive("sweep.yaml", "finetune", "budget.epochs=90", "concurrency=1")
    assert more.returncode == 0, more.stderr
    assert_whole("tiny", 8)
