"""Ray Tune's searcher over the sweep's study: Tune asks for work, the ledger hands it out and
books it.

An exception in a searcher's or scheduler's callback would be booked by Tune as a trial's failure
and retried; here it ends the run instead (`Aborted` is not an `Exception`), and the study is as
after a crash: the same command goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from sweeps.search.ledger import Ledger
from sweeps.trial_state import TrialState


class Aborted(BaseException):
    """The record cannot be kept (a full disk, a lost database); the cause is attached."""


class StudySearcher(Searcher):
    """Hands the ledger's trials to Tune, at most so many at once.

    Args:
        ledger: The sweep's study.
        concurrency: Trials under way at once.
        on_change: Called with a trial whose state is new.
    """

    def __init__(
        self, ledger: Ledger, concurrency: int, on_change: Callable[[TrialState], None]
    ) -> None:
        super().__init__()
        self._ledger = ledger
        self._concurrency = concurrency
        self._on_change = on_change
        self._numbers: dict[str, int] = {}  # by Tune's id, while under way

    def suggest(self, trial_id: str) -> Any:
        """Give Tune a trial's number; None while enough are under way, or must end first."""
        if len(self._numbers) >= self._concurrency:
            return None
        try:
            while (state := self._ledger.ask()) is not None:
                self._on_change(state)
                if state.outcome == "running":
                    self._numbers[trial_id] = state.number
                    return {"trial": state.number}
            return str(Searcher.FINISHED) if self._ledger.exhausted else None
        except Exception as error:
            raise Aborted from error

    def record(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Book what a trial reports.

        Returns:
            Whether the trial goes on.
        """
        number = self._numbers.get(trial_id)
        if number is None:  # told already; Tune repeats a last result
            return False
        try:
            goes_on = self._book(number, result)
        except Exception as error:
            raise Aborted from error
        if not goes_on:
            del self._numbers[trial_id]
        self._on_change(self._ledger.state(number))
        return goes_on

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Book the end of a trial that could not report it: its process died too often."""
        number = self._numbers.pop(trial_id, None)
        if number is None:
            return
        why = "the worker's process died" if error else "the worker ended without a result"
        try:
            self._ledger.tell(number, "failed", reason=f"{why}; see trial.log")
        except Exception as failure:
            raise Aborted from failure
        self._on_change(self._ledger.state(number))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the study, an open database, when Tune pickles its own configuration."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: a sweep goes on with a new searcher over the same study."""

    def _book(self, number: int, result: dict[str, Any]) -> bool:
        if "outcome" in result:
            self._ledger.tell(
                number,
                result["outcome"],
                objective=result.get("objective"),
                metrics=result.get("metrics"),
                reason=result.get("reason", ""),
            )
            return False
        epoch, finished = result["epoch"], result["finished"]
        self._ledger.report(number, epoch, result["value"])
        if self._ledger.prunes(number, epoch, finished=finished):
            self._ledger.tell(number, "pruned")
            return False
        return finished or not self._ledger.end_with_sweep(number)
