"""A sweep as MLflow shows it: whatever happens to the store, it ends up with what is on record."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from analysis.facts.comparison import LR
from conf.errors import UserError
from sweeps import mlflow_projector
from sweeps.directory import SweepDirectory
from sweeps.execute.deaths import note_death
from sweeps.mlflow_projector import Projector, failure_text, open_store
from sweeps.spec.sweep_file import load_sweep, stage_configs
from sweeps.trial_state import TrialState
from trainer.tracking.event_log import EventLog
from trainer.tracking.mlflow_store import Store

STATES = [TrialState(n, "8k", False, 3, {LR: 1e-3}, outcome="completed") for n in range(6)]


class FakeStore:
    """A store whose every answer takes `takes_s`, and that fails as often as `failures` says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = threading.Event()
        self.takes_s = 0.0
        self.failures: Iterator[Exception] = iter(())
        self.written: list[str] = []
        self.ends: dict[str, str] = {}

    def clock(self) -> float:
        self.asked.set()
        return self.now

    def ensure_sweep(self, *_: Any) -> str:
        return "parent"

    def ensure_run(self, *, key: str, **_: Any) -> str:
        return key

    def trial_runs(self, _: str) -> tuple[()]:
        return ()

    def project(self, run_id: str, _: Path) -> None:
        self.now += self.takes_s
        for error in self.failures:
            raise RuntimeError("API request failed") from error
        self.written.append(run_id)

    def finish(self, run_id: str, status: str, **_: Any) -> None:
        self.ends[run_id] = status

    def log_params(self, *_: Any) -> None: ...

    def log_text(self, *_: Any) -> None: ...

    def set_tags(self, *_: Any) -> None: ...


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def projector(place: Path, store: FakeStore) -> Projector:
    sweep, _ = load_sweep(Path("sweep.yaml"))
    directory = SweepDirectory.of(sweep.name)
    return Projector(directory, sweep, "id", store, {}, clock=store.clock)  # type: ignore[arg-type]


@pytest.mark.quick
def test_a_store_that_answers_slowly_gets_all_the_time_it_takes(
    projector: Projector, store: FakeStore
) -> None:
    store.takes_s = 200
    projector.start(STATES)
    assert projector.finish_trials([replace(s) for s in STATES], interrupted=False)
    assert store.now == 200 * len(STATES)  # what was under way is not written a second time
    assert set(store.ends.values()) == {"FINISHED"}


@pytest.mark.quick
def test_a_server_that_is_started_again_is_waited_for(
    projector: Projector, store: FakeStore
) -> None:
    store.takes_s = 70
    store.failures = iter([requests.ConnectionError("refused"), requests.Timeout("none")])
    projector.start(STATES[:1])
    assert projector.finish_trials(STATES[:1], interrupted=False)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("error", "interrupted", "patience_s"),
    [
        (requests.ConnectionError("refused"), False, 240),
        (RuntimeError("database is locked"), False, 240),
        (RuntimeError("No such experiment"), False, 30),
        (requests.ConnectionError("refused"), True, 6),
    ],
)
def test_a_store_that_stays_away_is_given_up(
    projector: Projector, store: FakeStore, error: Exception, interrupted: bool, patience_s: float
) -> None:
    def fail() -> Iterator[Exception]:
        store.asked.wait()  # until somebody waits for the store
        store.now = patience_s
        yield from itertools.repeat(error, 100)
        store.takes_s = 10_000  # it should have been given up long ago
        yield from itertools.repeat(error)

    store.failures = fail()
    projector.start(STATES[:1])
    assert not projector.finish_trials(STATES[:1], interrupted=interrupted)
    assert store.now == patience_s
    store.failures = iter(())  # its thread ends


@pytest.mark.quick
def test_an_interrupted_trial_is_written_as_killed(projector: Projector, store: FakeStore) -> None:
    running = replace(STATES[0], outcome="running")
    projector.start([running])
    assert projector.finish_trials([running], interrupted=True)
    assert list(store.ends.values()) == ["KILLED"]


