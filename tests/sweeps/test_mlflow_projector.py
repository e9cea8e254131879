"""How long a sweep's end waits for MLflow, by a clock that only the store moves."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from analysis.facts.comparison import LR
from sweeps.directory import SweepDirectory
from sweeps.mlflow_projector import Projector
from sweeps.spec.sweep_file import load_sweep
from sweeps.trial_state import TrialState

pytestmark = pytest.mark.quick

STATES = [TrialState(n, "8k", False, 3, {LR: 1e-3}, outcome="completed") for n in range(6)]


class FakeStore:
    """A store whose every answer takes `takes_s`, and that fails as often as `failures` says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.takes_s = 0.0
        self.failures: Iterator[Exception] = iter(())
        self.written: list[str] = []
        self.ends: dict[str, str] = {}

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
    clock = lambda: store.now  # noqa: E731
    return Projector(directory, sweep, "id", store, {}, clock=clock)  # type: ignore[arg-type]


def test_a_store_that_answers_slowly_gets_all_the_time_it_takes(
    projector: Projector, store: FakeStore
) -> None:
    store.takes_s = 200
    projector.start(STATES)
    assert projector.finish_trials([replace(s) for s in STATES], interrupted=False)
    assert store.now == 200 * len(STATES)  # what was under way is not written a second time
    assert set(store.ends.values()) == {"FINISHED"}


def test_a_server_that_is_started_again_is_waited_for(
    projector: Projector, store: FakeStore
) -> None:
    store.takes_s = 70
    store.failures = iter([requests.ConnectionError("refused"), requests.Timeout("none")])
    projector.start(STATES[:1])
    assert projector.finish_trials(STATES[:1], interrupted=False)


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
        store.takes_s = 0
        yield from itertools.repeat(error, 100)
        store.takes_s = 10_000  # it should have been given up long ago
        yield from itertools.repeat(error)

    store.takes_s, store.failures = patience_s, fail()
    projector.start(STATES[:1])
    assert not projector.finish_trials(STATES[:1], interrupted=interrupted)
    assert store.now == patience_s
    store.failures = iter(())  # its thread ends


def test_an_interrupted_trial_is_written_as_killed(projector: Projector, store: FakeStore) -> None:
    running = replace(STATES[0], outcome="running")
    projector.start([running])
    assert projector.finish_trials([running], interrupted=True)
    assert list(store.ends.values()) == ["KILLED"]
