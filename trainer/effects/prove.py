"""Decides who reads a key, stage by stage: `both`, `stock`, `here` or `none`.

Keys that a run reads are changed one by one. Those that it does not read are changed all at once:
if the run does not notice, none of them has an effect; if it does, halves are tried until the key
is found. So the answer never rests on the trace alone.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from conf import keys
from conf.errors import WorkError
from trainer.effects import engines
from trainer.effects.scene import Scene
from trainer.effects.trace import Reads
from trainer.effects.values import (
    AT_LOADING,
    BY_STAGE,
    CASES,
    CONDITIONS,
    ENGINES,
    EXPLAINED,
    REMARKS,
    UNTRIED,
    Case,
    Engine,
    other_value,
)
from trainer.effects.watch import Watcher
from trainer.finetune import stock_engine
from trainer.funasr_parts import load

EFFECT = {
    (True, True): "both",
    (True, False): "stock",
    (False, True): "here",
    (False, False): "none",
}
"""By whether stock and our trainer show it."""

_CONDITIONING = frozenset(key for condition in CONDITIONS.values() for key in condition)

SEEN_AS = {
    # Which of the three shows it first may depend on a last bit.
    **dict.fromkeys(("loss", "gradients", "weights"), "training"),
    "course": "the course of the run",
    "settings": "how it runs",
    "logs": "what is logged",
}
"""Words for kinds of change, where the kind's name does not say it."""


@dataclass(frozen=True)
class Finding:
    """What one engine does with one key in one stage.

    Attributes:
        readers: Who reads it.
        seen: What a change of it changes first; None for nothing.
        untried: Why it could not be tried; then the readers decide.
        swallowed: Whose `**kwargs` it ends in.
        idle: Where its value is kept and never used, or taken and never used.
    """

    readers: frozenset[str]
    seen: str | None
    untried: str = ""
    swallowed: frozenset[str] = frozenset()
    idle: str = ""

    @property
    def acts(self) -> bool:
        return bool(self.readers) if self.untried else self.seen is not None


@dataclass(frozen=True)
class Row:
    """What is proven of one key.

    Attributes:
        stages: Its effect in each.
        read_by: Classes and functions with their files.
        note: What it changes, or why nothing changes.
        needs: Other keys without which it does nothing, where a stage does not set them.
        then: Its effect with those.
    """

    stages: Mapping[str, str]
    read_by: tuple[str, ...]
    note: str
    needs: Mapping[str, Any] = field(default_factory=dict)
    then: str = ""


@dataclass
class Prover:
    """Tries the keys of one engine in one stage.

    Attributes:
        runs: How many runs it took.
    """

    engine: Engine
    scene: Scene
    stage: str
    runs: int = 0
    _expected: dict[str, Watcher] = field(default_factory=dict)

    def findings(self, names: Iterable[str]) -> dict[str, Finding]:
        """What this engine does with each key.

        Raises:
            WorkError: Two runs without any change differ: nothing could be concluded.
        """
        config = self.scene.configs[self.stage]
        reads = engines.trace(self.engine, config)
        if kind := self._compare({}, Case()):
            raise WorkError(f"{self.engine}, {self.stage}: two equal runs differ in their {kind}")
        names = list(names)
        tried = [name for name in names if not self._untried(name)]
        # What is known to change nothing here goes with what is not read. A copy of ours is read.
        asked = {*reads.read, *(reads.copied if self.engine == "here" else ())}
        alone = {
            name
            for name in tried
            if name in asked
            and not _idle(name, reads)
            and EXPLAINED.get((name, self.engine), "") in {"", *BY_STAGE}
            and (self._holds(CONDITIONS.get(name, {})) or name in _CONDITIONING)
        }
        seen = {name: self.try_key(name) for name in tried if name in alone}
        seen |= self.try_together([name for name in tried if name not in alone])
        return {name: self._finding(name, reads, seen.get(name)) for name in names}

    def try_key(self, name: str, condition: Mapping[str, Any] | None = None) -> str | None:
        """What a change of one key changes first; None for nothing.

        Args:
            name: The dotted key.
            condition: Other keys that both runs have set.
        """
        case = CASES.get(name, Case())
        scene = {**self._files(case.scene), **self._files(condition or {})}
        return self._compare({name: self._other(name, scene)}, Case(scene=scene, twice=case.twice))

    def _holds(self, condition: Mapping[str, Any]) -> bool:
        config = self.scene.configs[self.stage]
        return all(config.get(key) == value for key, value in self._files(condition).items())

    def _untried(self, name: str) -> str:
        if self.engine == "here" and name in AT_LOADING:
            return "acts when the configuration is loaded"
        return UNTRIED.get(name, {}).get(self.engine, "")

    def _finding(self, name: str, reads: Reads, seen: str | None) -> Finding:
        if self.engine == "here" and name in AT_LOADING:
            return Finding(frozenset({AT_LOADING[name]}), None, self._untried(name))
        readers = reads.read.get(name)
        if seen is not None and not readers:
            readers = reads.copied.get(name)  # it acts, so somebody read it from a copy
        return Finding(
            readers=frozenset(readers or ()),
            seen=seen,
            untried=self._untried(name),
            swallowed=frozenset(reads.swallowed.get(name) or ()),
            idle=_idle(name, reads),
        )

    def try_together(self, names: Sequence[str]) -> dict[str, str | None]:
        if not names:
            return {}
        kind = self._compare({name: self._other(name, {}) for name in names}, Case())
        if kind is None or len(names) == 1:
            return dict.fromkeys(names, kind)
        half = len(names) // 2
        return {**self.try_together(names[:half]), **self.try_together(names[half:])}

    def _compare(self, changes: Mapping[str, Any], case: Case) -> str | None:
        config = self.scene.configs[self.stage]
        label = repr(sorted(case.scene.items())) + str(case.twice)
        if label not in self._expected:
            self.runs += 1
            if case.twice:
                engines.observe(self.engine, config, case.scene)
            self._expected[label] = engines.observe(
                self.engine, config, case.scene, keep_output=case.twice
            )
        if case.twice:
            engines.observe(self.engine, config, case.scene)
        self.runs += 1
        return engines.compare(
            self.engine,
            config,
            {**case.scene, **changes},
            self._expected[label],
            keep_output=case.twice,
        )

    def _other(self, name: str, scene: Mapping[str, Any]) -> Any:
        present = engines.present(self.scene.configs[self.stage], self.engine)
        return other_value(name, scene.get(name, present.get(name)), self.scene.others)

    def _files(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: self.scene.others[value[1:]]
            if isinstance(value, str) and value.startswith("@")
            else value
            for name, value in values.items()
        }


