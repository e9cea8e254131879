"""Whole sweeps without training: our sampler and pruner on curves that were recorded.

Between the points of the grid the curves are interpolated, on logarithmic axes. A trial's objective
is that of its best epoch; trials run one after the other until their epochs are spent.
"""

from __future__ import annotations

import bisect
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps.pruner import should_prune
from sweeps.samplers import Known, draw
from sweeps.space import DEMO, Choice, Pruning, Range, SweepFile


@dataclass(frozen=True)
class Point:
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
    """Standard deviation of a point's best CER between seeds."""

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
            if len(curves) > 1
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
    pruning: str
    startup_trials: int = 6


METHODS = {
    "TPE with pruning": Method("tpe", "successive_halving"),
    "TPE": Method("tpe", "none"),
    "random with pruning": Method("random", "successive_halving"),
    "random": Method("random", "none"),
}


def run_many(landscape: Landscape, method: Method, epochs: int, seeds: int) -> list[float]:
    """The best objective of a sweep for each seed."""
    return [simulate(landscape, method, epochs, seed) for seed in range(seeds)]


def simulate(landscape: Landscape, method: Method, epochs: int, seed: int) -> float:
    """Run a sweep until its epochs are spent; its best completed objective."""
    sweep = _sweep(landscape, method, seed)
    trials: list[Known] = []
    curves: dict[int, Mapping[int, float]] = {}
    spent = 0
    while spent < epochs:
        number = len(trials)
        if number < len(sweep.stages):  # the default configs, which are not pruned
            values = {"optim_conf.lr": 1e-3, "optim_conf.weight_decay": 0.01}
            choice = Choice(sweep.stages[number], {**values, "train_conf.max_epoch": 6})
        else:
            choice = draw(sweep, trials, number, number)
        curve: dict[int, float] = {}
        outcome = "pruned"
        for epoch, value in _course(landscape, choice):
            curve[epoch] = value
            spent += 1
            last = epoch == choice.values["train_conf.max_epoch"]
            if last:
                outcome = "completed"
            elif spent >= epochs or (
                number >= len(sweep.stages) and should_prune(curve, curves, epoch, sweep.pruning)
            ):
                break
        curves[number] = curve
        done = outcome == "completed"
        objectives = (min(curve.values()),) if done else ()
        trials.append(Known(choice.stage, choice.values, outcome, objectives, curve))  # type: ignore[arg-type]
    return min((t.objectives[0] for t in trials if t.objectives), default=math.inf)


def _course(landscape: Landscape, choice: Choice) -> Iterator[tuple[int, float]]:
    lr, decay = choice.values["optim_conf.lr"], choice.values["optim_conf.weight_decay"]
    epochs = choice.values["train_conf.max_epoch"]
    assert isinstance(lr, float)
    assert isinstance(decay, float)
    assert isinstance(epochs, int)
    curve = landscape.curve(choice.stage, lr, decay)
    yield from ((epoch, curve[epoch]) for epoch in range(1, epochs + 1))


def _sweep(landscape: Landscape, method: Method, seed: int) -> SweepFile:
    rates = [point.lr for point in landscape.curves]
    decays = [point.weight_decay for point in landscape.curves]
    return SweepFile(
        name="simulated",
        base="nowhere",
        data=DEMO,
        stages=tuple(dict.fromkeys(point.stage for point in landscape.curves)),
        space={
            "optim_conf.lr": Range(low=min(rates), high=max(rates), log=True),
            "optim_conf.weight_decay": Range(low=min(decays), high=max(decays), log=True),
            "train_conf.max_epoch": Range(choices=(4, 6, 8)),
        },
        trials=10_000,
        seed=seed,
        sampler=method.sampler,  # type: ignore[arg-type]
        startup_trials=method.startup_trials,
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
