"""What is known of a trial at a moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["running", "completed", "pruned", "failed", "killed"]


FINAL = frozenset({"completed", "pruned", "failed"})


REPLICATE_OF = "replicate.of"
"""Note of a trial that repeats another with a different seed: that one's number."""


ANSWERED_FROM = "answered.from"
"""Note of a trial that is the first part of another and was not trained: that one's number, for a
trial of another sweep with that sweep's name before it (`calls/7`)."""


WENT_ON_FROM = "went_on.from"
"""Note of a trial whose first epochs another had trained: that one, as for `answered.from`."""


WENT_ON_AFTER = "went_on.after"
"""Note of such a trial: how many epochs those were."""


ENDED_BY = "ended.by"
"""Note of a trial that ended, as pruned, with the sweep: which goal or budget was reached."""


@dataclass(frozen=True)
class TrialState:
    """What is known of one trial at a moment; `values` are those of the searched keys."""

    number: int
    stage: str
    baseline: bool
    epochs: int
    values: Mapping[str, Any]
    curve: Mapping[int, float] = field(default_factory=dict)
    outcome: Outcome = "running"
    reason: str = ""
    objective: float | None = None
    started_ms: int = 0
    ended_ms: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What else the search looks at, of the checkpoint that would be exported."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Tags of its own, for tables and MLflow: `replicate.of`, `answered.from` and so on."""

    @property
    def epoch(self) -> int | None:
        """The last epoch that was evaluated; None while data and weights are being loaded."""
        return max(self.curve, default=None)

    @property
    def best(self) -> float | None:
        """The objective, or until it is known the best value after an epoch of training."""
        trained = [value for epoch, value in self.curve.items() if epoch > 0]
        return self.objective if self.objective is not None else min(trained, default=None)
