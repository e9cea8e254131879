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
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, create_model

from conf.errors import ConfigError, DataError, UserError
from conf.explain import Problem, lines, nearest_hint, problems
from conf.keys import all_keys
from conf.layers import who_said
from conf.load import Config, parse_overrides
from conf.model_dir import with_copy
from conf.reading import Document, flatten, parse_value, read_yaml, unflatten
from conf.writing import format_value, to_yaml
from sweeps import preflight
from sweeps.preflight import check
from sweeps.spec.ranges import Part
from sweeps.spec.sweep_file import DEMO, Places, SweepFile, flat_blocks, load_sweep, stage_configs
from trainer.checks.run_checks import ChecksFailed

BASE = "base"
_OF_A_STEP = frozenset({"stages", "stage_set", "stage_space", "warm_start"})
"""Keys of a sweep file that mean something for one step only."""
_COMMON = [key for key in SweepFile.model_fields if key not in {*_OF_A_STEP, "name", BASE}]
"""Its keys that may hold for all steps."""
_LAID_OVER = ("data", "set", "space", "pruning", "resources", "budget")

_SEEN_ROLES = frozenset({"frontend", "tokenizer"})
_FS, _FS_CHECK = "frontend_conf.fs", "fs-stage"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,55}")
"""With a step's name behind it, it is that of a sweep."""


def seen_keys() -> tuple[str, ...]:
    """Keys that say what the model sees and how it spells."""
    return tuple(key for key, known in all_keys().items() if known.role in _SEEN_ROLES)


def _may_differ(key: str) -> str:
    if key not in (known := [BASE, *seen_keys()]):
        expected = "base, or a key of what the model sees, such as frontend_conf.fs"
        raise ValueError(f"{expected}{nearest_hint(key, known)}")
    return key


# What a step says is checked when it is read as a sweep: with the pipeline's keys, in their lines.
_StepKeys = create_model(  # type: ignore[call-overload]
    "_StepKeys", __base__=Part, **dict.fromkeys(SweepFile.model_fields, (Any, None))
)


class _OwnKeys(Part):
    name: Annotated[str, Field(min_length=1)]
    base: Annotated[str, Field(min_length=1)]
    allow: list[Annotated[str, AfterValidator(_may_differ)]] = []
    steps: Annotated[list[_StepKeys], Field(min_length=1)]


_Keys = create_model(  # type: ignore[call-overload]
    "_Keys", __base__=_OwnKeys, **dict.fromkeys(_COMMON, (Any, None))
)


@dataclass(frozen=True)
class _Draft:
    """A step as it is written."""

    number: int
    name: str
    document: Document
    line: int
    overrides: Sequence[str]
    own_base: bool
    """Whether it names a base of its own, in place of the best of the step before."""

    def lines(self, problems: Iterable[str]) -> list[str]:
        """Mistakes about what is not there have no line: they get the step's."""
        bare, placed = f"{self.document.path}: ", f"{self.document.path}:{self.line}: "
        return [
            placed + text.removeprefix(bare) if text.startswith(bare) else text for text in problems
        ]

    def load(self) -> Step:
        """Read it as a sweep, and every stage's default config."""
        sweep, places = load_sweep(self.document, overrides=self.overrides)
        if not (Path(sweep.base) / "model.pt").is_file():  # then there is no config to build
            raise UserError(_places_and_data(sweep, places))
        try:
            configs = stage_configs(sweep, places)
        except ConfigError as error:
            # What is wrong with the base and the data has to be said now, too.
            raise UserError([*_places_and_data(sweep, places), *error.problems]) from error
        return Step(**vars(self), sweep=sweep, places=places, configs=configs)


@dataclass(frozen=True)
class Step(_Draft):
    """One step: a sweep, all of it but the weights that it will start from."""

    sweep: SweepFile
    """With the pipeline's base, unless the step names one of its own."""
    places: Places
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
    drafts = [reading.step(index) for index in reading.steps]
    problems = dict.fromkeys(reading.problems)
    checks: dict[str, None] = {}
    before: Step | None = None
    searched: dict[str, str] = {}  # keys of what is seen, and the step that searches them
    steps: list[Step] = []
    for draft in drafts:
        try:
            step = draft.load()
        except UserError as error:
            problems |= dict.fromkeys(draft.lines(error.problems))
            before = None
            continue
        steps.append(step)
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
    return Pipeline(path, reading.name, reading.base, reading.allow, tuple(steps))


# Reading


