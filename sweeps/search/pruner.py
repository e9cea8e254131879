"""Which trials end early: a pure function of the validation values that are on record.

Asked twice about the same record it answers the same, so a driver that dies between a verdict and
its booking loses nothing. (Optuna's own pruner marks a trial as promoted while it is asked, and
answers differently the second time.)
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from sweeps.spec.sweep_file import Pruning

_ENOUGH_FOR_A_MEDIAN = 4

Curve = Mapping[int, float]
"""A trial's objective after each epoch; lower is better. Epoch 0 is before any training."""


def should_prune(curve: Curve, others: Mapping[int, Curve], epoch: int, rule: Pruning) -> bool:
    """Decide whether a trial ends after an epoch.

    Successive halving, asynchronously: at a rung (an epoch of `grace * factor^k`) a trial goes on
    if its best value so far is among the best 1/`factor` of all that have reached that rung by
    now. The first ones to reach a rung therefore go on.

    Median: after every epoch from `grace` on a trial goes on if its best value so far is no worse
    than the median of what the others had reached by that epoch; the first few always go on.

    The caller leaves out trials that may not be pruned: baselines, replicates, and any trial at its
    last epoch.

    Args:
        curve: The trial's own values.
        others: The values of the other trials by number, whatever became of them.
        epoch: The epoch that has just ended.
        rule: Method, grace and factor.

    Example:
        >>> rule = Pruning(method="successive_halving", grace=1, factor=2)
        >>> should_prune({1: 0.6}, {0: {1: 0.2}}, 1, rule)
        True
        >>> should_prune({1: 0.6}, {}, 1, rule)
        False
    """
    if rule.method == "median":
        return epoch >= rule.grace and _is_worse_than_median(curve, others, epoch)
    if rule.method == "none" or not _is_rung(epoch, rule):
        return False
    reached = [other for other in others.values() if any(e >= epoch for e in other)]
    better = sum(_best(other, epoch) < _best(curve, epoch) for other in reached)
    promoted = max(1, (len(reached) + 1) // rule.factor)
    return better >= promoted


def _is_worse_than_median(curve: Curve, others: Mapping[int, Curve], epoch: int) -> bool:
    bests = [_best(other, epoch) for other in others.values() if epoch in other]
    return len(bests) >= _ENOUGH_FOR_A_MEDIAN and _best(curve, epoch) > median(bests)


def _is_rung(epoch: int, rule: Pruning) -> bool:
    rung = rule.grace
    while rung < epoch:
        rung *= rule.factor
    return rung == epoch


def _best(curve: Curve, epoch: int) -> float:
    """The best value after training up to an epoch; infinite if there is none."""
    return min((value for e, value in curve.items() if 1 <= e <= epoch), default=float("inf"))
