"""A random search beside the sweep: found by itself, or refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from analysis.facts.comparison import comparison
from analysis.facts.other_sweep import at_equal_cost, best_so_far, find_other
from conf.errors import UserError
from tests.analysis.fakes import FakeStore, stored_trial
from trainer.tracking.mlflow_store import StoredRun

pytestmark = pytest.mark.quick
SETTINGS = {
    "base": "model",
    "data.train": "train.jsonl",
    "objective": "valid/cer",
    "stages": "[8k]",
}


@dataclass
class TwoSweeps:
    """A store with a sweep by TPE and another by random search."""

    ours: FakeStore
    other: FakeStore

    def sweep_names(self):
        return [*self.other.sweep_names(), *self.ours.sweep_names()]

    def sweep_run(self, name):
        return self.ours.sweep_run(name) or self.other.sweep_run(name)

    def trial_runs(self, name):
        return self.ours.trial_runs(name) or self.other.trial_runs(name)

    def history(self, run_id, metric):
        return []

    def download(self, run_id, name, directory):
        return self.ours.download(run_id, name, directory)


def sweep(name, sampler, errors, data="usual", **settings):
    trials = [
        stored_trial(n, "8k", 1e-3, "completed", (e, 0, 0), tags={"data.sha256": data})
        for n, e in enumerate(errors)
    ]
    tags = {"kind": "sweep", "sweep": name, "objective": "valid/cer"}
    params = {**SETTINGS, "sampler": sampler, **settings}
    parent = StoredRun(f"run of {name}", name, "FINISHED", 0, 1, tags, params, {})
    return FakeStore(parent, trials, {})


def test_the_random_search_over_the_same_is_found():
    ours = sweep("demo", "tpe", [300, 250, 200])
    store = TwoSweeps(ours, sweep("dice", "random", [280, 290, 270, 150]))
    facts = comparison("demo", store)
    other = find_other(facts, store)
    assert other.sweep == "dice"
    assert best_so_far(other) == [(6, 0.28), (12, 0.28), (18, 0.27), (24, 0.15)]
    found = at_equal_cost(facts, other)  # the fourth trial of the dice came at a higher cost
    assert (found.epochs, found.ours, found.theirs) == (18, 0.2, 0.27)


@pytest.mark.parametrize(
    "other",
    [
        sweep("grid", "grid", [280]),
        sweep("elsewhere", "random", [280], **{"data.train": "other.jsonl"}),
        sweep("changed", "random", [280], data="other"),
    ],
    ids=["no random search", "other data", "same path, other content"],
)
def test_what_is_not_the_same_is_not_taken_unasked(other):
    store = TwoSweeps(sweep("demo", "tpe", [300]), other)
    assert find_other(comparison("demo", store), store) is None


def test_a_sweep_of_other_data_is_refused_with_the_reason():
    store = TwoSweeps(sweep("demo", "tpe", [300]), sweep("dice", "random", [280], data="other"))
    with pytest.raises(UserError, match=r"--beside: got 'dice' \(other data .*expected a sweep"):
        find_other(comparison("demo", store), store, "dice")


def test_nothing_completed_has_no_equal_cost():
    ours = sweep("demo", "tpe", [300])
    facts = comparison("demo", ours)
    empty = replace(facts, rows=())
    assert at_equal_cost(facts, empty) is None
