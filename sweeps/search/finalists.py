"""Which trials are the best, and which of those are repeated to be sure. Pure functions.

candidates = best_first(states, sweep, bounds)
repeats = replicates(states, sweep, bounds)   # what is still to be repeated, with which seed
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sweeps.search.samplers import excess, objectives
from sweeps.spec.sweep_file import FINALISTS, SweepFile
from sweeps.trial_state import ANSWERED_FROM, REPLICATE_OF, TrialState


@dataclass(frozen=True)
class Repeat:
    """A trial to repeat, the `turn`-th time (from 1), which also tells its seed."""

    of: int
    turn: int


def resolve_bounds(sweep: SweepFile, base: Mapping[str, float]) -> dict[str, float]:
    """The sweep's bounds as numbers; one over a base that is not yet scored is left out."""
    bounds: dict[str, float] = {}
    for name, limit in sweep.at_most.items():
        if not isinstance(limit, str):
            bounds[name] = float(limit)
        elif name in base:
            bounds[name] = base[name] * (1 + float(limit.strip(" +%")) / 100)
    return bounds


def best_first(
    states: Iterable[TrialState], sweep: SweepFile, bounds: Mapping[str, float]
) -> list[TrialState]:
    """Completed trials of the search within all bounds, by objective; of equals the earlier.

    Beside several objectives only the Pareto front: those that no other trial betters in one
    without being worse in another.
    """
    done = [
        state
        for state in states
        if state.outcome == "completed"
        and REPLICATE_OF not in state.notes
        and all(over <= 0 for over in excess(state, bounds, sweep.objective).values())
    ]
    done.sort(key=lambda state: (objectives(state, sweep), state.number))
    if not sweep.beside:
        return done
    points = [objectives(state, sweep) for state in done]
    return [
        state
        for state, point in zip(done, points, strict=True)
        if not any(_dominates(other, point) for other in points)
    ]


def finalists(
    states: Sequence[TrialState], sweep: SweepFile, bounds: Mapping[str, float]
) -> list[TrialState]:
    """The best trials, and the best default config, which they are to be better than."""
    by_number = {str(state.number): state for state in states}

    def is_another_again(state: TrialState) -> bool:
        source = by_number.get(state.notes.get(ANSWERED_FROM, ""))
        return source is not None and source.objective == state.objective

    best = best_first(states, sweep, bounds)
    chosen = [state for state in best if not is_another_again(state)][:FINALISTS]
    defaults = [state for state in states if state.baseline and state.outcome == "completed"]
    defaults.sort(key=lambda state: (objectives(state, sweep), state.number))
    if defaults and not any(state.baseline for state in chosen):
        chosen.append(defaults[0])
    return chosen


def replicates(
    states: Sequence[TrialState], sweep: SweepFile, bounds: Mapping[str, float]
) -> list[Repeat]:
    """All repeats of the finalists, each finalist's first before anyone's second."""
    chosen = finalists(states, sweep, bounds) if sweep.replicates else []
    return [Repeat(s.number, turn) for turn in range(1, sweep.replicates + 1) for s in chosen]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
