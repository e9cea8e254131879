"""Whole sweeps without training: our sampler and pruner on curves that were recorded.

Between the points of the grid the curves are interpolated, on logarithmic axes, so that nothing
found is better than the grid's best point. A trial's objective is that of its best epoch; trials
run one after the other until their epochs are spent.
"""

from __future__ import annotations

import bisect
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from sweeps.search.pruner import should_prune
from sweeps.search.samplers import Known, draw, grid
from sweeps.spec.sweep_file import DEMO, Choice, Pruning, Range, SweepFile

_SEEDS_FOR_NOISE = 3


class Point(NamedTuple):
    """What was trained."""

    stage: str
    lr: float
    weight_decay: float


@dataclass(frozen=True)
class Landscape:
    """CER before training and after each epoch, at the points of a grid."""

    curves: Mapping[Point, Sequence[float]]
    """Of each point of the grid, the mean over its seeds where it was trained with several."""
    noise: float = 0.0
    """Standard deviation of a good point's best CER between seeds."""

    @classmethod
    def read(cls, path: Path) -> Landscape:
        """Read what `landscape` recorded."""
        by_point: dict[Point, list[list[float]]] = {}
        for entry in json.loads(path.read_text(encoding="utf-8")):
            point = Point(entry["stage"], entry["lr"], entry["weight_decay"])
            by_point.setdefault(point, []).append(entry["curve"])
        variances = [
            statistics.variance(min(curve[1:]) for curve in curves)
            for curves in by_point.values()
            if len(curves) >= _SEEDS_FOR_NOISE
        ]
        means = {
            point: [statistics.fmean(values) for values in zip(*curves, strict=True)]
            for point, curves in by_point.items()
        }
        return cls(means, math.sqrt(statistics.fmean(variances)) if variances else 0.0)

    @property
    def epochs(self) -> int:
        """Epochs of each point."""
        return len(next(iter(self.curves.values()))) - 1

    @property
    def grid_epochs(self) -> int:
        """What the whole grid cost."""
        return self.epochs * len(self.curves)

    @property
    def best(self) -> float:
        """The lowest CER of the grid."""
        return min(min(curve[1:]) for curve in self.curves.values())

    def curve(self, stage: str, lr: float, weight_decay: float) -> list[float]:
        """The curve at a point, between those of the grid's points around it."""
        rates = sorted({point.lr for point in self.curves})
        decays = sorted({point.weight_decay for point in self.curves})
        corners = [
            (a * b, self.curves[Point(stage, rate, decay)])
            for rate, a in _between(rates, lr)
            for decay, b in _between(decays, weight_decay)
        ]
        return [
            sum(share * corner[epoch] for share, corner in corners)
            for epoch in range(self.epochs + 1)
        ]


@dataclass(frozen=True)
class Method:
    """A way of searching."""

    sampler: str
    pruning: str = "none"
    epochs: tuple[int, ...] = (4, 6, 8)
    """What a trial's number of epochs is chosen from, as in conf/sweep/demo.yaml."""


LONGEST = (8,)
METHODS = {
    "TPE with pruning": Method("tpe", "successive_halving"),
    "TPE": Method("tpe"),
    "random with pruning": Method("random", "successive_halving"),
    "random": Method("random"),
    "TPE with pruning, 8 epochs": Method("tpe", "successive_halving", LONGEST),
    "TPE, 8 epochs": Method("tpe", "none", LONGEST),
    "random with pruning, 8 epochs": Method("random", "successive_halving", LONGEST),
    "random, 8 epochs": Method("random", "none", LONGEST),
    "coarse grid, 8 epochs": Method("grid", "none", LONGEST),
}
_DEFAULT = {"optim_conf.lr": 1e-3, "optim_conf.weight_decay": 0.01, "train_conf.max_epoch": 6}


@dataclass(frozen=True)
class Found:
    """What a simulated sweep came to.

    Attributes:
        best: Its best completed objective.
        trials: Trials that it began.
        asked: Epochs that they would have had without pruning.
        trained: Epochs that they had.
    """

    best: float
    trials: int
    asked: int
    trained: int


