"""What is left to do in a sweep, and what it has cost, from the record alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from sweeps.directory import SweepDirectory
from sweeps.search import study as record
from sweeps.search.budget import Spent, budget_reached, epochs_trained, goal_reached
from sweeps.search.finalists import Repeat, best_first, replicates, resolve_bounds
from sweeps.spec.sweep_file import SweepFile
from sweeps.trial_state import REPLICATE_OF


@dataclass(frozen=True)
class Remaining:
    """What is left to do in a sweep.

    Attributes:
        search: Whether more trials are to be drawn.
        repeats: What is to be repeated, now that the search is over.
        may_repeat: Whether there will be something to repeat when it is.
        running: Whether a trial is under way.
        spent: Which budget is used up, if one is.
        reached: Which goal is reached, if one is set.
    """

    search: bool
    repeats: tuple[Repeat, ...]
    may_repeat: bool
    running: bool
    spent: str
    reached: str

    @property
    def finished(self) -> bool:
        """Whether all trials of the sweep have ended."""
        return not (self.search or self.repeats or self.running)


def remaining(
    trials: Sequence[FrozenTrial], sweep: SweepFile, cost: Spent, bounds: Mapping[str, float]
) -> Remaining:
    """Say what is left to do, from the record alone."""
    running = [trial for trial in trials if trial.state == OptunaState.RUNNING]
    of_search = [trial for trial in trials if REPLICATE_OF not in trial.user_attrs]
    states = record.states_of(trials)
    best = best_first(states, sweep, bounds)
    over_budget = budget_reached(sweep, cost)
    reached = goal_reached(sweep, best[0].objective if best else None)
    search = len(of_search) < sweep.trials and not over_budget and not reached
    searching = search or any(REPLICATE_OF not in trial.user_attrs for trial in running)
    repeats: list[Repeat] = []
    if not searching and not over_budget:
        done = {
            (trial.user_attrs[REPLICATE_OF], trial.user_attrs[record.TURN])
            for trial in trials
            if REPLICATE_OF in trial.user_attrs
        }
        repeats = [r for r in replicates(states, sweep, bounds) if (r.of, r.turn) not in done]
    return Remaining(
        search=search,
        repeats=tuple(repeats),
        may_repeat=searching and sweep.replicates > 0 and not over_budget,
        running=bool(running),
        spent=over_budget,
        reached=reached,
    )


def is_finished(directory: SweepDirectory, sweep: SweepFile) -> bool:
    """Whether nothing is left to do in a sweep, without changing it."""
    found = record.load_study(directory.study, sweep.name) if directory.study.exists() else None
    if found is None:
        return False
    trials = found.get_trials(deepcopy=False)
    cost = spent(trials, sweep, float(found.user_attrs.get(record.WALL_S, 0.0)), 0.0)
    bounds = resolve_bounds(sweep, directory.base_metrics())
    return remaining(trials, sweep, cost, bounds).finished


def spent(
    trials: Sequence[FrozenTrial], sweep: SweepFile, wall_s: float, waiting_s: float
) -> Spent:
    """What a sweep has cost.

    Args:
        trials: All on record.
        sweep: The sweep.
        wall_s: Seconds that it has run.
        waiting_s: Seconds of trials under way that are not yet booked.
    """
    seconds = sum(float(trial.user_attrs.get(record.SECONDS, 0.0)) for trial in trials)
    return Spent(
        epochs=epochs_trained(map(record.state_of, trials)),
        gpu_hours=(seconds + waiting_s) * sweep.resources.gpu / 3600,
        wall_hours=wall_s / 3600,
        trial_hours=(seconds + waiting_s) / 3600,
    )
