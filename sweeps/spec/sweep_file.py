"""What a sweep file says, and the search space that it spans.

    sweep = load_sweep(Path("conf/sweep/demo.yaml"), overrides=["trials=4"])
    choice = suggest(optuna_trial, sweep)   # stage and dotted keys of one trial

The space is define-by-run: the stage is drawn first, then every key of `space:`, then those of
the stage's own block in `stage_space:`. Everything is checked here or in `stage_configs` before
anything heavy starts, all mistakes at once, each with its line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from conf.errors import ConfigError
from conf.explain import lines, problems
from conf.keys import all_keys, find_key
from conf.layers import unknown_key
from conf.load import (
    STAGES,
    Config,
    load_config,
    parse_overrides,
    stage_config_path,
)
from conf.model_dir import with_copy
from conf.reading import Document, flatten, parse_value, read_yaml
from sweeps.spec.ranges import Part, Range, Value, tuple_of
from sweeps.spec.tunable import can_train, not_tunable, without_effect

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

StageName = Literal["8k", "s1", "s2", "s3"]
ObjectiveName = Literal["valid/cer", "valid/cer_ctc", "valid/loss"]
MetricName = Literal["valid/cer", "valid/cer_ctc", "valid/loss", "wideband/cer", "epochs"]
"""Metrics of the checkpoint that would be exported; `epochs` are those of the trial, its cost."""

DEMO_CORPUS = Path("data/demo")
FINALISTS = 3
"""How many of the best configs `replicates` repeats."""
_OVER_THE_BASE = re.compile(r"\+(\d+(?:\.\d+)?)\s*%")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RANGE_KEYS = frozenset({"low", "high", "log", "step", "choices", "points"})
_SPELT_WITHIN = {"beside": "objective", "at_most": "objective.at_most"}
_GIVEN_BY_THE_SWEEP = {
    "train_data_set_list": "data.train",
    "valid_data_set_list": "data.valid",
    "finetune_conf.test_data_set_list": "data.test",
    "finetune_conf.wideband_data_set_list": "data.wideband",
    "finetune_conf.stage": "stages",
    "init_param": "base",
    "output_dir": "name",
    "device": "resources.gpu",
}
_BELONGS_TO_THE_WEIGHTS = frozenset({"architecture", "tokenizer"})


def _limit(value: Any) -> Any:
    if isinstance(value, str) and not _OVER_THE_BASE.fullmatch(value.strip()):
        raise ValueError("a number, or a share over that of the base such as +10%")
    return value


Limit = Annotated[float | str, BeforeValidator(_limit)]


class Data(Part):
    """Data lists: what is trained on, what decides, and what is only reported."""

    train: str
    valid: str
    test: str | None = None
    wideband: str | None = None

    def splits(self) -> dict[str, str]:
        """The lists that are given, by name."""
        return {name: path for name, path in self.model_dump().items() if path is not None}


DEMO = Data(**{name: str(DEMO_CORPUS / f"{name}.jsonl") for name in Data.model_fields})


class Pruning(Part):
    """When a weak trial ends early."""

    method: Literal["successive_halving", "median", "none"] = "successive_halving"
    grace: Annotated[int, Field(ge=1)] = 1
    """Epochs that every trial gets."""
    factor: Annotated[int, Field(ge=2)] = 2
    """One in this many goes on at each rung; rungs lie at grace * factor^k epochs."""


class Resources(Part):
    """What one trial takes."""

    cpu: Annotated[float, Field(gt=0)] = 1.0
    gpu: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of a trial; 0.25 puts four trials on one."""


