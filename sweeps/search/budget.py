"""What a sweep has cost, when that is enough, and what pruning saved. Pure functions.

spent = Spent(epochs=epochs_trained(states), gpu_hours=..., wall_hours=...)
stop_reason(sweep, spent, best=0.12)   # "" or "budget.epochs: 100 of 100 spent"
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sweeps.spec.sweep_file import SweepFile
from sweeps.trial_state import ANSWERED_FROM, ENDED_BY, WENT_ON_AFTER, TrialState


@dataclass(frozen=True)
class Spent:
    """What a sweep has cost over all its starts."""

    epochs: int
    gpu_hours: float
    wall_hours: float
    trial_hours: float = 0.0


def epochs_trained(states: Iterable[TrialState]) -> int:
    """Epochs that were trained; what was known from another trial cost none."""
    return sum(
        max(0, (state.epoch or 0) - int(state.notes.get(WENT_ON_AFTER, 0)))
        for state in states
        if ANSWERED_FROM not in state.notes
    )


def budget_reached(sweep: SweepFile, spent: Spent) -> str:
    """Say which part of the budget is used up; empty while all have something left."""
    for name in ("epochs", "gpu_hours", "wall_hours"):
        limit, used = getattr(sweep.budget, name), getattr(spent, name)
        if limit is not None and used >= limit:
            return f"budget.{name}: {used:.4g} of {limit:g} spent"
    return ""


def goal_reached(sweep: SweepFile, best: float | None) -> str:
    """Say that the goal is reached, and by what; empty while it is not."""
    if sweep.goal is None or best is None or best > sweep.goal:
        return ""
    return f"goal: {sweep.objective} {best:.4g} is at most {sweep.goal:g}"


def saved_epochs(states: Iterable[TrialState]) -> int:
    """Epochs that pruned trials would have gone on for; not those that ended with the sweep."""
    return sum(
        state.epochs - (state.epoch or 0)
        for state in states
        if state.outcome == "pruned" and ENDED_BY not in state.notes
    )
