"""The study's file: how a trial stands in it, and how it is read back.

Attributes have plain names, since people read studies, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from sweeps.trial_state import (
    ANSWERED_FROM,
    ENDED_BY,
    REPLICATE_OF,
    WENT_ON_AFTER,
    WENT_ON_FROM,
    Outcome,
    TrialState,
)

# Attributes of a trial
BASELINE = "baseline"
DRAWN = "drawn"
TURN = "replicate.turn"
WARM_FROM = "warm.from"
TRIES = "tries"  # one attribute: each write costs a commit
EQUIVALENCE = "twin"
"""Within `TRIES`: what trials share that differ in their number of epochs alone; or None."""
METRICS = "metrics"
SECONDS = "seconds"
REASON = "reason"
JUDGED = "pruning.judged"
"""The last epoch after which the trial was let go on."""
# Attributes of the study
SWEEP_ID = "sweep.id"
WARM_START = "warm_start"
WALL_S = "wall_s"
STOPPED = "stopped"
SAVED = "pruning.saved_epochs"
BEST = "best"

_NOTES = (REPLICATE_OF, TURN, ANSWERED_FROM, WENT_ON_FROM, WENT_ON_AFTER, ENDED_BY, WARM_FROM)
_TOLD: Mapping[OptunaState, Outcome] = {
    OptunaState.COMPLETE: "completed",
    OptunaState.PRUNED: "pruned",
    OptunaState.FAIL: "failed",
}


def create_study(path: Path, name: str) -> optuna.Study:
    """Open a sweep's study, new if it is not there."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=_storage(path), study_name=name, direction="minimize", load_if_exists=True
    )


def load_study(path: Path, name: str) -> optuna.Study | None:
    """Open a study to read; None if the file holds none of that name."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.load_study(storage=_storage(path), study_name=name)
    except KeyError:
        return None


def read_states(path: Path, name: str) -> tuple[TrialState, ...]:
    """Say what is known of every trial of a study that exists, without changing it."""
    study = load_study(path, name)
    return () if study is None else states_of(study.get_trials(deepcopy=False))


def states_of(trials: Iterable[FrozenTrial]) -> tuple[TrialState, ...]:
    """Say what is known of every trial, by number."""
    return tuple(state_of(trial) for trial in trials)


def state_of(trial: FrozenTrial) -> TrialState:
    """Say what is known of one trial."""
    attributes: Mapping[str, Any] = trial.user_attrs
    tries = attributes.get(TRIES, {})
    outcome = _TOLD.get(trial.state, "running")
    return TrialState(
        number=trial.number,
        stage=str(trial.params.get("stage", attributes.get(BASELINE, ""))),
        baseline=BASELINE in attributes,
        epochs=tries.get("epochs", 0),
        values=tries.get("values", {}),
        curve=dict(trial.intermediate_values),
        outcome=outcome,
        reason=attributes.get(REASON, ""),
        objective=trial.value if outcome == "completed" else None,
        started_ms=_ms(trial.datetime_start) or 0,
        ended_ms=_ms(trial.datetime_complete),
        metrics=attributes.get(METRICS, {}),
        notes={
            name: str(attributes[name])
            for name in _NOTES
            # Said before the trial is told; a driver that died in between may have lost the reason.
            if attributes.get(name) is not None and (name != ENDED_BY or outcome == "pruned")
        },
    )


def _storage(path: Path) -> optuna.storages.RDBStorage:
    # A reader of the same file may hold it for a moment; wait rather than fail.
    return optuna.storages.RDBStorage(
        f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}}
    )


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)
