"""What a pipeline file says: sweeps in a row, each from the best of the one before; all checked.

    name: calls
    base: models/Fun-ASR-Nano-2512
    data: {train: ..., valid: ..., test: ...}
    trials: 8
    steps:
      - stages: [s1]
        space: {...}
      - stages: [s2]
        data: {train: ...}

Any key of a sweep file holds for every step; a step's own is laid over it, `data`, `set` and other
blocks key by key, all else as a whole.

Steps must agree on what the model sees (sample rate, features, tokenizers), or each step would
undo the one before; `allow: [frontend_conf.fs]` says that they differ on purpose.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conf.errors import ConfigError, DataError, UserError
from conf.explain import nearest_hint, unknown_key
from conf.keys import all_keys
from conf.layers import who_said
from conf.load import Config, parse_overrides
from conf.model_dir import with_copy
from conf.reading import Document, flatten, parse_value, read_yaml, unflatten
from conf.writing import format_value, to_yaml
from sweeps import preflight
from sweeps.preflight import check
from sweeps.spec.sweep_file import DEMO, Places, SweepFile, load_sweep, stage_configs
from trainer.checks.run_checks import ChecksFailed

_OWN = ("name", "base", "data", "allow", "steps")
_OF_A_STEP = frozenset({"stages", "stage_set", "stage_space", "warm_start"})
"""Keys of a sweep file that mean something for one step only."""
_LAID_OVER = ("data", "set", "space", "pruning", "resources", "budget")
_RANGE_KEYS = frozenset({"low", "high", "log", "step", "choices", "points"})

_SEEN_ROLES = frozenset({"frontend", "tokenizer"})
_FS, _FS_CHECK = "frontend_conf.fs", "fs-stage"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,55}")
"""With a step's name behind it, it is that of a sweep."""
BASE = "base"


@dataclass(frozen=True)
class Step:
    """One step: a sweep, all of it but the weights that it will start from."""

    number: int
    name: str
    sweep: SweepFile
    """With the pipeline's base, unless the step names one of its own."""
    own_base: bool
    configs: Mapping[str, Config]
    """Its stages' default configs."""


@dataclass(frozen=True)
class Pipeline:
    """A pipeline file, checked."""

    path: Path
    name: str
    base: str
    """The model directory that the first step starts from."""
    allow: tuple[str, ...]
    """Keys in which steps may differ, and `base` where a step may name one of its own."""
    steps: tuple[Step, ...]


def load_pipeline(
    path: Path, *, name: str | None = None, overrides: Sequence[str] = ()
) -> Pipeline:
    """Read a pipeline and check all its steps; makes nothing but the demo corpus.

    Args:
        path: The file.
        name: Takes the place of the file's `name`.
        overrides: `key=value` over every step (`trials=4`, `optim_conf.lr=1e-4`), over one
            (`s2.trials=4`), or of the pipeline itself (`base=DIR`).

    Raises:
        UserError: Every mistake of every step, each with its line.
        ChecksFailed: Nothing is wrong but checks before training.
    """
    reading = _Reading(read_yaml(path), name, overrides)
    steps = [reading.step(index) for index in range(len(reading.steps))]
    problems = dict.fromkeys(reading.problems)
    checks: dict[str, None] = {}
    before: _Loaded | None = None
    searched: dict[str, str] = {}  # keys of what is seen, and the step that searches them
    loaded: list[_Loaded] = []
    for step in steps:
        try:
            step = step.load()
        except UserError as error:
            problems |= dict.fromkeys(step.lines(error.problems))
            before = None
            continue
        loaded.append(step)
        differences = _differences(before, step, searched, reading) if reading.chained else []
        problems |= dict.fromkeys(differences)
        try:
            with _base_for(step, before) as base:
                _check(step, base, differing=bool(differences))
        except UserError as error:
            problems |= dict.fromkeys(step.lines(error.problems))
        except ChecksFailed as error:
            checks |= dict.fromkeys(f"step {step.name}, {x}" for x in str(error).splitlines())
        before = step
    if problems:
        raise UserError([*problems, *checks])
    if checks:
        raise ChecksFailed("\n".join(checks))
    return Pipeline(
        path=path,
        name=reading.name,
        base=reading.base,
        allow=reading.allow,
        steps=tuple(step.checked() for step in loaded),
    )


