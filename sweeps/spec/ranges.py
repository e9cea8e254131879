"""The values that one key may take in a search: a range, or choices.

Range(low=1e-5, high=1e-4, log=True).contains(5e-5)
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

Value = bool | int | float | str | list[Any] | None


class Part(BaseModel):
    """A part of a sweep file: frozen, strictly typed, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def tuple_of(kind: Any) -> Any:
    """A YAML list as a tuple; its items stay strictly typed."""
    return Annotated[tuple[kind, ...], Field(strict=False)]


class Range(Part):
    """The values one key may take: `{low, high, log, step, points}` or `{choices}`."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: tuple_of(Value) | None = None  # type: ignore[valid-type]
    points: Annotated[int, Field(ge=2)] | None = None
    """How many values of a continuous range a grid takes, both ends among them."""

    def problem(self) -> str | None:
        """Say what is wrong with the range by itself, if anything."""
        if self.choices is not None:
            others = (self.low, self.high, self.step, self.points)
            if self.log or any(other is not None for other in others):
                return (
                    "got choices beside low, high, log, step or points, expected one or the other"
                )
            if not self.choices or len({label(c) for c in self.choices}) < len(self.choices):
                return f"got choices={list(self.choices)}, expected at least one, each once"
            return None
        if self.low is None or self.high is None:
            return "got a range without ends, expected low and high, or choices"
        if not self.low < self.high:
            return f"got low={self.low}, high={self.high}, expected low < high"
        if self.log and self.low <= 0:
            return f"got low={self.low} with log: true, expected low > 0"
        if self.step is not None and (self.log or self.step <= 0):
            return f"got step={self.step}, expected a positive step and no log: true"
        if self.step is not None and not _is_near((self.high - self.low) / self.step):
            return f"got step={self.step}, expected one that leads from {self.low} to {self.high}"
        if self.step is not None and self.points is not None:
            return f"got points={self.points} beside step={self.step}, expected one of them"
        return None

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values to check a configuration with: both ends, or every choice."""
        return tuple(self.choices) if self.choices is not None else (self.low, self.high)

    def contains(self, value: Value) -> bool:
        """Whether the search could draw this value."""
        if self.choices is not None:
            return any(label(value) == label(choice) for choice in self.choices)
        if not isinstance(value, int | float) or self.low is None or self.high is None:
            return False
        inside = self.low <= value <= self.high
        if inside and self.step is not None:
            return _is_near((value - self.low) / self.step)
        return inside

    def grid(self, *, whole: bool) -> tuple[Value, ...] | None:
        """Every value that a grid tries; None if there is no end to them."""
        if self.choices is not None:
            return tuple(self.choices)
        assert self.low is not None
        assert self.high is not None
        low, high = self.low, self.high
        if self.points is not None:
            shares = [index / (self.points - 1) for index in range(self.points)]
            if self.log:
                values = [low * (high / low) ** share for share in shares]
            else:
                values = [low + (high - low) * share for share in shares]
            values[-1] = high
            # Rounded as people write them: 0.0003 and not 0.00030000000000000003.
            rounded = [round(v) if whole else float(f"{v:.6g}") for v in values]
            return tuple(dict.fromkeys(rounded))
        step = self.step if self.step is not None else 1 if whole else None
        if step is None:
            return None
        count = round((high - low) / step) + 1
        return tuple(
            int(low + i * step) if whole else float(f"{low + i * step:.12g}") for i in range(count)
        )

    def distribution(self, *, whole: bool) -> BaseDistribution:
        """The same in Optuna's terms."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if self.choices is not None:
            return CategoricalDistribution([label(choice) for choice in self.choices])
        assert self.low is not None
        assert self.high is not None
        if whole:
            step = 1 if self.step is None else int(self.step)
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=step)
        return FloatDistribution(float(self.low), float(self.high), log=self.log, step=self.step)

    def draw(self, trial: BaseTrial, name: str, *, whole: bool) -> Value:
        """Let Optuna choose a value under this name."""
        if self.choices is not None:
            by_label = {label(choice): choice for choice in self.choices}
            chosen: Value = by_label[trial.suggest_categorical(name, list(by_label))]
            return chosen
        assert self.low is not None
        assert self.high is not None
        if whole:
            step = 1 if self.step is None else int(self.step)
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log, step=step)
        return trial.suggest_float(
            name, float(self.low), float(self.high), log=self.log, step=self.step
        )


def _is_near(steps: float) -> bool:
    """Whether a number of steps is whole, but for rounding."""
    return math.isclose(steps, round(steps), abs_tol=1e-9)


def label(choice: Any) -> Any:
    """Optuna's categories are plain values; a list stands there as its JSON text."""
    return json.dumps(choice) if isinstance(choice, list) else choice