def run_many(
    landscape: Landscape, method: Method, epochs: int, seeds: Iterable[int]
) -> list[Found]:
    """A sweep for each seed."""
    return [simulate(landscape, method, epochs, seed) for seed in seeds]


def simulate(landscape: Landscape, method: Method, epochs: int, seed: int) -> Found:
    """Run a sweep, every stage's default config first, until its epochs are spent."""
    sweep = _sweep(landscape, method, epochs, seed)
    trials: list[Known] = []
    curves: dict[int, Mapping[int, float]] = {}
    defaults = [Choice(stage, _DEFAULT) for stage in sweep.stages]
    asked = spent = 0
    last = len(defaults) + len(grid(sweep)) if method.sampler == "grid" else epochs
    while spent < epochs and len(trials) < last:
        number = len(trials)
        baseline = number < len(defaults)
        drawn = number - len(defaults)
        choice = defaults[number] if baseline else draw(sweep, trials, number, drawn)
        length = choice.values["train_conf.max_epoch"]
        assert isinstance(length, int)
        asked += length
        whole = _learning_curve(landscape, choice)
        curve: dict[int, float] = {}
        for epoch in range(1, length + 1):
            curve[epoch] = whole[epoch]
            spent += 1
            pruned = not baseline and should_prune(curve, curves, epoch, sweep.pruning)
            if epoch < length and (pruned or spent >= epochs):
                break
        curves[number] = curve
        done = len(curve) == length
        objectives = (min(curve.values()),) if done else ()
        outcome: Literal["completed", "pruned"] = "completed" if done else "pruned"
        trials.append(Known(choice.stage, choice.values, outcome, objectives, curve))
    best = min((t.objectives[0] for t in trials if t.objectives), default=math.inf)
    return Found(best, len(trials), asked, spent)


def _learning_curve(landscape: Landscape, choice: Choice) -> list[float]:
    lr, decay = choice.values["optim_conf.lr"], choice.values["optim_conf.weight_decay"]
    assert isinstance(lr, float)
    assert isinstance(decay, float)
    return landscape.curve(choice.stage, lr, decay)


def _sweep(landscape: Landscape, method: Method, epochs: int, seed: int) -> SweepFile:
    """The demonstration's search; a grid of as many learning rates as there are epochs for."""
    rates = [point.lr for point in landscape.curves]
    decays = [point.weight_decay for point in landscape.curves]
    stages = tuple(dict.fromkeys(point.stage for point in landscape.curves))
    lr = Range(low=min(rates), high=max(rates), log=True)
    decay = Range(low=min(decays), high=max(decays), log=True)
    if method.sampler == "grid":
        left = epochs - len(stages) * _DEFAULT["train_conf.max_epoch"]
        points = max(2, int(left // (len(stages) * max(method.epochs))))
        lr = lr.model_copy(update={"points": points})
        decay = Range(choices=(_DEFAULT["optim_conf.weight_decay"],))
    return SweepFile(
        name="simulated",
        base="nowhere",
        data=DEMO,
        stages=stages,
        space={
            "optim_conf.lr": lr,
            "optim_conf.weight_decay": decay,
            "train_conf.max_epoch": Range(choices=method.epochs),
        },
        trials=10_000,
        seed=seed,
        sampler=method.sampler,  # type: ignore[arg-type]
        pruning=Pruning(method=method.pruning),  # type: ignore[arg-type]
    )


def _between(values: Sequence[float], value: float) -> list[tuple[float, float]]:
    """The two neighbours of a value with their shares, on a logarithmic axis."""
    if value <= values[0]:
        return [(values[0], 1.0)]
    if value >= values[-1]:
        return [(values[-1], 1.0)]
    right = bisect.bisect_right(values, value)
    low, high = values[right - 1], values[right]
    share = math.log(value / low) / math.log(high / low)
    return [(low, 1 - share), (high, share)]
