"""The Optuna study as the record of a sweep: what was asked, what was seen, how it ended.

The driver is its only writer. Every call leaves the study in a state from which the same sweep can
go on after a crash: a trial is put on record in one write, with all that it tries; those that an
earlier driver left RUNNING are handed out again; and `tell` is the moment a trial is over.

What comes next follows from the record alone: the stages' default configs, points of a warm start,
what the sampler draws (`samplers`), and at the end the finalists with other seeds (`finalists`).
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from optuna.trial import FrozenTrial, Trial, create_trial
from optuna.trial import TrialState as OptunaState

from conf.errors import ConfigError
from conf.load import Config
from sweeps.directory import SweepDirectory
from sweeps.search import study as record
from sweeps.search.budget import Spent, saved_epochs
from sweeps.search.finalists import best_first, replicates, resolve_bounds
from sweeps.search.pruner import should_prune
from sweeps.search.remaining import Remaining, remaining, spent
from sweeps.search.reuse import Answer, Reuse, awaited, must_wait, write_answer
from sweeps.search.samplers import complete, draw, excess, grid, in_optunas_terms, known
from sweeps.search.warm_start import WarmStart, read_warm_start
from sweeps.spec.sweep_file import Choice, SweepFile
from sweeps.spec.tunable import leaves_nothing
from sweeps.trial import Work, trial_config
from sweeps.trial_state import (
    ANSWERED_FROM,
    ENDED_BY,
    REPLICATE_OF,
    WENT_ON_AFTER,
    WENT_ON_FROM,
    TrialState,
)
from trainer.finetune.extend import equivalence

_SEED = "finetune_conf.seed"
_TICK_S = 5.0
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
        self._read: list[FrozenTrial] | None = None
        self._handed_out: dict[int, Trial] = {}
        self._since: dict[int, float] = {}  # when a trial under way was last looked at
        self._noted_before: dict[str, Any] = self._study.user_attrs
        self._wall_s = float(self._noted_before.get(record.WALL_S, 0.0))
        self._last = clock()
        self._base: Mapping[str, float] = {}
        self._warm = self._read_warm_start()
        self._reuse = Reuse(directory, sweep)

    def ask(self) -> TrialState | None:
        """Hand out a trial: one that an earlier driver left RUNNING, else a new one.

        Its outcome may be known at once: values that are wrong together, or that another trial has
        answered.

        Returns:
            None when there is none now; later there may be one, unless `exhausted`.
        """
        waiting = self._not_handed_out()
        if not waiting and (added := self._add_next()) is not None:
            waiting = [added]
        number = next((n for n in waiting if not must_wait(self._trials(), n)), None)
        if number is None:
            self._note_end()
            return None
        self._handed_out[number] = Trial(self._study, self._trials()[number]._trial_id)
        self._since[number] = self._clock()
        if why := self.enough(number):  # left by a driver that was killed
            self._end_with_sweep(number, why)
        else:
            self._prepare(number)
        return self.state(number)

    def report(self, number: int, epoch: int, value: float) -> None:
        """Record the objective after an epoch; an epoch that is on record stays as it is."""
        trial = self._handed_out[number]
        self._tick(number, trial)
        if epoch not in self.state(number).curve:
            trial.report(value, step=epoch)
            self._changed()

    def prunes(self, number: int, epoch: int, *, finished: bool) -> bool:
        """Decide whether a trial ends after an epoch that was reported.

        Baselines and replicates never do, and no trial at its last epoch: it is about to complete.
        Nor does one that was let go on after it: a restarted worker reports its epochs again, and
        what was decided of them stands, though others may have become better since.
        """
        if self._sweep.pruning.method == "none":
            return False
        states = {s.number: s for s in self.states() if REPLICATE_OF not in s.notes}
        own = states.pop(number, None)
        let_go_on = self._trials()[number].user_attrs.get(record.JUDGED, 0)
        if own is None or own.baseline or finished or epoch <= let_go_on:
            return False
        others = {other.number: other.curve for other in states.values()}
        prunes = should_prune(own.curve, others, epoch, self._sweep.pruning)
        if not prunes:
            self._note_of(number, record.JUDGED, epoch)
        return prunes

    def enough(self, number: int) -> str:
        """Say why a trial under way ends with the sweep: its goal or budget is reached."""
        left = self._remaining()
        repeats = REPLICATE_OF in self._trials()[number].user_attrs
        return left.spent if repeats else left.spent or left.reached

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
        self._tick(number, trial, keep=True)
        del self._since[number]
        if outcome == "completed":
            found = {name: (metrics or {}).get(name) for name in self._sweep.measured}
            for name, value in {"objective": objective, **found}.items():
                if value is None or not math.isfinite(value):
                    outcome, reason = "failed", f"{name}: got {value}, expected a finite number"
                    break
            else:
                if found:
                    trial.set_user_attr(record.METRICS, found)
        if reason:
            trial.set_user_attr(record.REASON, reason)
        if outcome == "completed":
            self._study.tell(trial, objective)
        else:
            state = OptunaState.PRUNED if outcome == "pruned" else OptunaState.FAIL
            self._study.tell(trial, state=state)
        self._changed()
        self._sum_up()

    def end_with_sweep(self, number: int) -> bool:
        """End a trial under way, as pruned, if the sweep's goal or budget is reached."""
        why = self.enough(number)
        if why:
            self._end_with_sweep(number, why)
        return bool(why)

    def states(self) -> tuple[TrialState, ...]:
        """Say what is known of every trial that was handed out, by number."""
        return self._noted(record.states_of(self._trials()))

    def state(self, number: int) -> TrialState:
        """Say what is known of one trial."""
        return record.state_of(self._trials()[number])

    def spent(self) -> Spent:
        """What the sweep has cost so far, over all its starts."""
        now = self._clock()
        waiting = sum(now - since for since in self._since.values())
        return spent(self._trials(), self._sweep, self._wall_s + now - self._last, waiting)

    def sums(self) -> dict[str, float]:
        """What the sweep cost and what pruning saved, as metrics."""
        spent = self.spent()
        return {
            "cost/epochs": float(spent.epochs),
            "cost/gpu_hours": spent.gpu_hours,
            "cost/wall_hours": spent.wall_hours,
            "pruning/saved_epochs": float(saved_epochs(self.states())),
        }

    @property
    def stopped(self) -> str:
        """Which goal or budget ended the sweep; empty while none has."""
        left = self._remaining()
        return left.spent or left.reached

    @property
    def best(self) -> list[TrialState]:
        """The best trials first; beside several objectives the Pareto front."""
        return best_first(record.states_of(self._trials()), self._sweep, self._bounds())

    @property
    def preferred(self) -> list[int]:
        """Numbers of those whose checkpoints are worth most: what is repeated, then the best."""
        states, bounds = record.states_of(self._trials()), self._bounds()
        repeated = [repeat.of for repeat in replicates(states, self._sweep, bounds)]
        best = [state.number for state in best_first(states, self._sweep, bounds)]
        return list(dict.fromkeys([*repeated, *best]))

    @property
    def awaited(self) -> set[int]:
        """Completed trials that others, which are still to come, will go on from."""
        trials, to_come = self._trials(), []
        for trial in trials:
            if trial.state == OptunaState.RUNNING:
                state = record.state_of(trial)
                to_come.append((state.stage, state.values))
        if self._sweep.sampler == "grid" and self._remaining().search:
            drawn = sum(record.DRAWN in trial.user_attrs for trial in trials)
            to_come += [(choice.stage, choice.values) for choice in grid(self._sweep)[drawn:]]
        return awaited(record.states_of(trials), to_come)

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
        left = self._remaining()
        to_come = left.search or left.repeats or left.may_repeat
        return left.finished or not (to_come or self._not_handed_out())

    @property
    def finished(self) -> bool:
        """Whether all trials of the sweep have ended."""
        return self._remaining().finished

    # What comes next

    def _not_handed_out(self) -> list[int]:
        """Trials that an earlier driver left RUNNING, or that wait for another to end."""
        return [
            trial.number
            for trial in self._trials()
            if trial.state == OptunaState.RUNNING and trial.number not in self._handed_out
        ]

    def _add_next(self) -> int | None:
        """Put the next trial on record, RUNNING; its number, or None if there is none now."""
        left, trials = self._remaining(), self._trials()
        if left.search:
            return self._add_searched(trials)
        if left.repeats:
            repeat = left.repeats[0]
            of = record.state_of(trials[repeat.of])
            tried = trials[repeat.of].user_attrs[record.TRIES]["overrides"]
            seed = self._configs[of.stage][_SEED] + repeat.turn
            attributes = {REPLICATE_OF: repeat.of, record.TURN: repeat.turn}
            return self._add(Choice(of.stage, {**tried, _SEED: seed}), of.values, attributes)
        return None

    def _add_searched(self, trials: Sequence[FrozenTrial]) -> int:
        """Every stage's default config first, then points of a warm start, then what is drawn."""
        sweep, number = self._sweep, len(trials)
        attributes = [trial.user_attrs for trial in trials]
        for stage in sweep.stages:
            if not any(a.get(record.BASELINE) == stage for a in attributes):
                # As it is: nothing is laid over it. A value out of range is no point of the space.
                defaults = {key: self._configs[stage].get(key) for key in sweep.ranges(stage)}
                return self._add(Choice(stage, {}), defaults, {record.BASELINE: stage})
        tried = sum(record.WARM_FROM in a for a in attributes)
        if tried < len(self._warm.points) and sweep.warm_start is not None:
            choice = complete(sweep, self._warm.points[tried], number)
            return self._add(choice, choice.values, {record.WARM_FROM: sweep.warm_start.sweep})
        by_now = [*self._warm.known, *known(record.states_of(trials), sweep, self._bounds())]
        index = sum(record.DRAWN in a for a in attributes)
        choice = draw(sweep, by_now, number, index)
        return self._add(choice, choice.values, {record.DRAWN: True})

    def _add(self, choice: Choice, values: Mapping[str, Any], attributes: dict[str, Any]) -> int:
        """Put a trial on record in one write, with all that is known of it before it runs.

        Args:
            choice: What it lays over its stage's default config.
            values: What the study says of it.
            attributes: What kind of trial it is.
        """
        tries: dict[str, Any] = {"overrides": dict(choice.values), "values": dict(values)}
        try:
            config = self._configs[choice.stage].replace(choice.values, "the search's values")
            tries |= {
                "values": {key: config.get(key) for key in self._sweep.ranges(choice.stage)},
                "epochs": config["train_conf.max_epoch"],
                record.EQUIVALENCE: None if REPLICATE_OF in attributes else equivalence(config),
            }
            if leaves_nothing(config):
                tries["wrong"] = "freeze: got every part frozen, expected one that trains"
        except ConfigError as error:  # values that are fine one by one and wrong together
            tries["wrong"] = error.problems[0]
        params, distributions = in_optunas_terms(self._sweep, Choice(choice.stage, values))
        self._study.add_trial(
            create_trial(
                state=OptunaState.RUNNING,
                params=params,
                distributions=distributions,
                user_attrs={**attributes, record.TRIES: tries},
            )
        )
        self._changed()
        return len(self._trials()) - 1

    def _read_warm_start(self) -> WarmStart:
        """What the earlier sweep knew when this one began; it may have gone on since."""
        kept = self._study.user_attrs.get(record.WARM_START)
        if kept is not None:
            return WarmStart.of_dict(kept)
        found = read_warm_start(self._sweep, self._configs)
        if self._sweep.warm_start is not None:
            self._study.set_user_attr(record.WARM_START, found.as_dict())
        return found

    # A trial that is handed out

    def _prepare(self, number: int) -> None:
        """Tell the worker what a trial tries, or end it if that is known to be pointless."""
        tries = self._trials()[number].user_attrs[record.TRIES]
        if "wrong" in tries:
            self.tell(number, "failed", reason=tries["wrong"])
            return
        state = self.state(number)
        self._directory.write_trial(state, tries["overrides"])
        if tries[record.EQUIVALENCE] is None or (state.curve and ANSWERED_FROM not in state.notes):
            return
        work = Work(number, state.stage, state.baseline, tries["overrides"])
        config = trial_config(self._sweep, work, self._directory.trial(number))
        found = self._reuse.answer(self._trials(), number, config)
        self._note_of(number, ANSWERED_FROM, found and found[0])
        if found is not None:
            self._complete(state, config, *found)
            return
        label, epochs = self._reuse.extend(self._trials(), number, config) or (None, None)
        self._note_of(number, WENT_ON_FROM, label)
        self._note_of(number, WENT_ON_AFTER, epochs)

    def _complete(self, state: TrialState, config: Config, label: str, found: Answer) -> None:
        """Complete a trial, which is not trained, with what an equivalent one says of it."""
        name = self._sweep.objective
        write_answer(found, config, label)
        for epoch, value in enumerate(found.values(name, state.epochs)):
            self.report(state.number, epoch, value)
        objective = found.objective(name)
        self.tell(state.number, "completed", objective=objective, metrics=found.metrics)

    def _note_of(self, number: int, name: str, value: str | int | None) -> None:
        """Write an attribute of a trial that is handed out, if it is new."""
        if self._trials()[number].user_attrs.get(name) != value:
            self._handed_out[number].set_user_attr(name, value)
            self._changed()

    def _end_with_sweep(self, number: int, why: str) -> None:
        self._handed_out[number].set_user_attr(ENDED_BY, why)
        self.tell(number, "pruned", reason=why)

    # Sums

    def _trials(self) -> list[FrozenTrial]:
        """The record; read again only after a change, since nobody else writes it."""
        if self._read is None:
            self._read = self._study.get_trials(deepcopy=False)
        return self._read

    def _changed(self) -> None:
        self._read = None

    def _bounds(self) -> dict[str, float]:
        if self._sweep.at_most and not self._base:
            self._base = self._directory.base_metrics()
        return resolve_bounds(self._sweep, self._base)

    def _remaining(self) -> Remaining:
        return remaining(self._trials(), self._sweep, self.spent(), self._bounds())

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

    def _tick(self, number: int, trial: Trial, *, keep: bool = False) -> None:
        """Book the time that has passed, for the sweep and a trial; not every second is written."""
        now = self._clock()
        if keep or now - self._last >= _TICK_S:
            self._wall_s += now - self._last
            self._last = now
            self._study.set_user_attr(record.WALL_S, self._wall_s)
        if keep or now - self._since[number] >= _TICK_S:
            seconds = float(self._trials()[number].user_attrs.get(record.SECONDS, 0.0))
            trial.set_user_attr(record.SECONDS, seconds + now - self._since[number])
            self._since[number] = now
            self._changed()

    def _sum_up(self) -> None:
        """Keep with the study what people want to know of it."""
        states = record.states_of(self._trials())
        best = best_first(states, self._sweep, self._bounds())
        shown = best if self._sweep.beside else best[:1]
        self._note(record.SAVED, saved_epochs(states))
        self._note(record.BEST, [state.number for state in shown])
        self._note_end()

    def _note_end(self) -> None:
        self._note(record.STOPPED, self.stopped)

    def _note(self, name: str, value: Any) -> None:
        """Write an attribute of the study if it is new."""
        if self._noted_before.get(name) != value:
            self._study.set_user_attr(name, value)
            self._noted_before[name] = value