class _Reading:
    """The file and the command line, before the steps are looked at."""

    def __init__(self, document: Document, name: str | None, overrides: Sequence[str]) -> None:
        self._document = document
        self.problems: list[str] = []
        self._given: dict[str, Any] = {} if name is None else {"name": name}
        self._overrides: list[str] = []
        for override in parse_overrides(list(overrides)):
            key, _, text = override.partition("=")
            if key in ("name", BASE, "allow"):
                self._given[key] = parse_value(text, f"command line: {key}")
            elif key.split(".")[0] == "steps":
                self.problems.append(
                    f"command line: {key}: got a step by number, expected it by name, as in "
                    "s2.trials=4"
                )
            else:
                self._overrides.append(override)
        # What is right is read on all the same: the steps' mistakes are to be said, too.
        self._right = self._checked({**document.values, **self._given})
        self.name: str = self._right.get("name", "pipeline")
        if not _NAME.fullmatch(self.name):
            self._wrong("name", f"got {self.name!r}, expected letters, digits, '.', '_' or '-'")
            self.name = "pipeline"  # said once, not once for each step's sweep
        self.base = with_copy(self._right.get(BASE, ""))
        self.allow: tuple[str, ...] = tuple(self._right.get("allow", ()))
        steps = self._right.get("steps", ())
        self.steps = {i: step for i, step in enumerate(steps) if isinstance(step, Mapping)}
        self._names = self._step_names()
        # A chain can be compared only where every step is one.
        self.chained = len(self.steps) == len(steps) and bool(self.base)

    def step(self, index: int) -> _Draft:
        """What the sweep file of a step would say."""
        own, document, name = self.steps[index], self._document, self._names[index]
        line = document.lines.get(prefix := f"steps.{index}", 0)
        lines = {k: n for k, n in document.lines.items() if not k.startswith("steps")}
        inside = f"{prefix}."
        lines |= {
            k.removeprefix(inside): n for k, n in document.lines.items() if k.startswith(inside)
        }
        below, above = _blocks(self._right, _COMMON), _blocks(own, SweepFile.model_fields)
        values = {BASE: self.base, **below, **above, "name": f"{self.name}-{name}"}
        for key in _LAID_OVER:
            common, inner = below.get(key), above.get(key)
            if isinstance(common, Mapping) and isinstance(inner, Mapping):
                values[key] = {**common, **inner}
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
        document = Document(document.path, values, lines | {"name": line})
        return _Draft(index + 1, name, document, line, self._of_step(name), own_base)

    def _checked(self, raw: dict[str, Any]) -> dict[str, Any]:
        """The file's keys without those whose values are none; notes what is wrong."""
        try:
            _Keys.model_validate(raw)
        except ValidationError as error:
            of_a_step = ("a key of one step", "it in that step")
            found = [
                Problem(x.key, *of_a_step) if x.key in _OF_A_STEP else x
                for x in problems(error, _Keys)
            ]
            self.problems += lines(found, self._where)
            return {key: raw[key] for key in raw.keys() - {problem.key for problem in found}}
        return raw

    def _of_step(self, name: str) -> list[str]:
        """The command line as one step has it."""
        own = [text for text in self._overrides if text.split(".")[0] == name]
        others = {n for n in self._names.values() if n != name}
        common = [x for x in self._overrides if x not in own and x.split(".")[0] not in others]
        return [*common, *(text.removeprefix(f"{name}.") for text in own)]

    def _step_names(self) -> dict[int, str]:
        names: dict[int, str] = {}
        for index, step in self.steps.items():
            stages = step.get("stages")
            of_stages = "-".join(map(str, stages)) if isinstance(stages, list) else ""
            name = str(step.get("name", of_stages) or f"step{index + 1}")
            if name in names.values():
                self._wrong(
                    f"steps.{index}.name",
                    f"got {name!r} a second time, expected a name of its own for each step",
                )
            names[index] = name
        return names

    def _where(self, key: str) -> str:
        given = key.split(".")[0] in self._given
        return "command line" if given else self._document.where(key)

    def _wrong(self, key: str, message: str) -> None:
        self.problems.append(f"{self._where(key)}: {key}: {message}")


def _blocks(values: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Known keys, blocks by dotted keys; `demo` stands for the demonstration's data."""
    blocks = flat_blocks({key: values[key] for key in known if key in values})
    return blocks | ({"data": DEMO.model_dump()} if blocks.get("data") == "demo" else {})


# Checking


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


def _check(step: Step, base: str, *, differing: bool) -> None:
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
def _base_for(step: Step, before: Step | None) -> Iterator[str]:
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
    before: Step | None, step: Step, searched: dict[str, str], reading: _Reading
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
