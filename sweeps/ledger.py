"""The Optuna study as the record of a sweep: what was asked, what was seen, how it ended.

The driver is its only writer. Every call leaves the study in a state from which the same sweep
can go on after a crash: a trial is asked once, RUNNING trials of an earlier driver are handed out
again, and `tell` is the moment a trial is over.
"""

from __future__ import annotations

import math
import uuid
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, Trial
from optuna.trial import TrialState as OptunaState

from conf.errors import ConfigError
from conf.load import Config
from sweeps.pruner import should_prune
from sweeps.space import Choice, SweepFile, baseline_point, record_baseline, suggest
from sweeps.state import Outcome, SweepDirectory, TrialState

_BASELINE = "baseline"  # attributes of an Optuna trial; the study is read by people, too
_EPOCHS = "epochs"
_VALUES = "values"
_OVERRIDES = "overrides"
_REASON = "reason"
_SWEEP_ID = "sweep.id"  # of the study

_TOLD: Mapping[OptunaState, Outcome] = {
    OptunaState.COMPLETE: "completed",
    OptunaState.PRUNED: "pruned",
    OptunaState.FAIL: "failed",
}


class Ledger:
    """A sweep's study, opened by its driver.

    Args:
        directory: The sweep's directory; the study is created there if it is not yet.
        sweep: The sweep.
        configs: Every stage's default config.
    """

    def __init__(
        self, directory: SweepDirectory, sweep: SweepFile, configs: Mapping[str, Config]
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._directory = directory
        self._sweep = sweep
        self._configs = configs
        self._study = optuna.create_study(
            storage=_storage(directory.study),
            study_name=sweep.name,
            direction="minimize",
            load_if_exists=True,
        )
        self._handed_out: dict[int, Trial] = {}
        self._enqueue_baselines()

    def ask(self) -> TrialState | None:
        """Hand out a trial: one that an earlier driver left RUNNING, else a new one.

        Returns:
            None when the sweep has all its trials.
        """
        while True:
            trial = self._left_running() or self._new()
            if trial is None:
                return None
            self._handed_out[trial.number] = trial
            try:
                return self._prepare(trial)
            except ConfigError as error:  # values that are fine one by one and wrong together
                self.tell(trial.number, "failed", reason=error.problems[0])

    def report(self, number: int, epoch: int, value: float) -> None:
        """Record the objective after an epoch; an epoch that is on record stays as it is."""
        trial = self._handed_out[number]
        if epoch not in self.state(number).curve:
            trial.report(value, step=epoch)

    def prunes(self, number: int, epoch: int, *, finished: bool) -> bool:
        """Decide whether a trial ends after an epoch that was reported.

        Baselines never do, and no trial at its last epoch: it is about to complete.
        """
        states = {state.number: state for state in self.states()}
        own = states.pop(number)
        others = {other.number: other.curve for other in states.values()}
        rule = self._sweep.pruning
        may_end = not finished and not own.baseline
        return may_end and should_prune(own.curve, others, epoch, rule)

    def tell(
        self,
        number: int,
        outcome: Literal["completed", "pruned", "failed"],
        *,
        objective: float | None = None,
        reason: str = "",
    ) -> None:
        """End a trial; a completed one without a finite objective has failed."""
        trial = self._handed_out.pop(number)
        if outcome == "completed" and (objective is None or not math.isfinite(objective)):
            outcome, reason = "failed", f"objective: got {objective}, expected a finite number"
        if reason:
            trial.set_user_attr(_REASON, reason)
        if outcome == "completed":
            self._study.tell(trial, objective)
        else:
            state = OptunaState.PRUNED if outcome == "pruned" else OptunaState.FAIL
            self._study.tell(trial, state=state)

    def states(self) -> tuple[TrialState, ...]:
        """Say what is known of every trial that was handed out, by number."""
        trials = self._study.get_trials(deepcopy=False)
        return tuple(_state(t) for t in trials if _EPOCHS in t.user_attrs or t.state.is_finished())

    def state(self, number: int) -> TrialState:
        """Say what is known of one trial."""
        return _state(self._study.get_trials(deepcopy=False)[number])

    @property
    def sweep_id(self) -> str:
        """What tells this sweep from any other of the same name; kept in the study."""
        known = self._study.user_attrs.get(_SWEEP_ID)
        if known is None:
            known = uuid.uuid4().hex
            self._study.set_user_attr(_SWEEP_ID, known)
        return str(known)

    @property
    def finished(self) -> bool:
        """Whether all trials of the sweep have ended."""
        over = sum(trial.state.is_finished() for trial in self._study.get_trials(deepcopy=False))
        return over >= self._sweep.trials

    def _enqueue_baselines(self) -> None:
        """Put every stage's default config first, once."""
        known = {
            trial.user_attrs[_BASELINE]
            for trial in self._study.get_trials(deepcopy=False)
            if _BASELINE in trial.user_attrs
        }
        for stage in self._sweep.stages:
            if stage not in known:
                point = baseline_point(self._sweep, stage, self._configs[stage])
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    self._study.enqueue_trial(point, user_attrs={_BASELINE: stage})

    def _left_running(self) -> Trial | None:
        for trial in self._study.get_trials(deepcopy=False, states=(OptunaState.RUNNING,)):
            if trial.number not in self._handed_out:
                return Trial(self._study, trial._trial_id)
        return None

    def _new(self) -> Trial | None:
        trials = self._study.get_trials(deepcopy=False)
        waiting = [t.number for t in trials if t.state == OptunaState.WAITING]
        number = min(waiting, default=len(trials))
        if number >= self._sweep.trials:
            return None
        self._study.sampler = self._sampler(number)
        return self._study.ask()

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """A sampler with a seed of the trial's own: a resumed sweep does not repeat its draws."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                n_startup_trials=self._sweep.startup_trials,
                multivariate=True,
                group=True,
                constant_liar=True,
                seed=(self._sweep.seed * 100_003 + number) % 2**32,
            )

    def _prepare(self, trial: Trial) -> TrialState:
        stage = trial.user_attrs.get(_BASELINE)
        if stage is not None:
            point = baseline_point(self._sweep, stage, self._configs[stage])
            choice = record_baseline(trial, self._sweep, point)
        else:
            choice = suggest(trial, self._sweep)
        config = self._configs[choice.stage].replace(choice.values, f"trial {trial.number}")
        if _EPOCHS not in trial.user_attrs:
            shown = {key: config.get(key) for key in self._searched(choice)}
            trial.set_user_attr(_OVERRIDES, dict(choice.values))
            trial.set_user_attr(_VALUES, shown)
            trial.set_user_attr(_EPOCHS, config["train_conf.max_epoch"])
        state = self.state(trial.number)
        self._directory.write_trial(state, choice.values)
        return state

    def _searched(self, choice: Choice) -> Sequence[str]:
        return list(self._sweep.ranges(choice.stage))


def count_ended(path: Path, name: str) -> int:
    """Count the ended trials of a study that exists, without changing it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.load_study(storage=_storage(path), study_name=name)
    except KeyError:
        return 0
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def _storage(path: Path) -> optuna.storages.RDBStorage:
    # A reader of the same file may hold it for a moment; wait rather than fail.
    return optuna.storages.RDBStorage(
        f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}}
    )


def _state(trial: FrozenTrial) -> TrialState:
    attributes: Mapping[str, Any] = trial.user_attrs
    outcome = _TOLD.get(trial.state, "running")
    return TrialState(
        number=trial.number,
        stage=str(trial.params.get("stage", attributes.get(_BASELINE, ""))),
        baseline=_BASELINE in attributes,
        epochs=attributes.get(_EPOCHS, 0),
        values=attributes.get(_VALUES, {}),
        curve=dict(trial.intermediate_values),
        outcome=outcome,
        reason=attributes.get(_REASON, ""),
        objective=trial.value if outcome == "completed" else None,
        started_ms=_ms(trial.datetime_start) or 0,
        ended_ms=_ms(trial.datetime_complete),
    )


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)
