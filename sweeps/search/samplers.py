"""Who chooses the next trial's values: TPE, chance, or a grid; a pure function of what is known.

    choice = draw(sweep, known, number=7, index=3)

What is known is laid before Optuna's sampler in a study of its own, in memory, with a seed of the
trial's number. So a resumed sweep draws what the unbroken one would have drawn; results of an
earlier sweep can be known without being trials of this one; several objectives and bounds are the
sampler's business alone; and thousands of sweeps can be simulated in seconds.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from sweeps.spec.ranges import Value, label
from sweeps.spec.sweep_file import Choice, SweepFile, is_whole, suggest
from sweeps.trial_state import REPLICATE_OF, TrialState

optuna.logging.set_verbosity(optuna.logging.WARNING)  # a study in memory is no news

_SEED_STRIDE = 100_003  # sweeps whose seeds are neighbours share no trial's seed


@dataclass(frozen=True)
class Known:
    """A trial as a sampler sees it; `values` by dotted key, those of its stage's ranges alone."""

    stage: str
    values: Mapping[str, Any]
    outcome: Literal["running", "completed", "pruned"]
    objectives: tuple[float, ...] = ()
    """Of a completed trial, in the sweep's order."""
    curve: Mapping[int, float] = field(default_factory=dict)
    """Of a pruned one, after each epoch of training."""
    excess: Mapping[str, float] = field(default_factory=dict)
    """By how much bounds are passed, by metric, as a share of the bound; at most 0 is within."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> Known:
        """Read what `as_dict` gave."""
        curve = {int(epoch): value for epoch, value in values["curve"].items()}
        return cls(**{**values, "curve": curve, "objectives": tuple(values["objectives"])})


def known(
    states: Iterable[TrialState], sweep: SweepFile, bounds: Mapping[str, float]
) -> list[Known]:
    """What there is to learn from trials: replicates repeat, and failures say nothing of values.

    Args:
        states: The trials, by number.
        sweep: Their sweep; values outside its ranges are left out.
        bounds: The sweep's bounds as numbers.
    """
    found = []
    for state in states:
        if state.outcome in ("failed", "killed") or REPLICATE_OF in state.notes:
            continue
        ranges = sweep.ranges(state.stage)
        values = {
            key: state.values[key]
            for key, (_, range_) in ranges.items()
            if key in state.values and range_.contains(state.values[key])
        }
        done = state.outcome == "completed"
        found.append(
            Known(
                state.stage,
                values,
                state.outcome,  # type: ignore[arg-type]
                objectives(state, sweep) if done else (),
                {epoch: value for epoch, value in state.curve.items() if epoch > 0},
                excess(state, bounds, sweep.objective) if done else {},
            )
        )
    return found


def metric(state: TrialState, name: str, objective: str) -> float:
    """A metric of a completed trial; infinite where it is not known."""
    if name == "epochs":
        return float(state.epochs)
    found = state.objective if name == objective else state.metrics.get(name)
    return math.inf if found is None else found


def objectives(state: TrialState, sweep: SweepFile) -> tuple[float, ...]:
    """What a completed trial reached, in the sweep's order."""
    names = (sweep.objective, *sweep.beside)
    return tuple(metric(state, name, sweep.objective) for name in names)


def excess(state: TrialState, bounds: Mapping[str, float], objective: str) -> dict[str, float]:
    """By how much a completed trial passes each bound, as a share of it."""
    return {
        name: metric(state, name, objective) / max(bound, 1e-9) - 1
        for name, bound in bounds.items()
    }


def draw(sweep: SweepFile, trials: Sequence[Known], number: int, index: int) -> Choice:
    """Choose what a trial tries.

    Args:
        sweep: The sweep.
        trials: What is known by now, oldest first.
        number: The trial's number, which seeds the choice.
        index: How many trials were drawn before it (not enqueued, not replicates).
    """
    if sweep.sampler == "grid":
        return grid(sweep)[index]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        seed = _seed(sweep, number)
        sampler = _tpe(sweep, seed) if sweep.sampler == "tpe" else _random(seed)
        study = optuna.create_study(
            sampler=sampler, directions=["minimize"] * (1 + len(sweep.beside))
        )
        if sweep.sampler == "tpe":
            study.add_trials(_frozen(trial, sweep) for trial in trials)
        return suggest(study.ask(), sweep)


def complete(sweep: SweepFile, point: Choice, number: int) -> Choice:
    """Draw at random what a point leaves open."""
    params, _ = in_optunas_terms(sweep, point)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(sampler=_random(_seed(sweep, number)))
        study.enqueue_trial(params)
        return suggest(study.ask(), sweep)


def in_optunas_terms(
    sweep: SweepFile, choice: Choice
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Parameters and distributions of a choice; values out of their range are left out."""
    params: dict[str, Any] = {"stage": choice.stage}
    distributions: dict[str, BaseDistribution] = {
        "stage": CategoricalDistribution(list(sweep.stages))
    }
    for key, (name, range_) in sweep.ranges(choice.stage).items():
        if key in choice.values and range_.contains(choice.values[key]):
            params[name] = label(choice.values[key])
            distributions[name] = range_.distribution(whole=is_whole(key))
    return params, distributions


def grid(sweep: SweepFile) -> tuple[Choice, ...]:
    """Every combination of every stage's values, those with the fewest epochs first.

    A longer trial can then go on from where a shorter one ended.
    """
    return _grid(sweep.model_dump_json())


@cache
def _grid(sweep_json: str) -> tuple[Choice, ...]:
    sweep = SweepFile.model_validate_json(sweep_json)
    choices = []
    for stage in sweep.stages:
        ranges = sweep.ranges(stage)
        axes = [range_.grid(whole=is_whole(key)) or () for key, (_, range_) in ranges.items()]
        choices += [
            Choice(stage, dict(zip(ranges, values, strict=True)))
            for values in itertools.product(*axes)
        ]
    return tuple(sorted(choices, key=lambda choice: _epochs(choice.values)))


def _epochs(values: Mapping[str, Value]) -> int:
    found = values.get("train_conf.max_epoch", 0)
    return found if isinstance(found, int) else 0


def _seed(sweep: SweepFile, number: int) -> int:
    return (sweep.seed * _SEED_STRIDE + number) % 2**32


def _tpe(sweep: SweepFile, seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(
        n_startup_trials=sweep.startup_trials,
        multivariate=True,
        group=True,
        constant_liar=True,
        seed=seed,
    )


def _random(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def _frozen(trial: Known, sweep: SweepFile) -> FrozenTrial:
    """A known trial in Optuna's terms, its distributions those of this sweep."""
    params, distributions = in_optunas_terms(sweep, Choice(trial.stage, trial.values))
    several = bool(sweep.beside)
    constraints = dict(trial.excess)
    values: Sequence[float] | None = None
    state = OptunaState.RUNNING
    if trial.outcome == "completed":
        state, values = OptunaState.COMPLETE, trial.objectives
    elif trial.outcome == "pruned" and several:
        # Optuna knows no pruned trials beside several objectives: worse than all that completed,
        # and of these the one that went furthest is the best, as with one objective.
        state, values = OptunaState.COMPLETE, [math.inf] * (1 + len(sweep.beside))
        constraints["pruned"] = 1.0 / (1 + max(trial.curve, default=0))
    elif trial.outcome == "pruned":
        state = OptunaState.PRUNED
    return create_trial(
        state=state,
        values=values,
        params=params,
        distributions=distributions,
        intermediate_values=dict(trial.curve) if state == OptunaState.PRUNED else None,
        constraints=constraints,
    )
