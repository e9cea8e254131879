"""What the search itself showed: which keys mattered, and whether pruning was fair.

Importance is fANOVA (Hutter, Hoos & Leyton-Brown 2014) as Optuna computes it, stage by stage: the
space is conditional, so a key of one stage says nothing about another.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.facts.comparison import Comparison, Row
from analysis.facts.records import TrialRecord, differing
from analysis.facts.utterances import is_number, json_numbers

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST_TRIALS = 6
"""Of a stage: with fewer a forest of trees says nothing."""
_MOST_CATEGORIES = 12


@dataclass(frozen=True)
class Importance:
    """Each key's share of the objective's variance in one stage, the largest first."""

    stage: str
    trials: int
    """Completed ones that it was computed from."""
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Rung:
    """How the order of trials after an epoch agrees with their order at the end.

    Attributes:
        epoch: After which trials were compared.
        trials: Completed ones that went on from there.
        correlation: Spearman's, 1 where the order stayed; None where all are equal.
    """

    epoch: int
    trials: int
    correlation: float | None


@dataclass(frozen=True)
class Pruning:
    """What ending weak trials early saved."""

    pruned: int
    """Trials that it ended."""
    epochs_run: int
    epochs_saved: int
    rungs: tuple[Rung, ...]


def importances(facts: Comparison, *, seed: int = 0) -> tuple[Importance, ...]:
    """Importance per stage, of the keys that differ among its completed trials."""
    trials = facts.sweep_record.by_number
    found = []
    for stage in dict.fromkeys(row.stage for row in facts.rows):
        rows = [
            row
            for row in facts.rows
            if row.stage == stage
            and row.outcome == "completed"
            and row.objective is not None
            and row.replicate_of is None
        ]
        shares = _fanova([trials[row.trial] for row in rows], rows, seed)
        if shares:
            found.append(Importance(stage, len(rows), shares))
    return tuple(found)


def pruning(facts: Comparison) -> Pruning:
    """What pruning saved, and whether it looked at the right moments."""
    pruned = [row for row in facts.rows if row.outcome == "pruned"]
    saved = sum((row.epochs or 0) - (row.epochs_run or 0) for row in pruned)
    run = sum(row.epochs_run or 0 for row in facts.rows)
    last = max((row.epochs or 0 for row in facts.rows), default=0)
    rungs = [_rung(facts, 2**n) for n in range(last.bit_length()) if 2**n < last]
    return Pruning(len(pruned), run, saved, tuple(rung for rung in rungs if rung.trials > 2))


def _rung(facts: Comparison, epoch: int) -> Rung:
    from scipy.stats import spearmanr

    pairs = [
        (curve[epoch], row.objective)
        for row in facts.rows
        if row.outcome == "completed"
        and row.objective is not None
        and (row.epochs or 0) > epoch
        and epoch in (curve := facts.evidence.curves.get(row.trial, {}))
    ]
    correlation = None
    if len(pairs) > 2:  # two agree or they do not
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that are all the same; it gives NaN
            value = float(spearmanr(*zip(*pairs, strict=True)).statistic)
        correlation = value if math.isfinite(value) else None
    return Rung(epoch, len(pairs), correlation)


def _fanova(
    trials: Sequence[TrialRecord], rows: Sequence[Row], seed: int
) -> dict[str, float] | None:
    if len(trials) < FEWEST_TRIALS:
        return None
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    params: list[dict[str, float | str]] = [{} for _ in trials]
    space: dict[str, BaseDistribution] = {}
    for key, texts in differing(trials).items():
        if None in texts:
            continue
        values = [json_numbers(str(text)) for text in texts]
        distribution = _distribution(values)
        if distribution is None:
            continue
        space[key] = distribution
        numeric = all(is_number(value) for value in values)
        for one, value, text in zip(params, values, texts, strict=True):
            one[key] = float(value) if numeric else str(text)
    study = optuna.create_study()
    for one, row in zip(params, rows, strict=True):
        study.add_trial(
            optuna.trial.create_trial(params=one, distributions=space, value=row.objective)
        )
    if not space or len({row.objective for row in rows}) < 2:
        return None
    evaluator = FanovaImportanceEvaluator(seed=seed)
    return dict(get_param_importances(study, evaluator=evaluator))


def _distribution(values: Sequence[object]) -> BaseDistribution | None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    numbers = [float(value) for value in values if is_number(value)]  # type: ignore[arg-type]
    if len(numbers) == len(values):
        low, high = min(numbers), max(numbers)
        return FloatDistribution(low, high, log=low > 0 and high / low >= 10)
    labels = sorted({str(value) for value in values})
    return CategoricalDistribution(labels) if len(labels) <= _MOST_CATEGORIES else None
