"""Another sweep to see this one's search against: a random search of what it cost, if one was run.

other = find_other(facts, store)          # the newest random search over the same, or None
found = at_equal_cost(facts, other)       # what each had reached when both had cost the same
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from analysis.facts.comparison import Comparison, Row, comparison, foreign, yardstick
from analysis.facts.utterances import EvidenceSource
from conf.errors import UserError

_SAME = ("base", "data", "objective", "stages")
"""What two sweeps must share in their files, so that one may be compared with the other unasked."""


@dataclass(frozen=True)
class EqualCost:
    """What two searches had reached after as many epochs of training in all."""

    epochs: int
    ours: float
    theirs: float


def find_other(
    facts: Comparison, store: EvidenceSource, name: str | None = None, cache: Path | None = None
) -> Comparison | None:
    """The sweep of this name; without one, the newest random search over the same.

    Args:
        facts: What it is compared with.
        store: Where both are.
        name: The sweep that was asked for.
        cache: Directory in which ended runs are remembered.

    Returns:
        None if none was asked for and none is there.

    Raises:
        UserError: There is no sweep of that name, or its trials saw something else.
    """
    found = name or _random_search(facts, store)
    if found is None:
        return None
    other = comparison(found, store, cache)
    reasons = foreign(yardstick(other.sweep_record), yardstick(facts.sweep_record))
    if not reasons:
        return other
    if name is None:
        return None
    raise UserError(
        f"--beside: got {name!r} ({'; '.join(reasons)}), expected a sweep whose trials may be "
        f"compared with those of {facts.sweep!r}"
    )


def trials_with_cost(facts: Comparison) -> list[tuple[int, Row]]:
    """Trials by number, each with the epochs that all had cost by then."""
    spent, points = 0, []
    for row in sorted(facts.rows, key=lambda row: row.trial):
        spent += row.epochs_run or 0
        if row.objective is not None and row.replicate_of is None:
            points.append((spent, row))
    return points


def best_so_far(facts: Comparison) -> list[tuple[int, float]]:
    """After so many epochs in all, the best objective of a completed trial."""
    found: list[tuple[int, float]] = []
    for epochs, row in trials_with_cost(facts):
        if row.outcome == "completed" and row.objective is not None:
            found.append((epochs, min(row.objective, found[-1][1] if found else row.objective)))
        elif found:
            found.append((epochs, found[-1][1]))
    return found


def at_equal_cost(facts: Comparison, other: Comparison) -> EqualCost | None:
    """What each had reached when both had cost what the cheaper one cost in all."""
    ours, theirs = best_so_far(facts), best_so_far(other)
    if not ours or not theirs:
        return None
    epochs = min(ours[-1][0], theirs[-1][0])
    reached = [[best for cost, best in one if cost <= epochs] for one in (ours, theirs)]
    if not all(reached):
        return None
    return EqualCost(epochs, reached[0][-1], reached[1][-1])


def _random_search(facts: Comparison, store: EvidenceSource) -> str | None:
    ours = facts.sweep_record.settings
    if "sampler" not in ours or ours["sampler"] == "random":
        return None
    for name in store.sweep_names():
        other = store.sweep_run(name)
        found = {} if other is None else other.params
        if found.get("sampler") == "random" and _of(found) == _of(ours):
            return name
    return None


def _of(settings: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in settings.items() if key.partition(".")[0] in _SAME}