class Budget(Part):
    """What a sweep may cost over all its starts; what is reached first ends it."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    """Epochs trained by all trials together."""
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    """Hours of all trials together, times the GPUs of each."""
    wall_hours: Annotated[float, Field(gt=0)] | None = None
    """Hours that the sweep itself runs; while it is interrupted none pass."""


class WarmStart(Part):
    """An earlier sweep to learn from: `warm_start: NAME`, or `{sweep: NAME, best: k}`."""

    sweep: str
    """Its name, as in outputs/sweeps/NAME."""
    best: Annotated[int, Field(ge=1)] | None = None
    """Try the values of its best k trials first; without it all its results are known instead."""


class SweepFile(Part):
    """One sweep file, checked.

    `objective` may be written as a list, whose first is the `objective` and the rest are `beside`,
    or as `{metric, at_most}`; here each part has a place of its own.
    """

    name: str
    base: str
    data: Data
    stages: tuple_of(StageName)  # type: ignore[valid-type]
    set: dict[str, Value] = {}
    stage_set: dict[StageName, dict[str, Value]] = {}
    space: dict[str, Range]
    stage_space: dict[StageName, dict[str, Range]] = {}
    trials: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)] = 0
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """Who chooses values: one that learns from results, chance, or all combinations in turn."""
    startup_trials: Annotated[int, Field(ge=0)] = 6
    """Trials drawn at random before TPE learns, the defaults among them."""
    warm_start: WarmStart | None = None
    """An earlier sweep to learn from."""
    objective: ObjectiveName = "valid/cer"
    """What is made small; pruning, ranking and the goal go by it alone."""
    beside: tuple_of(MetricName) = ()  # type: ignore[valid-type]
    """Further metrics that are made small; the best trials are then the Pareto front."""
    at_most: dict[MetricName, Limit] = {}
    """Bounds: a trial beyond one is no candidate; a value, or `+10%` over the base's."""
    goal: float | None = None
    """The search ends as soon as a completed trial's objective is no greater."""
    budget: Budget = Budget()
    pruning: Pruning = Pruning()
    replicates: Annotated[int, Field(ge=0)] = 0
    """Other seeds that the best configs are repeated with after the search, never pruned."""
    resources: Resources = Resources()
    concurrency: Annotated[int, Field(ge=1)] = 1
    trial_timeout_s: Annotated[float, Field(gt=0)] = 86_400.0
    """Seconds without a report after which a trial hangs: it is ended and tried again."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 5
    """Best trials whose checkpoints stay on disk."""
    skip_checks: tuple_of(str) = ()  # type: ignore[valid-type]

    @property
    def checkpoints_of(self) -> int:
        """How many trials keep their checkpoints: of those that are repeated anyone may win."""
        # The best default is repeated beside the finalists.
        return max(self.keep_checkpoints, FINALISTS + 1 if self.replicates else 0)

    @property
    def most_repeats(self) -> int:
        """How many trials may come after those of the search."""
        return self.replicates * (FINALISTS + 1)

    @property
    def measured(self) -> tuple[str, ...]:
        """What a completed trial has to have measured beside its objective."""
        names = dict.fromkeys([*self.beside, *self.at_most])
        return tuple(name for name in names if name not in (self.objective, "epochs"))

    def fixed(self, stage: str) -> dict[str, Value]:
        """The overrides that every trial of a stage has, its default config too."""
        return {**self.set, **self.stage_set.get(stage, {})}  # type: ignore[call-overload]

    def ranges(self, stage: str) -> dict[str, tuple[str, Range]]:
        """For each key that is searched in a stage: its name in the study, and its range.

        A range of the stage's own has the stage in its name: Optuna knows one range per name.
        """
        own: Mapping[str, Range] = self.stage_space.get(stage, {})  # type: ignore[call-overload]
        common = {key: (key, range_) for key, range_ in self.space.items()}
        return common | {key: (f"{stage}/{key}", range_) for key, range_ in own.items()}


@dataclass(frozen=True)
class Choice:
    """What one trial tries: a stage, and values laid over the stage's default config."""

    stage: str
    values: Mapping[str, Value]


def suggest(trial: BaseTrial, sweep: SweepFile) -> Choice:
    """Draw the parameters of a trial; asked again, Optuna answers what is stored."""
    stage = str(trial.suggest_categorical("stage", list(sweep.stages)))
    values = {
        key: range_.draw(trial, name, whole=is_whole(key))
        for key, (name, range_) in sweep.ranges(stage).items()
    }
    return Choice(stage, values)


def is_whole(key: str) -> bool:
    """Whether a key takes whole numbers."""
    return all_keys()[key].expected.startswith("a whole number")