class Moody:
    """A store that does not answer while it is `away`."""

    def __init__(self, store: Store) -> None:
        self.away = False
        self._store = store

    def __getattr__(self, name: str) -> Any:
        if self.away:
            raise OSError("no answer")
        return getattr(self._store, name)


def state(number: int, **fields: Any) -> TrialState:
    """A trial of stage 8k with a learning rate of its own."""
    known = {"baseline": False, "epochs": 2, "values": {"optim_conf.lr": 2.91e-3}}
    return TrialState(number, "8k", **{**known, **fields})


def projector_of(store: Any) -> Projector:
    """That of the sweep in the working directory."""
    sweep, places = load_sweep(Path("sweep.yaml"), overrides=["stages=[8k]"])
    return Projector(
        SweepDirectory.of("tiny"), sweep, "id", store, stage_configs(sweep, places), {"by": "hand"}
    )


def test_a_store_that_was_away_is_brought_up_to_date(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_projector, "_RETRY_S", 0.01)
    monkeypatch.setattr(mlflow_projector, "_INTERRUPTED_S", 0.1)
    store = Moody(open_store({}))
    directory = SweepDirectory.of("tiny")
    states = [
        state(0, baseline=True, outcome="completed", ended_ms=5000, objective=0.3),
        state(1, outcome="failed", ended_ms=6000, reason="MemoryError: 80 GB"),
        state(2, notes={"went_on.from": "0"}),
    ]
    for each in states:
        directory.trial(each.number).mkdir(parents=True)
        EventLog(directory.trial(each.number)).log_metrics({"valid/cer": 0.3}, step=10)

    first = projector_of(store)
    first.start([])
    store.away = True
    first.update(states)
    assert first.behind
    assert not first.finish_trials(states, interrupted=True), "a store that is away is waited for"
    store.away = False
    first._thread.join()  # it goes on trying for as long as the process lives

    runs = store.trial_runs("tiny")
    assert [run.status for run in runs] == ["FINISHED", "FAILED", "KILLED"]
    assert [run.tags["outcome"] for run in runs] == ["completed", "failed", "killed"]
    assert [run.ended_ms for run in runs[:2]] == [5000, 6000]
    assert runs[0].name == "tiny/000 8k lr 2.91e-3 default"
    assert runs[1].tags["outcome.reason"] == "MemoryError: 80 GB"
    assert runs[2].tags["went_on.from"] == "0"
    parent = store.sweep_run("tiny")
    assert parent.tags["by"] == "hand"
    assert {run.tags["mlflow.parentRunId"] for run in runs} == {parent.run_id}
    assert [p.value for p in store.history(runs[2].run_id, "valid/cer")] == [0.3]

    # The next driver's trials are those runs, and what they have since become.
    second = projector_of(store)
    done = [*states[:2], replace(states[2], outcome="completed", ended_ms=7000)]
    second.start(done)
    assert second.finish_trials(done, interrupted=False)
    again = store.trial_runs("tiny")
    assert [run.run_id for run in again] == [run.run_id for run in runs]
    assert [run.status for run in again] == ["FINISHED", "FAILED", "FINISHED"]


@pytest.mark.quick
def test_a_failure_says_why_and_what_the_trial_said_last(tmp_path: Path) -> None:
    note_death(tmp_path, "the worker's process died")
    (tmp_path / "trial.log").write_text("".join(f"line {number}\n" for number in range(60)))
    text = failure_text(state(1, reason="MemoryError: 80 GB"), tmp_path).splitlines()
    assert text[0] == "trial 1: MemoryError: 80 GB"
    assert text[1] == "death: the worker's process died"
    assert text[3] == "the last 50 lines of trial.log:"
    assert text[4:] == [f"line {number}" for number in range(10, 60)]


@pytest.mark.quick
def test_a_store_that_cannot_be_opened_is_one_line(place: Path) -> None:
    (place / "mlflow.db").write_text("nothing of the kind" * 100)
    with pytest.raises(UserError) as caught:
        open_store({})
    [line] = caught.value.problems
    assert line.startswith("MLflow store")