def prove(
    scene: Scene,
    names: Sequence[str] | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Row]:
    """The row of each key, by its dotted name, sorted.

    Args:
        scene: With the stages to prove.
        names: Keys; all of the schema if none are named.
        on_progress: Gets a line for each engine and stage.

    Raises:
        WorkError: Trace and trial disagree somewhere, and nothing says why.
    """
    names = list(names if names is not None else keys.all_keys())
    found: dict[tuple[Engine, str], dict[str, Finding]] = {}
    provers: dict[tuple[Engine, str], Prover] = {}
    for stage in scene.configs:
        for engine in ENGINES:
            prover = Prover(engine, scene, stage)
            found[engine, stage] = prover.findings(names)
            provers[engine, stage] = prover
            on_progress(f"{stage}, {engine}: {prover.runs} runs")
    problems: list[str] = []
    rows = {
        name: _row(name, {at: findings[name] for at, findings in found.items()}, provers, problems)
        for name in sorted(names)
    }
    if problems:
        raise WorkError("trace and trial disagree:\n" + "\n".join(problems))
    return rows


def _row(
    name: str,
    findings: Mapping[tuple[Engine, str], Finding],
    provers: Mapping[tuple[Engine, str], Prover],
    problems: list[str],
) -> Row:
    stages = list(dict.fromkeys(stage for _, stage in findings))
    effects = {
        stage: EFFECT[findings["stock", stage].acts, findings["here", stage].acts]
        for stage in stages
    }
    notes = [*_seen_notes(findings), *_untried_notes(findings)]
    needs, then = _conditional(name, findings, provers)
    if not needs:
        notes += _idle_notes(name, findings, problems)
    if remark := REMARKS.get(name):
        notes.append(remark)
    for (engine, stage), finding in findings.items():
        if finding.seen is not None and not finding.readers:
            problems.append(f"{name} ({engine}, {stage}): acts on {finding.seen}, nobody reads it")
    readers = sorted(set().union(*(finding.readers for finding in findings.values())))
    if not notes and not needs:
        notes.append("nobody asks for it")
    return Row(effects, tuple(readers), "; ".join(dict.fromkeys(notes)), needs, then)


def _seen_notes(findings: Mapping[tuple[Engine, str], Finding]) -> list[str]:
    """What a change of the key changes, for each engine that it changes."""
    return _by_engine({engine: _seen_words(findings, engine) for engine in _acting(findings)})


