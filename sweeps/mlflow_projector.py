"""The sweep as MLflow shows it, kept by a thread of the driver from the trials' states and event
logs.

What is to be in MLflow follows from the study and the trial directories alone, so writing is a
matter of catching up: after a crash, or when the store was away, the same states are projected
again. MLflow is imported here in the background, while Ray starts.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from analysis.facts.comparison import LR
from analysis.facts.utterances import BASE_HYPOTHESES
from conf.document import numbers
from conf.load import Config
from conf.reading import flatten
from sweeps.directory import SweepDirectory, sweep_text
from sweeps.execute.deaths import deaths
from sweeps.output import tail
from sweeps.spec.sweep_file import SweepFile
from sweeps.trial import TRIAL_LOG
from sweeps.trial_state import TrialState
from trainer.tracking.event_log import EVENTS, now_ms
from trainer.tracking.mlflow_store import Status, Store

_LOG = logging.getLogger(__name__)

_STATUS: Mapping[str, Status] = {
    "completed": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    "killed": "KILLED",
}
FAILURE_LOG = "failure.log"
_LAST_LINES = 50
_RETRY_S = 2.0
_REFUSED_S = 30.0
"""How long the end waits for a store that answers, but takes nothing."""
_SILENT_S = 240.0
"""The same for one that does not answer at all: a server's start takes minutes on a busy machine.
"""
_INTERRUPTED_S = 6.0
"""The same for either, where somebody wants the end now."""


class Projector:
    """The one writer of a sweep's MLflow runs.

    Args:
        directory: The sweep's directory.
        sweep: The sweep.
        sweep_id: What tells this sweep from an earlier one of the same name.
        store: The opened store.
        configs: Every stage's default config.
        tags: More tags for the sweep's run.
        clock: Seconds; what the end's patience is measured by.
    """

    def __init__(
        self,
        directory: SweepDirectory,
        sweep: SweepFile,
        sweep_id: str,
        store: Store,
        configs: Mapping[str, Config],
        tags: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._sweep = sweep
        self._configs = configs
        self._sweep_id = sweep_id
        self._tags = dict(tags or {})
        self._store = store
        self._parent = ""
        self._runs: dict[int, str] = {}
        self._clock = clock
        self._pending: dict[int, TrialState] = {}
        self._written: dict[int, tuple[TrialState, int]] = {}
        self._progress = 0
        self._refused = False
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="projector", daemon=True)

    def start(self, states: Iterable[TrialState]) -> None:
        """Open the parent run, so that it is there from the first moment, and begin to catch up."""
        self._parent = self._store.ensure_sweep(
            self._sweep.name,
            self._sweep_id,
            {
                **self._tags,
                "objective": self._sweep.objective,
                "sweep.dir": str(self._directory.root),
            },
        )
        try:
            self._store.log_params(self._parent, flatten(self._sweep.model_dump(mode="json")))
        except Exception as error:  # a param cannot change: the number of trials may have
            _LOG.info("parameters of the sweep stay as first logged: %s", error)
        self._store.log_text(self._parent, sweep_text(self._sweep), "sweep.yaml")
        done = {
            run.tags["trial"]: run.tags.get("outcome")
            for run in self._store.trial_runs(self._sweep.name)
            if run.status in _STATUS.values()
        }
        self.update(s for s in states if done.get(str(s.number)) != s.outcome)
        self._thread.start()

    @property
    def behind(self) -> bool:
        """Whether something waits to be written, or is being written."""
        with self._changed:
            return bool(self._pending)

    def update(self, states: Iterable[TrialState]) -> None:
        """Take note of trials that have changed; returns at once."""
        with self._changed:
            for state in states:
                if state.outcome == "failed" or not self._is_known(state):  # its log may grow
                    self._pending[state.number] = state
            self._changed.notify()

    def finish_trials(self, states: Iterable[TrialState], *, interrupted: bool) -> bool:
        """Write what is left, trials still running as killed, and stop the thread.

        Returns:
            Whether MLflow has everything; False if the store stayed away.
        """
        if interrupted:
            states = [
                replace(s, outcome="killed", ended_ms=now_ms()) if s.outcome == "running" else s
                for s in states
            ]
        self.update(states)
        with self._changed:
            self._closing = True
            self._changed.notify()
        # Slow is not away: as long as it gets on with it, it may take its time.
        progress, since = self._progress, self._clock()
        while self._thread.is_alive():
            now = self._clock()  # before the progress, or what is made between would not count
            if self._progress != progress:
                progress, since = self._progress, self._clock()
            elif now - since >= self._patience_s(interrupted):
                break
            self._thread.join(0.1)
        return not self.behind and not self._thread.is_alive()

    def log_base(self, metrics: Mapping[str, float]) -> None:
        """Write the base's own scores on the sweep, as `base/valid/cer` and so on, and its texts.

        With them a report is made of what MLflow has, on whatever machine.
        """
        if metrics:
            base = {f"base/{name}": value for name, value in metrics.items()}
            self._store.log_metrics(self._parent, base)
        for path in sorted((self._directory.base / "hypotheses").glob("*.jsonl")):
            self._store.log_artifact(self._parent, path, f"{BASE_HYPOTHESES}/{path.name}")

    def log_sums(self, metrics: Mapping[str, float]) -> None:
        """Write what the sweep cost, and what pruning saved, on the sweep."""
        self._store.log_metrics(self._parent, metrics)

    def log_texts(self, texts: Mapping[str, str]) -> None:
        """Write artifacts of the sweep."""
        for name, text in texts.items():
            self._store.log_text(self._parent, text, name)

    def end(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """End the sweep's run."""
        self._store.finish(self._parent, status)

    def _is_known(self, state: TrialState) -> bool:
        """Whether a state waits, or was written with all that its trial had logged."""
        if self._pending.get(state.number) == state:
            return True
        return self._written.get(state.number) == (state, self._logged(state))

    def _logged(self, state: TrialState) -> int:
        try:
            return (self._directory.trial(state.number) / EVENTS).stat().st_size
        except OSError:
            return 0

    def _patience_s(self, interrupted: bool) -> float:
        if interrupted:
            return _INTERRUPTED_S
        return _REFUSED_S if self._refused else _SILENT_S

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closing)
                if not self._pending:
                    return
                batch = dict(self._pending)
            for number, state in sorted(batch.items()):
                logged = self._logged(state)
                try:
                    self._project(state)
                except Exception as error:
                    self._refused = not _is_silence(error)
                    _LOG.warning("MLflow is behind with trial %d: %s", number, error)
                    self._wait_for_store()
                    continue
                with self._changed:
                    self._refused = False
                    self._progress += 1
                    self._written[number] = (state, logged)
                    if self._pending.get(number) is state:
                        del self._pending[number]

    def _wait_for_store(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing, _RETRY_S)
        if self._closing:
            time.sleep(0.2)

    def _project(self, state: TrialState) -> None:
        directory = self._directory.trial(state.number)
        tags = {
            "sweep": self._sweep.name,
            "trial": str(state.number),
            "stage": state.stage,
            "baseline": "true" if state.baseline else "false",
            "trial.dir": str(directory),
            "outcome": state.outcome,
            **state.notes,
        }
        if state.reason:
            tags["outcome.reason"] = state.reason
        run_id = self._runs.get(state.number)
        if run_id is None:
            key = f"{self._sweep.name}/{state.number:03d}"
            run_id = self._runs[state.number] = self._store.ensure_run(
                kind="trial",
                name=self._name(key, state),
                key=key,
                parent=self._parent,
                tags=tags,
                started_ms=state.started_ms or None,
            )
        self._store.project(run_id, directory)
        if state.outcome == "running":
            return
        self._store.set_tags(run_id, tags)
        if state.outcome == "failed":
            self._store.log_text(run_id, failure_text(state, directory), FAILURE_LOG)
        self._store.finish(run_id, _STATUS[state.outcome], ended_ms=state.ended_ms)

    def _name(self, key: str, state: TrialState) -> str:
        """What MLflow's lists and its compare page show of a trial: `demo/007 8k lr 2.91e-3`."""
        rate = state.values.get(LR)
        if rate is None and state.stage in self._configs:
            rate = self._configs[state.stage].get(LR)
        default = " default" if state.baseline else ""
        return f"{key} {state.stage} lr {numbers.number(rate)}{default}"


def failure_text(state: TrialState, directory: Path) -> str:
    """The reason of a failure, the deaths of its workers, and the end of what the trial said."""
    said = tail(directory / TRIAL_LOG, _LAST_LINES)
    parts = [f"trial {state.number}: {state.reason}", *(f"death: {d}" for d in deaths(directory))]
    parts += ["", f"the last {len(said)} lines of {TRIAL_LOG}:", *said]
    return "\n".join(parts) + "\n"


def open_store(environment: Mapping[str, str]) -> Store:
    """Open the store that an environment names: under `mlflow run`, where the inherited run lies.

    Raises:
        UserError: The store cannot be opened.
    """
    # The projector tries again by itself; a client that does so for minutes would hold up the end.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    # MLflow prints the store's URI with every run that ends, its password with it.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    return Store.open(environment=environment)


def _is_silence(error: BaseException | None) -> bool:
    """Whether a store gave no answer: a server that is not there, a database that is locked."""
    from requests.exceptions import ConnectionError, Timeout

    while error is not None:
        if isinstance(error, ConnectionError | Timeout) or "database is locked" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
