"""What a sweep cost, when that is enough, what pruning saved: pure functions of the trials."""

from __future__ import annotations

import pytest

from sweeps.search.budget import Spent, budget_reached, epochs_trained, goal_reached, saved_epochs
from sweeps.spec.sweep_file import Budget
from tests.sweeps.search.test_finalists import sweep, trial

pytestmark = pytest.mark.quick


def test_costs_goals_and_savings() -> None:
    states = [
        trial(0, 0.5),
        trial(1, outcome="pruned", curve={0: 0.9, 1: 0.8}),
        trial(2, outcome="pruned", curve={0: 0.9}, notes={"ended.by": "goal"}),
        trial(3, 0.5, notes={"answered.from": "0"}),
    ]
    assert epochs_trained(states) == 5
    assert saved_epochs(states) == 3
    limited = sweep(budget=Budget(epochs=10, wall_hours=2.0), goal=0.2)
    assert budget_reached(limited, Spent(9, 99.0, 1.99)) == ""
    assert budget_reached(limited, Spent(9, 0.0, 2.0)) == "budget.wall_hours: 2 of 2 spent"
    assert goal_reached(limited, 0.21) == goal_reached(limited, None) == ""
    assert goal_reached(limited, 0.2) == "goal: valid/cer 0.2 is at most 0.2"