def seen_keys() -> tuple[str, ...]:
    """Keys that say what the model sees and how it spells."""
    return tuple(key for key, known in all_keys().items() if known.role in _SEEN_ROLES)


# Reading


class _Reading:
    """The file and the command line, before the steps are looked at."""

    def __init__(self, document: Document, name: str | None, overrides: Sequence[str]) -> None:
        self._document = document
        self.problems: list[str] = []
        self._given: dict[str, str] = {} if name is None else {"name": name}
        raw = dict(document.values)
        steps = raw.get("steps")
        self.steps: list[Mapping[str, Any]] = []
        if not isinstance(steps, list) or not steps:
            found = "nothing" if steps is None else format_value(steps)
            self._wrong("steps", f"got {found}, expected a list of steps")
        else:
            self.steps = [step for step in steps if isinstance(step, Mapping)]
            for index, step in enumerate(steps):
                if not isinstance(step, Mapping):
                    got = format_value(step)
                    self._wrong(f"steps.{index}", f"got {got}, expected a block of keys")
        self._refuse_unknown(raw)
        self._names = self._step_names()
        self._overrides: list[str] = []
        for override in parse_overrides(list(overrides)):
            key, _, text = override.partition("=")
            if key in ("name", BASE, "allow"):
                self._given[key] = parse_value(text, f"command line: {key}")
            elif key.split(".")[0] == "steps":
                self._given[key] = text
                self._wrong(key, "got a step by number, expected it by name, as in s2.trials=4")
            else:
                self._overrides.append(override)
        raw |= {key: value for key, value in self._given.items() if key in _OWN}
        self.name = self._text(raw, "name")
        if self.name and not _NAME.fullmatch(self.name):
            expected = "letters, digits, '.', '_' or '-'"
            self._wrong("name", f"got {self.name!r}, expected {expected}")
            self.name = "pipeline"  # said once, not once for each step's sweep
        self.base = with_copy(self._text(raw, BASE))
        self.allow = self._allowed(raw.get("allow", []))
        # A chain can be compared only where every step is one.
        self.chained = len(self.steps) == len(steps or []) and bool(self.base)

    def step(self, index: int) -> _Draft:
        """What the sweep file of a step would say."""
        own, document = self.steps[index], self._document
        prefix = f"steps.{index}"
        lines = {key: n for key, n in document.lines.items() if key.split(".")[0] != "steps"}
        line = document.lines.get(prefix, 0)
        of_step = {
            key.removeprefix(f"{prefix}."): n
            for key, n in document.lines.items()
            if key.startswith(f"{prefix}.")
        }
        common = {k: v for k, v in document.values.items() if k in _common_keys()}
        values = {BASE: self.base, **common}
        for key, value in own.items():
            if key not in SweepFile.model_fields:
                continue  # said before, or the step's name
            if key in _LAID_OVER:
                values[key] = _laid_over(_whole(key, values.get(key)), _whole(key, value))
            else:
                values[key] = value
        name = self._names[index]
        values["name"] = f"{self.name}-{name}"
        skipped = values.get("skip_checks", [])
        if index and _FS in self.allow and isinstance(skipped, list) and _FS_CHECK not in skipped:
            values["skip_checks"] = [*skipped, _FS_CHECK]
        own_base = BASE in own and index > 0 and BASE in self.allow
        if BASE in own and not own_base:
            values[BASE] = self.base
            expected = (
                "the pipeline's own base, named once at the top"
                if index == 0
                else "the best of the step before (or say `allow: [base]`)"
            )
            self._wrong(f"{prefix}.{BASE}", f"got {own[BASE]!r}, expected {expected}")
        document = Document(document.path, values, lines | of_step | {"name": line})
        return _Draft(index + 1, name, document, line, self._of_step(name), own_base)

    def _of_step(self, name: str) -> list[str]:
        """The command line as one step has it."""
        own = [text for text in self._overrides if text.split(".")[0] == name]
        others = {n for n in self._names if n != name}
        common = [x for x in self._overrides if x not in own and x.split(".")[0] not in others]
        return [*common, *(text.removeprefix(f"{name}.") for text in own)]

    def _step_names(self) -> list[str]:
        names: list[str] = []
        for index, step in enumerate(self.steps):
            stages = step.get("stages")
            of_stages = "-".join(map(str, stages)) if isinstance(stages, list) else ""
            name = str(step.get("name", of_stages) or f"step{index + 1}")
            if name in names:
                self._wrong(
                    f"steps.{index}.name",
                    f"got {name!r} a second time, expected a name of its own for each step",
                )
            names.append(name)
        return names

    def _refuse_unknown(self, raw: Mapping[str, Any]) -> None:
        common = list(dict.fromkeys([*_OWN, *_common_keys()]))
        for key in raw:
            if key in _OF_A_STEP:
                self._wrong(key, "got a key of one step, expected it in that step")
            elif key not in common:
                self._wrong(key, unknown_key(key, common).message)
        for index, step in enumerate(self.steps):
            for key in step:
                if key not in SweepFile.model_fields:
                    message = unknown_key(key, SweepFile.model_fields).message
                    self._wrong(f"steps.{index}.{key}", message)

    def _text(self, raw: Mapping[str, Any], key: str) -> str:
        value = raw.get(key)
        if not isinstance(value, str) or not value:
            found = "nothing" if value is None else format_value(value)
            self._wrong(key, f"got {found}, expected a text")
            return ""
        return value

    def _allowed(self, value: Any) -> tuple[str, ...]:
        known = [BASE, *seen_keys()]
        if not isinstance(value, list):
            self._wrong("allow", f"got {format_value(value)}, expected a list of keys")
            return ()
        for index, key in enumerate(value):
            if key not in known:
                hint = nearest_hint(str(key), known)
                expected = "base, or a key of what the model sees, such as frontend_conf.fs"
                self._wrong(f"allow.{index}", f"got {format_value(key)}, expected {expected}{hint}")
        return tuple(str(key) for key in value)

    def _wrong(self, key: str, message: str) -> None:
        where = "command line" if key in self._given else self._document.where(key)
        self.problems.append(f"{where}: {key}: {message}")


