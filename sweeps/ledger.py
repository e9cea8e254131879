"""The Optuna study as the record of a sweep: what was asked, what was seen, how it ended.

The driver is its only writer. Every call leaves the study in a state from which the same sweep
can go on after a crash: a trial is asked once, RUNNING trials of an earlier driver are handed out
again, and `tell` is the moment a trial is over.

What comes next follows from the record alone: the stages' default configs, points of a warm start,
what the sampler draws (`samplers`), and at the end the finalists with other seeds (`finalists`).
"""

from __future__ import annotations

import math
import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, Trial
from optuna.trial import TrialState as OptunaState

from conf.errors import ConfigError
from conf.load import Config
from sweeps import fidelity
from sweeps import study as record
from sweeps.budget import Spent, budget_reached, epochs_trained, goal_reached, saved_epochs
from sweeps.finalists import Repeat, best_first, replicates, resolve_bounds
from sweeps.pruner import should_prune
from sweeps.samplers import draw, excess, known
from sweeps.space import Choice, SweepFile, baseline_point, point_of, record_point, suggest
from sweeps.state import ANSWERED_FROM, ENDED_BY, REPLICATE_OF, SweepDirectory, TrialState
from sweeps.trial import Work, trial_config
from sweeps.tunable import leaves_nothing
from sweeps.warm_start import WarmStart, read_warm_start

_SEED = "finetune_conf.seed"
_BEYOND = "beyond"  # notes that may change as more is known
_PARETO = "pareto"


