"""What an earlier sweep knows that a new one can use: its results, or where to look first.

    start = read_warm_start(sweep, configs)
    start.known    # results that the sampler learns from, as if they were this sweep's
    start.points   # values of the earlier sweep's best trials, which are tried first

Results hold only for what was the same: base, data and objective, and every key that the new sweep
does not search. Values to try first may come from anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from conf.errors import ConfigError
from conf.load import PATHS, Config
from sweeps.directory import SweepDirectory
from sweeps.search.finalists import best_first, resolve_bounds
from sweeps.search.samplers import Known, known
from sweeps.search.study import read_states
from sweeps.spec.sweep_file import Choice, Places, SweepFile, load_sweep, stage_configs
from sweeps.trial_state import TrialState

_MUST_AGREE = ("base", "data", "objective", "beside", "at_most")


@dataclass(frozen=True)
class WarmStart:
    """What is taken from an earlier sweep; kept in the study, so that it stays what it was."""

    known: tuple[Known, ...] = ()
    points: tuple[Choice, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        points = [{"stage": point.stage, "values": dict(point.values)} for point in self.points]
        return {"known": [one.as_dict() for one in self.known], "points": points}

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> WarmStart:
        """Read what `as_dict` gave."""
        return cls(
            tuple(Known.of_dict(one) for one in values["known"]),
            tuple(Choice(point["stage"], point["values"]) for point in values["points"]),
        )


def check_warm_start(sweep: SweepFile, configs: Mapping[str, Config], places: Places) -> None:
    """Check that the earlier sweep can be used; one that has been read before need not be there.

    Raises:
        ConfigError: It cannot; the message has the sweep file's line.
    """
    if sweep.warm_start is None or SweepDirectory.of(sweep.name).study.exists():
        return
    try:
        read_warm_start(sweep, configs)
    except ConfigError as error:
        where = places.where("warm_start")
        raise ConfigError([f"{where}: {problem}" for problem in error.problems]) from None


def read_warm_start(sweep: SweepFile, configs: Mapping[str, Config]) -> WarmStart:
    """Read the earlier sweep that a sweep file names.

    Args:
        sweep: The new sweep.
        configs: Its default config per stage.

    Raises:
        ConfigError: There is none, it is of something else, or nothing of it fits.
    """
    wish = sweep.warm_start
    if wish is None:
        return WarmStart()
    directory = SweepDirectory.of(wish.sweep)
    if wish.sweep == sweep.name or not (directory.study.exists() and directory.sweep_yaml.exists()):
        raise ConfigError(
            f"warm_start: got {wish.sweep!r}, expected another sweep in {directory.root.parent}"
        )
    earlier, places = load_sweep(directory.sweep_yaml)
    states = read_states(directory.study, earlier.name)
    bounds = resolve_bounds(earlier, directory.base_metrics())
    if wish.best is not None:
        best = best_first(states, earlier, bounds)[: wish.best]
        return WarmStart(points=_points(best, sweep))
    if different := _differences(sweep, earlier):
        raise ConfigError(different)
    fitting = _comparable(states, sweep, configs, stage_configs(earlier, places))
    return WarmStart(known=tuple(known(fitting, sweep, bounds)))


def _points(best: Iterable[TrialState], sweep: SweepFile) -> tuple[Choice, ...]:
    """The values of the keys that are searched again; a value out of range is drawn anew."""
    points = []
    for state in best:
        if state.stage in sweep.stages:
            values = {
                key: state.values[key]
                for key, (_, range_) in sweep.ranges(state.stage).items()
                if range_.contains(state.values.get(key))
            }
            if values:
                points.append(Choice(state.stage, values))
    if not points:
        assert sweep.warm_start is not None
        raise ConfigError(
            f"warm_start: got no completed trial of {sweep.warm_start.sweep!r} with a stage and a "
            "value that are searched here, expected at least one"
        )
    return tuple(points)


def _differences(sweep: SweepFile, earlier: SweepFile) -> list[str]:
    new, old = sweep.model_dump(mode="json"), earlier.model_dump(mode="json")
    return [
        f"warm_start: got results of {earlier.name!r} with {key} {old[key]}, expected {new[key]} "
        "as here, or best: k, which takes no results"
        for key in _MUST_AGREE
        if new[key] != old[key]
    ]


def _comparable(
    states: Iterable[TrialState],
    sweep: SweepFile,
    configs: Mapping[str, Config],
    earlier_configs: Mapping[str, Config],
) -> list[TrialState]:
    """Ended trials whose every key is searched here too or has the value that it has here.

    Their values are then those of the keys that are searched here.
    """
    fitting = []
    differing: Counter[str] = Counter()
    for state in states:
        if state.outcome not in ("completed", "pruned") or state.stage not in sweep.stages:
            continue
        theirs = {**earlier_configs[state.stage].flat(), **state.values}
        ours = configs[state.stage].flat()
        ranges = sweep.ranges(state.stage)
        keys = {*theirs, *ours} - PATHS - set(ranges)
        unlike = [key for key in sorted(keys) if theirs.get(key) != ours.get(key)]
        outside = [key for key, (_, r) in ranges.items() if not r.contains(theirs.get(key))]
        differing.update([*unlike, *outside])
        if not unlike and not outside:
            values = {key: theirs[key] for key in ranges}
            fitting.append(replace(state, values=values))
    if not fitting:
        assert sweep.warm_start is not None
        named = ", ".join(key for key, _ in differing.most_common(3)) or "their stages"
        raise ConfigError(
            f"warm_start: got no trial of {sweep.warm_start.sweep!r} that fits (they differ in "
            f"{named}), expected values that are searched or set here too; or best: k"
        )
    return fitting