def _seen_words(findings: Mapping[tuple[Engine, str], Finding], engine: Engine) -> str:
    """`changes loss, what is logged (s1, s3)`: with its stages what not all acting stages show."""
    stages: dict[str, list[str]] = {}
    for (own, stage), finding in findings.items():
        if own == engine and finding.seen:
            stages.setdefault(SEEN_AS.get(finding.seen, finding.seen), []).append(stage)
    number = sum(map(len, stages.values()))
    changes = [
        words + (f" ({', '.join(shown)})" if len(shown) < number else "")
        for words, shown in sorted(stages.items())
        if words != "error"
    ]
    words = f"changes {', '.join(changes)}" if changes else ""
    if "error" not in stages:
        return words
    failing = stages["error"]
    where = f" ({', '.join(failing)})" if len(failing) < number else ""
    return f"{words} or ends in an error{where}" if words else "ends in an error"


def _untried_notes(findings: Mapping[tuple[Engine, str], Finding]) -> list[str]:
    reasons = {engine: f.untried for (engine, _), f in findings.items() if f.untried}
    return [f"{engine}: by trace, since it {reason}" for engine, reason in reasons.items()]


def _acting(findings: Mapping[tuple[Engine, str], Finding]) -> list[Engine]:
    return [
        engine for engine in ENGINES if any(f.acts for (e, _), f in findings.items() if e == engine)
    ]


def _by_engine(words: Mapping[Engine, str]) -> list[str]:
    """Words about engines, said once where they are the same for both."""
    if len(words) > 1 and len(set(words.values())) == 1:
        return [text for text in words.values() if text][:1]
    return [f"{engine}: {text}" for engine, text in words.items() if text]


def _conditional(
    name: str,
    findings: Mapping[tuple[Engine, str], Finding],
    provers: Mapping[tuple[Engine, str], Prover],
) -> tuple[dict[str, Any], str]:
    """The keys that a key needs and its effect with them, where a stage does not set those."""
    condition = CONDITIONS.get(name, {})
    stages = list(dict.fromkeys(stage for _, stage in findings))
    idle = [s for s in stages if not any(findings[engine, s].acts for engine in ENGINES)]
    if not condition or not idle:
        return {}, ""
    acts: dict[Engine, bool] = {}
    for stage in idle:  # it may need what the first one does not have, such as a frozen encoder
        acts = {
            engine: provers[engine, stage].try_key(name, condition) is not None
            for engine in ENGINES
        }
        if any(acts.values()):
            break
    needs = {
        key: "a file" if str(value).startswith("@") else value for key, value in condition.items()
    }
    return needs, EFFECT[acts["stock"], acts["here"]]


def _idle_notes(
    name: str, findings: Mapping[tuple[Engine, str], Finding], problems: list[str]
) -> list[str]:
    """Why nothing happens where somebody reads the key; who swallows it where nobody does."""
    notes: dict[Engine, str] = {}
    acting = _acting(findings)
    for (engine, stage), finding in findings.items():
        if finding.acts:
            continue
        if finding.idle:
            notes[engine] = finding.idle
        elif finding.readers:
            notes[engine] = EXPLAINED.get((name, engine), "")
            if not notes[engine]:
                problems.append(f"{name} ({engine}, {stage}): {sorted(finding.readers)} read it")
        elif finding.swallowed and not acting:
            classes = sorted({reader.rpartition(":")[2] for reader in finding.swallowed})
            notes.setdefault(engine, f"ends in **kwargs of {', '.join(classes)}")
    if not acting and len(set(notes.values())) == 1:
        return [next(iter(notes.values()))]
    return _by_engine(notes)


def _idle(name: str, reads: Reads) -> str:
    """Where a value is taken and goes no further; empty if it may."""
    readers = reads.read.get(name) or set()
    if unused := reads.unused.get(name):
        if readers:
            return ""
        classes = sorted({reader.rpartition(":")[2] for reader in unused})
        return f"a parameter of {', '.join(classes)} that it never uses"
    stored = reads.stored.get(name) or set()
    owners = {owner for owner, _ in stored}
    if not stored or {reader.rpartition(":")[2] for reader in readers} != owners:
        return ""
    files = {reader.rpartition(":")[2]: reader.rpartition(":")[0] for reader in readers}
    if any(_loads(files[owner], owner, attribute) for owner, attribute in stored):
        return ""
    owner, attribute = min(stored)
    return f"kept as {owner}.{attribute}, which nothing uses"


@cache
def _loads(file: str, owner: str, attribute: str) -> bool:
    """Whether a class, or FunASR's training command around it, uses an attribute."""
    if not file.startswith("funasr/"):
        return True
    module = load(file.removesuffix(".py").replace("/", "."))
    trees: list[ast.AST] = [ast.parse(inspect.getsource(stock_engine.training_module()))]
    trees += [
        node
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.ClassDef) and node.name == owner
    ]
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == attribute
        and isinstance(node.ctx, ast.Load)
        for tree in trees
        for node in ast.walk(tree)
    )