class Ledger:
    """A sweep's study, opened by its driver.

    Args:
        directory: The sweep's directory; the study is created there if it is not yet.
        sweep: The sweep.
        configs: Every stage's default config.
        clock: Seconds that pass, for the budget.
    """

    def __init__(
        self,
        directory: SweepDirectory,
        sweep: SweepFile,
        configs: Mapping[str, Config],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._sweep = sweep
        self._configs = configs
        self._clock = clock
        self._study = record.create_study(directory.study, sweep.name)
        self._handed_out: dict[int, Trial] = {}
        self._since: dict[int, float] = {}  # when a trial under way was last looked at
        self._wall_s = float(self._study.user_attrs.get(record.WALL_S, 0.0))
        self._last = clock()
        self._base: Mapping[str, float] = {}
        self._warm = self._read_warm_start()
        self._enqueue_first()

    def ask(self) -> TrialState | None:
        """Hand out a trial: one that an earlier driver left RUNNING, else a new one.

        Its outcome may be known at once: values that are wrong together, or that another trial has
        answered.

        Returns:
            None when there is none now; later there may be one, unless `exhausted`.
        """
        trial = self._left_running() or self._new()
        if trial is None:
            self._note_end()
            return None
        self._handed_out[trial.number] = trial
        self._since[trial.number] = self._clock()
        self._tick()
        if why := self.enough(trial.number):  # left by a driver that was killed
            self._end_with_sweep(trial.number, why)
            return self.state(trial.number)
        try:
            return self._prepare(trial)
        except ConfigError as error:  # values that are fine one by one and wrong together
            self.tell(trial.number, "failed", reason=error.problems[0])
            return self.state(trial.number)

    def report(self, number: int, epoch: int, value: float) -> None:
        """Record the objective after an epoch; an epoch that is on record stays as it is."""
        trial = self._handed_out[number]
        self._tick(number)
        if epoch not in self.state(number).curve:
            trial.report(value, step=epoch)

    def prunes(self, number: int, epoch: int, *, finished: bool) -> bool:
        """Decide whether a trial ends after an epoch that was reported.

        Baselines and replicates never do, and no trial at its last epoch: it is about to complete.
        """
        states = {s.number: s for s in self.states() if REPLICATE_OF not in s.notes}
        own = states.pop(number, None)
        if own is None or own.baseline or finished:
            return False
        others = {other.number: other.curve for other in states.values()}
        return should_prune(own.curve, others, epoch, self._sweep.pruning)

    def enough(self, number: int) -> str:
        """Say why a trial under way ends with the sweep: its goal or budget is reached."""
        stopped = self._outlook()
        repeats = REPLICATE_OF in self._trials()[number].user_attrs
        return stopped.spent if repeats else stopped.spent or stopped.reached

    def tell(
        self,
        number: int,
        outcome: Literal["completed", "pruned", "failed"],
        *,
        objective: float | None = None,
        metrics: Mapping[str, float | None] | None = None,
        reason: str = "",
    ) -> None:
        """End a trial; a completed one without finite values for all that is asked has failed."""
        trial = self._handed_out.pop(number)
        self._tick(number, trial)
        del self._since[number]
        if outcome == "completed":
            found = {name: (metrics or {}).get(name) for name in self._sweep.measured}
            for name, value in {"objective": objective, **found}.items():
                if value is None or not math.isfinite(value):
                    outcome, reason = "failed", f"{name}: got {value}, expected a finite number"
                    break
            else:
                trial.set_user_attr(record.METRICS, found)
        if reason:
            trial.set_user_attr(record.REASON, reason)
        if outcome == "completed":
            self._study.tell(trial, objective)
        else:
            state = OptunaState.PRUNED if outcome == "pruned" else OptunaState.FAIL
            self._study.tell(trial, state=state)
        self._sum_up()

    def end_with_sweep(self, number: int) -> bool:
        """End a trial under way, as pruned, if the sweep's goal or budget is reached."""
        why = self.enough(number)
        if why:
            self._end_with_sweep(number, why)
        return bool(why)

    def states(self) -> tuple[TrialState, ...]:
        """Say what is known of every trial that was handed out, by number."""
        return self._noted(record.states_of(self._study))

    def state(self, number: int) -> TrialState:
        """Say what is known of one trial."""
        return record.state_of(self._trials()[number])

    def spent(self) -> Spent:
        """What the sweep has cost so far, over all its starts."""
        now = self._clock()
        waiting = sum(now - since for since in self._since.values())
        return _spent(self._trials(), self._sweep, self._wall_s + now - self._last, waiting)

    @property
    def stopped(self) -> str:
        """Which goal or budget ended the sweep; empty while none has."""
        outlook = self._outlook()
        return outlook.spent or outlook.reached

    @property
    def best(self) -> list[TrialState]:
        """The best trials first; beside several objectives the Pareto front."""
        return best_first(record.states_of(self._study), self._sweep, self._bounds())

    @property
    def sweep_id(self) -> str:
        """What tells this sweep from any other of the same name; kept in the study."""
        found = self._study.user_attrs.get(record.SWEEP_ID)
        if found is None:
            found = uuid.uuid4().hex
            self._study.set_user_attr(record.SWEEP_ID, found)
        return str(found)

    @property
    def exhausted(self) -> bool:
        """Whether there is nothing left to hand out, now or after what is under way has ended."""
        outlook = self._outlook()
        return outlook.finished or not (outlook.search or outlook.repeats or outlook.may_repeat)

    @property
    def finished(self) -> bool:
        """Whether all trials of the sweep have ended."""
        return self._outlook().finished

    # What comes next

    def _left_running(self) -> Trial | None:
        for trial in self._study.get_trials(deepcopy=False, states=(OptunaState.RUNNING,)):
            if trial.number not in self._handed_out:
                return Trial(self._study, trial._trial_id)
        return None

    def _new(self) -> Trial | None:
        outlook = self._outlook()
        trials = self._trials()
        waiting = [t for t in trials if t.state == OptunaState.WAITING]
        if outlook.search and not waiting:
            self._enqueue(self._draw(trials), {record.DRAWN: True})
        elif outlook.repeats and not any(REPLICATE_OF in t.user_attrs for t in waiting):
            repeat = outlook.repeats[0]
            of = trials[repeat.of]
            self._enqueue(of.params, {REPLICATE_OF: repeat.of, record.TURN: repeat.turn})
        elif not outlook.search and not outlook.repeats:
            return None
        number = min(t.number for t in self._trials() if t.state == OptunaState.WAITING)
        # It draws only what an enqueued point leaves open.
        self._study.sampler = optuna.samplers.RandomSampler(seed=self._sweep.seed + number)
        return self._study.ask()

    def _draw(self, trials: Sequence[FrozenTrial]) -> Mapping[str, Any]:
        states = record.states_of(self._study)
        by_now = [*self._warm.known, *known(states, self._sweep, self._bounds())]
        index = sum(record.DRAWN in trial.user_attrs for trial in trials)
        return point_of(self._sweep, draw(self._sweep, by_now, len(trials), index))

    def _read_warm_start(self) -> WarmStart:
        """What the earlier sweep knew when this one began; it may have gone on since."""
        kept = self._study.user_attrs.get(record.WARM_START)
        if kept is not None:
            return WarmStart.of_dict(kept)
        found = read_warm_start(self._sweep, self._configs)
        if self._sweep.warm_start is not None:
            self._study.set_user_attr(record.WARM_START, found.as_dict())
        return found

    def _enqueue_first(self) -> None:
        """Put every stage's default config first, then the points of a warm start, each once."""
        attributes = [trial.user_attrs for trial in self._trials()]
        defaults = {a[record.BASELINE] for a in attributes if record.BASELINE in a}
        for stage in self._sweep.stages:
            if stage not in defaults:
                point = baseline_point(self._sweep, stage, self._configs[stage])
                self._enqueue(point, {record.BASELINE: stage})
        tried = sum(record.WARM_FROM in a for a in attributes)
        for choice in self._warm.points[tried:]:
            assert self._sweep.warm_start is not None
            of = self._sweep.warm_start.sweep
            self._enqueue(point_of(self._sweep, choice), {record.WARM_FROM: of})

    def _enqueue(self, point: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.enqueue_trial(dict(point), user_attrs=dict(attributes))

    # A trial that is handed out

    def _prepare(self, trial: Trial) -> TrialState:
        choice = self._choice(trial)
        config = self._configs[choice.stage].replace(choice.values, f"trial {trial.number}")
        if record.EPOCHS not in trial.user_attrs:
            shown = {key: config.get(key) for key in self._sweep.ranges(choice.stage)}
            twin = None if REPLICATE_OF in trial.user_attrs else fidelity.twin(config)
            trial.set_user_attr(record.OVERRIDES, dict(choice.values))
            trial.set_user_attr(record.VALUES, shown)
            trial.set_user_attr(record.TWIN, twin)
            trial.set_user_attr(record.EPOCHS, config["train_conf.max_epoch"])
        if leaves_nothing(config):
            raise ConfigError(f"trial {trial.number}: freeze: got every part frozen")
        state = self.state(trial.number)
        self._directory.write_trial(state, choice.values)
        if not state.curve or ANSWERED_FROM in state.notes:
            self._answer(trial, choice)
        return self.state(trial.number)

    def _choice(self, trial: Trial) -> Choice:
        attributes = trial.user_attrs
        if record.BASELINE in attributes:
            stage = attributes[record.BASELINE]
            record_point(
                trial, self._sweep, baseline_point(self._sweep, stage, self._configs[stage])
            )
            return Choice(stage, {})  # as it is: nothing is laid over it
        if REPLICATE_OF not in attributes:
            return suggest(trial, self._sweep)
        of = self._trials()[attributes[REPLICATE_OF]]
        record_point(trial, self._sweep, of.params)
        stage = of.params["stage"]
        seed = self._configs[stage][_SEED] + attributes[record.TURN]
        return Choice(stage, {**of.user_attrs[record.OVERRIDES], _SEED: seed})

    def _answer(self, trial: Trial, choice: Choice) -> None:
        """End a trial that is the first part of an earlier one, if it is certain what it found."""
        name = self._sweep.objective
        baseline = record.BASELINE in trial.user_attrs
        work = Work(trial.number, choice.stage, baseline, choice.values)
        config = trial_config(self._sweep, work, self._directory.trial(trial.number))
        for number in self._twins(trial):
            course = fidelity.read_course(self._directory.trial(number))
            found = None if course is None else fidelity.answer(course, config)
            objective = None if found is None else found.objective(name)
            if course is None or found is None or objective is None:
                continue
            trial.set_user_attr(ANSWERED_FROM, number)
            fidelity.write_answer(found, course, config, number)
            epochs = config["train_conf.max_epoch"]
            for epoch in range(epochs):
                self.report(trial.number, epoch, course.epochs[epoch].metrics[name])
            self.report(trial.number, epochs, found.metrics[name])
            self.tell(trial.number, "completed", objective=objective, metrics=found.metrics)
            return

    def _twins(self, trial: Trial) -> list[int]:
        """Earlier trials that were trained to their end and may differ in their epochs alone."""
        twin = trial.user_attrs[record.TWIN]
        return [
            other.number
            for other in self._trials()[: trial.number]
            if other.state == OptunaState.COMPLETE
            and twin is not None
            and other.user_attrs.get(record.TWIN) == twin
            and ANSWERED_FROM not in other.user_attrs
        ]

    def _end_with_sweep(self, number: int, why: str) -> None:
        self._handed_out[number].set_user_attr(ENDED_BY, why)
        self.tell(number, "pruned", reason=why)

    # Sums

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _bounds(self) -> dict[str, float]:
        if self._sweep.at_most and not self._base:
            self._base = self._directory.base_metrics()
        return resolve_bounds(self._sweep, self._base)

    def _outlook(self) -> Outlook:
        return outlook(self._trials(), self._sweep, self.spent(), self._bounds())

    def _noted(self, states: tuple[TrialState, ...]) -> tuple[TrialState, ...]:
        """Add what is known of a trial only beside the base, or the others."""
        bounds = self._bounds()
        front = {state.number for state in best_first(states, self._sweep, bounds)}
        noted = []
        for state in states:
            notes = dict(state.notes)
            if state.outcome == "completed":
                over = excess(state, bounds, self._sweep.objective)
                beyond = [name for name, share in over.items() if share > 0]
                if beyond:
                    notes[_BEYOND] = ", ".join(beyond)
                if self._sweep.beside:
                    notes[_PARETO] = str(state.number in front).lower()
            noted.append(replace(state, notes=notes))
        return tuple(noted)

    def _tick(self, number: int | None = None, trial: Trial | None = None) -> None:
        """Book the time that has passed, for the sweep and for a trial."""
        now = self._clock()
        self._wall_s += now - self._last
        self._last = now
        self._study.set_user_attr(record.WALL_S, self._wall_s)
        if number is not None:
            trial = trial or self._handed_out[number]
            seconds = float(trial.user_attrs.get(record.SECONDS, 0.0))
            trial.set_user_attr(record.SECONDS, seconds + now - self._since[number])
            self._since[number] = now

    def _sum_up(self) -> None:
        """Keep with the study what people want to know of it."""
        states = record.states_of(self._study)
        best = best_first(states, self._sweep, self._bounds())
        shown = best if self._sweep.beside else best[:1]
        self._study.set_user_attr(record.SAVED, saved_epochs(states))
        self._study.set_user_attr(record.BEST, [state.number for state in shown])
        self._note_end()

    def _note_end(self) -> None:
        if self._study.user_attrs.get(record.STOPPED, "") != (why := self.stopped):
            self._study.set_user_attr(record.STOPPED, why)


@dataclass(frozen=True)
class Outlook:
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


def outlook(
    trials: Sequence[FrozenTrial], sweep: SweepFile, spent: Spent, bounds: Mapping[str, float]
) -> Outlook:
    """Say what is left to do, from the record alone."""
    asked = [trial for trial in trials if trial.state != OptunaState.WAITING]
    running = [trial for trial in asked if trial.state == OptunaState.RUNNING]
    of_search = [trial for trial in asked if REPLICATE_OF not in trial.user_attrs]
    states = [record.state_of(trial) for trial in asked]
    best = best_first(states, sweep, bounds)
    over_budget = budget_reached(sweep, spent)
    reached = goal_reached(sweep, best[0].objective if best else None)
    search = len(of_search) < sweep.trials and not over_budget and not reached
    searching = search or any(REPLICATE_OF not in trial.user_attrs for trial in running)
    repeats: list[Repeat] = []
    if not searching and not over_budget:
        done = {
            (trial.user_attrs[REPLICATE_OF], trial.user_attrs[record.TURN])
            for trial in asked
            if REPLICATE_OF in trial.user_attrs
        }
        repeats = [r for r in replicates(states, sweep, bounds) if (r.of, r.turn) not in done]
    return Outlook(
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
    spent = _spent(trials, sweep, float(found.user_attrs.get(record.WALL_S, 0.0)), 0.0)
    bounds = resolve_bounds(sweep, directory.base_metrics())
    return outlook(trials, sweep, spent, bounds).finished


def count_ended(path: Path, name: str) -> int:
    """Count the ended trials of a study that exists, without changing it."""
    return sum(state.outcome != "running" for state in record.read_states(path, name))


def _spent(
    trials: Sequence[FrozenTrial], sweep: SweepFile, wall_s: float, waiting_s: float
) -> Spent:
    seconds = sum(float(trial.user_attrs.get(record.SECONDS, 0.0)) for trial in trials)
    return Spent(
        epochs=epochs_trained(map(record.state_of, trials)),
        gpu_hours=(seconds + waiting_s) * sweep.resources.gpu / 3600,
        wall_hours=wall_s / 3600,
        trial_hours=(seconds + waiting_s) / 3600,
    )
