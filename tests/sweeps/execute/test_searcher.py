"""Tune's searcher over the study: what it hands out, and what it books."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.directory import SweepDirectory
from sweeps.execute.searcher import Aborted, StudySearcher
from sweeps.search.ledger import Ledger
from sweeps.trial_state import TrialState
from tests.sweeps.study_kit import driver

pytestmark = pytest.mark.quick

Searching = tuple[StudySearcher, Ledger, list[TrialState]]


@pytest.fixture
def searching(place: Path) -> Searching:
    """A searcher of three trials, two at once; its ledger; the changes that it told."""
    ledger = driver("trials=3", "stages=[8k, s1, s2]")
    changes: list[TrialState] = []
    return StudySearcher(ledger, 2, changes.append), ledger, changes


def test_it_hands_out_so_many_at_once_and_says_when_it_is_enough(searching: Searching) -> None:
    searcher, ledger, _ = searching
    assert [searcher.suggest(name) for name in "abc"] == [{"trial": 0}, {"trial": 1}, None]
    done = {"outcome": "completed", "objective": 0.3, "metrics": {"valid/cer": 0.3}}
    assert not searcher.record("a", done)
    assert searcher.suggest("c") == {"trial": 2}
    for name in "bc":
        assert not searcher.record(name, done)
    assert searcher.suggest("d") == StudySearcher.FINISHED
    assert ledger.finished


def test_each_epoch_is_booked_and_told(searching: Searching) -> None:
    searcher, ledger, changes = searching
    searcher.suggest("a")
    assert searcher.record("a", {"epoch": 0, "value": 0.9, "finished": False})
    assert searcher.record("a", {"epoch": 1, "value": 0.5, "finished": False})
    assert ledger.state(0).curve == {0: 0.9, 1: 0.5}
    assert [change.epoch for change in changes] == [None, 0, 1]
    assert not searcher.record("a", {"outcome": "failed", "reason": "MemoryError: 80 GB"})
    assert (changes[-1].outcome, changes[-1].reason) == ("failed", "MemoryError: 80 GB")
    assert not searcher.record("a", {"epoch": 2, "value": 0.1, "finished": False})
    assert ledger.state(0).curve == {0: 0.9, 1: 0.5}, "Tune repeats a last result"


def test_a_trial_whose_process_died_has_failed(searching: Searching) -> None:
    searcher, ledger, changes = searching
    searcher.suggest("a")
    searcher.on_trial_complete("a", error=True)
    assert ledger.state(0).reason == "the worker's process died; see trial.log"
    assert changes[-1].outcome == "failed"
    searcher.on_trial_complete("a", error=True)  # told already
    assert len(changes) == 2


def test_a_record_that_cannot_be_kept_ends_the_run(
    searching: Searching,
) -> None:
    """An ordinary exception Tune would take for a failure of the trial."""
    searcher, _, _ = searching
    searcher.suggest("a")
    SweepDirectory.of("tiny").study.write_bytes(b"no database")
    with pytest.raises(Aborted) as caught:
        searcher.record("a", {"epoch": 0, "value": 0.9, "finished": False})
    assert isinstance(caught.value.__cause__, Exception)
    assert not isinstance(caught.value, Exception)
