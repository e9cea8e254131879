"""Who is best and who is repeated: pure functions of the trials."""

from __future__ import annotations

from typing import Any

import pytest

from sweeps.search.finalists import Repeat, best_first, finalists, replicates, resolve_bounds
from sweeps.spec.sweep_file import DEMO, Range, SweepFile
from sweeps.trial_state import TrialState

pytestmark = pytest.mark.quick


def sweep(**fields: Any) -> SweepFile:
    """A sweep of one stage."""
    return SweepFile(
        name="x",
        base="y",
        data=DEMO,
        stages=("8k",),
        space={"optim_conf.lr": Range(low=1e-5, high=1e-2)},
        trials=8,
        **fields,
    )


def trial(number: int, objective: float | None = None, **fields: Any) -> TrialState:
    """A completed trial of four epochs, unless it says otherwise."""
    known = {"outcome": "completed", "curve": dict.fromkeys(range(5), 0.5), "baseline": False}
    return TrialState(number, "8k", epochs=4, values={}, objective=objective, **{**known, **fields})


def test_the_best_by_objective_and_of_equals_the_earlier() -> None:
    states = [trial(0, 0.3), trial(1, 0.2), trial(2, 0.2), trial(3, outcome="failed")]
    assert [s.number for s in best_first(states, sweep(), {})] == [1, 2, 0]


def test_a_bound_and_a_front() -> None:
    states = [
        trial(0, 0.3, metrics={"wideband/cer": 0.1}),
        trial(1, 0.2, metrics={"wideband/cer": 0.2}),
        trial(2, 0.25, metrics={"wideband/cer": 0.3}),
        trial(3, 0.1, metrics={"wideband/cer": 0.4}),
    ]
    bounded = sweep(at_most={"wideband/cer": "+50%", "valid/cer": 0.4})
    bounds = resolve_bounds(bounded, {"wideband/cer": 0.2})
    assert bounds == {"wideband/cer": pytest.approx(0.3), "valid/cer": 0.4}
    assert [s.number for s in best_first(states, bounded, bounds)] == [1, 2, 0]
    assert resolve_bounds(bounded, {}) == {"valid/cer": 0.4}  # the base is not yet scored
    front = best_first(states, sweep(beside=("wideband/cer",)), {})
    assert [s.number for s in front] == [3, 1, 0]


def test_the_best_default_is_repeated_beside_the_best_three() -> None:
    states = [trial(0, 0.5, baseline=True), *(trial(n, 0.1 * n) for n in (1, 2, 3, 4))]
    repeated = sweep(replicates=2)
    assert [s.number for s in finalists(states, repeated, {})] == [1, 2, 3, 0]
    turns = replicates(states, repeated, {})
    assert turns[:5] == [Repeat(1, 1), Repeat(2, 1), Repeat(3, 1), Repeat(0, 1), Repeat(1, 2)]
    assert replicates(states, sweep(), {}) == []
    states[1] = trial(1, 0.4, notes={"answered.from": "4"})  # the very model of the fourth
    assert [s.number for s in finalists(states, repeated, {})] == [2, 3, 4, 0]
    states[1] = trial(1, 0.1)
    states[0] = trial(0, 0.15, baseline=True)
    assert [s.number for s in finalists(states, repeated, {})] == [1, 0, 2]