# Reading


def load_sweep(
    path: Path | Document, *, name: str | None = None, overrides: Sequence[str] = ()
) -> tuple[SweepFile, Places]:
    """Read and check a sweep file.

    Args:
        path: The file, or what was read of one (a pipeline's step).
        name: Takes the place of the file's `name`.
        overrides: `key=value`: a key of the sweep file (`trials=4`, `pruning.method=none`), or a
            training key, which then stands in `set:`.

    Raises:
        ConfigError: All mistakes, each with its line.
    """
    document = path if isinstance(path, Document) else read_yaml(path)
    raw = flat_blocks(document.values)
    given: dict[str, Any] = {} if name is None else {"name": name}
    for override in parse_overrides(list(overrides)):
        key, _, text = override.partition("=")
        given[key] = parse_value(text, f"command line: {key}")
    places = Places(document, _lay_over(raw, given))
    _spell_out(raw)
    if isinstance(raw.get("base"), str):
        raw["base"] = with_copy(raw["base"])
    if raw.get("data") == "demo":
        raw["data"] = DEMO.model_dump()
    try:
        sweep = SweepFile.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(lines(problems(error, SweepFile), places.where)) from None
    if senseless := _problems(sweep, places):
        raise ConfigError(senseless)
    return sweep, places


@dataclass(frozen=True)
class Places:
    """Where a key of a sweep was said, for messages."""

    document: Document
    on_command_line: frozenset[str]

    def where(self, key: str) -> str:
        """`FILE:LINE`, or the command line for what was said there."""
        parts = key.split(".")
        prefixes = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
        if any(prefix in self.on_command_line for prefix in prefixes):
            return "command line"
        part = parts[0]
        if part in _SPELT_WITHIN and part not in self.document.lines:
            return self.where(_SPELT_WITHIN[part] + key.removeprefix(part))
        return self.document.where(key)


def _spell_out(raw: dict[str, Any]) -> None:
    """Put the parts of a short spelling in their places."""
    objective, warm_start = raw.get("objective"), raw.get("warm_start")
    if isinstance(objective, list) and objective:
        raw["objective"], raw["beside"] = objective[0], objective[1:]
    elif isinstance(objective, Mapping):
        inner = dict(objective)
        raw["objective"] = inner.pop("metric", None)
        raw["at_most"] = inner.pop("at_most", {})
        raw |= {f"objective.{name}": value for name, value in inner.items()}  # refused as unknown
    if isinstance(warm_start, str):
        raw["warm_start"] = {"sweep": warm_start}


def flat_blocks(values: Mapping[str, Any]) -> dict[str, Any]:
    """The file's values with dotted keys in `set`, `space` and their forms for one stage."""
    raw = dict(values)
    for block in ("set", "space"):
        if isinstance(raw.get(block), Mapping):
            raw[block] = _flat(raw[block], ranges=block == "space")
    for block in ("stage_set", "stage_space"):
        if isinstance(raw.get(block), Mapping):
            raw[block] = {
                stage: _flat(inner, ranges=block == "stage_space")
                if isinstance(inner, Mapping)
                else inner
                for stage, inner in raw[block].items()
            }
    return raw


def _lay_over(raw: dict[str, Any], given: Mapping[str, Any]) -> frozenset[str]:
    """Put the command line's values over the file's; returns the keys that they are then.

    `trials=4` and `pruning.method=none` are keys of a sweep file, `space.optim_conf.lr.low=1e-4` is
    one end of a range, `optim_conf.lr=1e-4` a training key for the block `set`.
    """
    keys_now = set()
    for key, value in given.items():
        field, _, inner = key.partition(".")
        if field not in SweepFile.model_fields:
            field, inner = "set", key
        block = raw.get(field)
        if not inner:
            raw[field] = value
        elif not isinstance(block, Mapping):
            raw[field] = {inner: value}
        elif field == "space" and inner.rpartition(".")[2] in _RANGE_KEYS:
            name, _, end = inner.rpartition(".")
            raw[field] = {**block, name: {**(block.get(name) or {}), end: value}}
        else:
            raw[field] = {**block, inner: value}
        keys_now.add(f"{field}.{inner}" if inner else field)
    return frozenset(keys_now)


