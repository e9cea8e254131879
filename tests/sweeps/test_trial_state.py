"""What is known of a trial at a moment: how far it is, and how good."""

from __future__ import annotations

import pytest

from sweeps.trial_state import TrialState

pytestmark = pytest.mark.quick


def state(curve: dict[int, float], objective: float | None = None) -> TrialState:
    """A trial of four epochs."""
    return TrialState(7, "8k", False, 4, {}, curve=curve, objective=objective)


def test_a_trial_that_still_loads_has_no_epoch_and_no_value() -> None:
    assert state({}).epoch is None
    assert state({}).best is None


def test_the_untrained_model_is_epoch_0_and_never_the_best() -> None:
    loaded = state({0: 0.1})
    assert (loaded.epoch, loaded.best) == (0, None)
    assert state({0: 0.1, 1: 0.4, 2: 0.3, 3: 0.5}).best == 0.3


def test_the_objective_once_known_is_the_best() -> None:
    """It may be that of an average of checkpoints, better or worse than any epoch's."""
    done = state({0: 0.9, 1: 0.4, 4: 0.3}, objective=0.31)
    assert (done.epoch, done.best) == (4, 0.31)