def _common_keys() -> list[str]:
    """The keys of a sweep file that may hold for all steps."""
    return [key for key in SweepFile.model_fields if key not in {*_OF_A_STEP, "name", BASE}]


def _whole(key: str, block: Any) -> Any:
    """A block by dotted keys; a range is a leaf, `demo` stands for the demonstration's data."""
    if key == "data" and block == "demo":
        return DEMO.model_dump()
    return dict(_leaves(block, "")) if isinstance(block, Mapping) else block


def _leaves(block: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in block.items():
        if isinstance(value, Mapping) and value and not _RANGE_KEYS & set(value):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _laid_over(below: Any, above: Any) -> Any:
    if isinstance(below, Mapping) and isinstance(above, Mapping):
        return {**below, **above}
    return above


# Checking


@dataclass(frozen=True)
class _Draft:
    """A step as it is written."""

    number: int
    name: str
    document: Document
    line: int
    overrides: Sequence[str]
    own_base: bool

    def lines(self, problems: Iterable[str]) -> list[str]:
        """Mistakes about what is not there have no line: they get the step's."""
        bare, placed = f"{self.document.path}: ", f"{self.document.path}:{self.line}: "
        return [
            placed + text.removeprefix(bare) if text.startswith(bare) else text for text in problems
        ]

    def load(self) -> _Loaded:
        """Read it as a sweep, and every stage's default config."""
        sweep, places = load_sweep(self.document, overrides=self.overrides)
        if not (Path(sweep.base) / "model.pt").is_file():  # then there is no config to build
            raise UserError(_places_and_data(sweep, places))
        try:
            configs = stage_configs(sweep, places)
        except ConfigError as error:
            # What is wrong with the base and the data has to be said now, too.
            raise UserError([*_places_and_data(sweep, places), *error.problems]) from error
        return _Loaded(**vars(self), sweep=sweep, places=places, configs=configs)


@dataclass(frozen=True)
class _Loaded(_Draft):
    sweep: SweepFile
    places: Places
    configs: Mapping[str, Config]

    def checked(self) -> Step:
        """The step as others need it."""
        return Step(self.number, self.name, self.sweep, self.own_base, self.configs)


def _places_and_data(sweep: SweepFile, places: Places) -> list[str]:
    problems: list[str] = []
    for look in (preflight.check_places, preflight.check_data):
        if look is preflight.check_data and preflight.makes_demo_corpus(sweep):
            continue
        try:
            look(sweep, places)
        except UserError as error:
            problems += error.problems
    return problems


def _check(step: _Loaded, base: str, *, differing: bool) -> None:
    """Check a step as `sweeps run` would, were its base there.

    One that does not see what the step before sees has been told so; that its config's checks fail
    on the same grounds need not be said again.
    """
    if differing:
        if problems := _places_and_data(step.sweep, step.places):
            raise DataError(problems)
        return
    document = replace(step.document, values={**step.document.values, BASE: base})
    try:
        check(document, overrides=step.overrides)
    except UserError as error:
        said = [line.replace(base, step.sweep.base) for line in error.problems]
        rest = [x for x in _places_and_data(step.sweep, step.places) if x not in said]
        raise UserError([*said, *rest]) from error


@contextmanager
def _base_for(step: _Loaded, before: _Loaded | None) -> Iterator[str]:
    """A model directory as the step before will leave it: its weights see what that step sees."""
    base = Path(step.sweep.base)
    if before is None or step.own_base or not (base / "config.yaml").is_file():
        yield step.sweep.base
        return
    config = next(iter(before.configs.values()))
    seen = {key: config[key] for key in seen_keys() if config.get(key) is not None}
    with tempfile.TemporaryDirectory(prefix="telesweep-") as scratch:
        for item in base.iterdir():
            if item.name != "config.yaml":
                os.symlink(item.absolute(), Path(scratch) / item.name)
        values = {**flatten(read_yaml(base / "config.yaml").values), **seen}
        (Path(scratch) / "config.yaml").write_text(to_yaml(unflatten(values)), encoding="utf-8")
        yield scratch


def _differences(
    before: _Loaded | None, step: _Loaded, searched: dict[str, str], reading: _Reading
) -> list[str]:
    """What a step's model would see otherwise than that of the step before."""
    problems = []

    def place(key: str) -> str:
        return f"{step.document.path}:{step.line}: step {step.name}: {key}"

    mend = "give all steps one value, or say `allow: [{key}]`"
    several = len(reading.steps) > 1
    watched = [key for key in seen_keys() if key not in reading.allow]
    for stage in step.sweep.stages:
        for key in step.sweep.ranges(stage):
            if several and key in watched and searched.setdefault(key, step.name):
                problems.append(
                    f"{place(key)}: got a range, expected one value that every step sees; "
                    + mend.format(key=key)
                )
    configs = list(step.configs.values())
    pairs = [(config, configs[0], f"stage {configs[0].stage}") for config in configs[1:]]
    if before is not None:
        pairs.insert(0, (configs[0], next(iter(before.configs.values())), f"step {before.name}"))
    problems += [
        f"{place(key)}: got {_said(config, key)}, expected {_said(other, key)} as in {whose}; "
        + mend.format(key=key)
        for config, other, whose in pairs
        for key in watched
        if config.get(key) != other.get(key)
    ]
    return problems


def _said(config: Config, key: str) -> str:
    """A value and who says it."""
    where = who_said((*config.base_layers, *config.layers))(key).rpartition("/")[2]
    return f"{format_value(config.get(key))} ({where})"