def _flat(block: Mapping[str, Any], *, ranges: bool, prefix: str = "") -> dict[str, Any]:
    """Write `optim_conf: {lr: X}` as `optim_conf.lr: X`; a range is a leaf."""
    if not ranges:
        return flatten(block)
    flat: dict[str, Any] = {}
    for name, inner in block.items():
        key = f"{prefix}{name}"
        leaf = not isinstance(inner, Mapping) or key in all_keys() or bool(_RANGE_KEYS & set(inner))
        flat |= {key: inner} if leaf else _flat(inner, ranges=True, prefix=f"{key}.")
    return flat


def _problems(sweep: SweepFile, places: Places) -> list[str]:
    """Everything about a well-formed sweep file that still makes no sense."""
    problems: list[str] = []

    def wrong(key: str, message: str) -> None:
        said = key.removeprefix("set.") if key in places.on_command_line else key
        problems.append(f"{places.where(key)}: {said}: {message}")

    if not _NAME.fullmatch(sweep.name):
        wrong("name", f"got {sweep.name!r}, expected letters, digits, '.', '_' or '-'")
    stages = list(sweep.stages)
    if not stages or len(set(stages)) < len(stages):
        wrong("stages", f"got {stages}, expected at least one of {', '.join(STAGES)}, each once")
    if sweep.trials < len(stages):
        wrong(
            "trials", f"got {sweep.trials}, expected at least one for each of {len(stages)} stages"
        )
    if not sweep.space and not sweep.stage_space:
        wrong("space", "got an empty space, expected at least one key with its range")
    for place, problem in {**_measure_problems(sweep), **_grid_problems(sweep)}.items():
        wrong(place, problem)
    blocks: list[tuple[str, Mapping[str, Any]]] = [("set", sweep.set), ("space", sweep.space)]
    blocks += [(f"stage_set.{stage}", inner) for stage, inner in sweep.stage_set.items()]
    blocks += [(f"stage_space.{stage}", inner) for stage, inner in sweep.stage_space.items()]
    for block, inner in blocks:
        for key, value in inner.items():
            message = _key_problem(key)
            if isinstance(value, Range):
                message = (
                    message or not_tunable(key) or value.problem() or _step_problem(key, value)
                )
            if message:
                wrong(f"{block}.{key}", message)
    for block in ("stage_set", "stage_space"):
        for stage in getattr(sweep, block):
            if stage not in stages:
                wrong(f"{block}.{stage}", f"got a stage that is not in stages {stages}")
    return problems


def _measure_problems(sweep: SweepFile) -> dict[str, str]:
    """Say what is wrong with objective, bounds, goal and budget, by the sweep's key."""
    problems: dict[str, str] = {}
    if sweep.objective in sweep.beside or len(set(sweep.beside)) < len(sweep.beside):
        problems["beside"] = f"got {[sweep.objective, *sweep.beside]}, expected each metric once"
    if "epochs" in sweep.at_most:
        problems["at_most.epochs"] = "got a bound on epochs, expected one in budget or in the space"
    if sweep.beside and sweep.at_most:
        problems["at_most"] = "got bounds beside several objectives, expected one or the other"
    for block, names in (("beside", sweep.beside), ("at_most", tuple(sweep.at_most))):
        if "wideband/cer" in names and sweep.data.wideband is None:
            key = "beside" if block == "beside" else "at_most.wideband/cer"
            problems[key] = "got wideband/cer without data, expected data.wideband too"
    gpu = sweep.resources.gpu
    if gpu > 1 and gpu != int(gpu):
        problems["resources.gpu"] = f"got {gpu:g}, expected a part of one GPU or a whole number"
    if sweep.budget.gpu_hours is not None and not sweep.resources.gpu:
        problems["budget.gpu_hours"] = (
            f"got {sweep.budget.gpu_hours:g} for trials without a GPU, expected wall_hours or "
            "epochs, or resources.gpu"
        )
    return problems


def _grid_problems(sweep: SweepFile) -> dict[str, str]:
    """Say which ranges a grid cannot go through, and whether it has as many points as trials."""
    if sweep.sampler != "grid":
        return {}
    problems: dict[str, str] = {}
    points = 0
    for stage in sweep.stages:
        of_stage = 1
        for key, (name, range_) in sweep.ranges(stage).items():
            if range_.problem():
                continue
            values = range_.grid(whole=find_key(key) is not None and is_whole(key))
            if values is None:
                block = "space" if name == key else f"stage_space.{stage}"
                problems[f"{block}.{key}"] = (
                    f"got low={range_.low}, high={range_.high} in a grid, expected a step, choices "
                    "or points: how many values it takes"
                )
            of_stage *= len(values or ())
        points += of_stage
    expected = len(sweep.stages) + points
    if not problems and sweep.trials != expected:
        problems["trials"] = (
            f"got {sweep.trials}, expected {expected}: {len(sweep.stages)} default configs and "
            f"{points} points of the grid"
        )
    return problems


def _step_problem(key: str, range_: Range) -> str | None:
    if is_whole(key) and isinstance(range_.step, float):
        return f"got step={range_.step}, expected a whole number as the key takes"
    return None


def _key_problem(key: str) -> str | None:
    """Say why a key can be neither set nor searched by a sweep, if so."""
    if key in _GIVEN_BY_THE_SWEEP:
        return f"got a key that the sweep sets itself, expected it as {_GIVEN_BY_THE_SWEEP[key]}"
    known = find_key(key)
    if known is None:
        return unknown_key(key).message
    if known.role in _BELONGS_TO_THE_WEIGHTS:
        return "got a key that belongs to the weights, expected one of training"
    return None


def stage_configs(sweep: SweepFile, places: Places) -> dict[str, Config]:
    """Build every stage's default config, and try the ends of every range on it.

    Returns:
        The baselines: per stage its config file with the fixed overrides.

    Raises:
        ConfigError: All values that the schema refuses, each with its line in the sweep file.
    """
    configs: dict[str, Config] = {}
    problems: dict[str, None] = {}  # in order, each once: most are the same for all stages
    idle: dict[str, list[str]] = {}  # the same for keys that do nothing, with the stages
    for stage in sweep.stages:
        own = sweep.stage_set.get(stage, {})
        fixed = [(f"set.{key}", key, value) for key, value in sweep.set.items() if key not in own]
        fixed += [(f"stage_set.{stage}.{key}", key, value) for key, value in own.items()]
        layers = [(places.where(place), {key: value}) for place, key, value in fixed]
        weights = Path(sweep.base) / "model.pt"
        try:
            config = load_config(
                stage_config_path(stage),
                model=None if weights.is_file() else sweep.base,
                init_param=weights if weights.is_file() else None,
                layers=layers,
            )
        except ConfigError as error:
            problems |= dict.fromkeys(error.problems)
            continue
        configs[stage] = config
        searched = {key: range_ for key, (_, range_) in sweep.ranges(stage).items()}
        for key, (name, range_) in sweep.ranges(stage).items():
            place = f"stage_space.{stage}.{key}" if name != key else f"space.{key}"
            problems |= dict.fromkeys(_refused_ends(config, key, range_, places.where(place)))
            if message := without_effect(key, stage, config, searched):
                idle.setdefault(f"{places.where(place)}: {place}: {message}", []).append(stage)
        if not can_train(config, searched):
            line = f"{places.where('stages')}: stages: got every part frozen, expected one to train"
            idle.setdefault(line, []).append(stage)
    problems |= {f"{line} (stage {', '.join(found)})": None for line, found in idle.items()}
    if problems:
        raise ConfigError(problems)
    return configs


def _refused_ends(config: Config, key: str, range_: Range, where: str) -> list[str]:
    """What the schema has against the ends, or choices, of a range."""
    problems: list[str] = []
    for value in range_.ends:
        # An end of a range of numbers is drawn as one; a choice is taken as it stands.
        number = float(value) if range_.choices is None and not is_whole(key) else value  # type: ignore[arg-type]
        try:
            config.replace({key: number}, where)
        except ConfigError as error:
            problems += error.problems
    return problems
