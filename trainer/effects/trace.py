"""Which keys of a configuration are read, and by whom, through any number of `**kwargs`.

`traced` runs code under a call hook. A configuration wrapped in `Traced` notes each `[key]`,
`.get(key)` and `key in`; where it is spread over a call, the hook sees which named parameters took
a value and puts a `Traced` in the place of the callee's `**kwargs`, so that reads in there count
for the same keys. A named parameter counts only if the function's code uses it.
"""

from __future__ import annotations

import contextlib
import copy
import dis
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from conf import keys

_ROOT = Path(__file__).parents[2]
_LOOKUP = "conf/load.py"
"""Where `config["optim_conf.lr"]` is looked up; who asks is the reader. The other modules of conf
go through all keys, to classify and to write them, and read none."""

_KEYS = keys.all_keys()

_COUNTED = ("funasr/", "trainer/", "torch/optim/")
"""Whose named parameters count as readers; what these hand on further is theirs."""

_WATCHERS = "trainer/effects/"

_LOADS = {"LOAD_FAST", "LOAD_DEREF", "LOAD_CLOSURE", "LOAD_CLASSDEREF"}


@dataclass
class Reads:
    """What a traced run read: readers by dotted key."""

    read: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    copied: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Keys of blocks that somebody copied whole; what they do with the copy is not seen."""
    swallowed: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Keys that arrived in somebody's `**kwargs`."""
    unused: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Keys that a named parameter took whose value the function never uses."""
    stored: defaultdict[str, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))
    """(Class, attribute) that a key's value was put into."""
    blocks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Leaf values of each block, to know them again in another dictionary."""


class Traced(dict[str, Any]):
    """A block of configuration that notes who reads which key."""

    def __init__(
        self, values: Mapping[str, Any], keys: Mapping[str, str], prefix: str | None, reads: Reads
    ) -> None:
        super().__init__(values)
        self._keys = dict(keys)
        self._prefix = prefix
        self._reads = reads

    @property
    def block(self) -> str:
        """Its own dotted name."""
        return (self._prefix or "").removesuffix(".")

    def __getitem__(self, name: str) -> Any:
        frame = sys._getframe(1)
        # Spreading (`**`) and copying get items, too, but are noted otherwise or not at all.
        if _operation(frame) == "BINARY_SUBSCR":
            self._note(name, frame)
        return super().__getitem__(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self._keys.pop(name, None)  # from now on this is somebody else's value
        super().__setitem__(name, value)

    def __contains__(self, name: object) -> bool:
        if isinstance(name, str):
            self._note(name, sys._getframe(1))
        return super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        return super().__iter__()

    def get(self, name: str, default: Any = None) -> Any:
        self._note(name, sys._getframe(1))
        return super().get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        self._note(name, sys._getframe(1))
        return super().pop(name, *default)

    def setdefault(self, name: str, default: Any = None) -> Any:
        self._note(name, sys._getframe(1))
        return super().setdefault(name, default)

    def keys(self) -> Any:
        frame = sys._getframe(1)
        if _operation(frame) not in ("DICT_MERGE", "DICT_UPDATE"):
            self._note_copy(frame)
        return super().keys()

    def items(self) -> Any:
        self._note_copy(sys._getframe(1))
        return super().items()

    def __deepcopy__(self, memo: dict[int, Any]) -> Traced:
        values = {name: copy.deepcopy(value, memo) for name, value in dict.items(self)}
        return Traced(values, self._keys, self._prefix, self._reads)

    def __reduce__(self) -> Any:
        return dict, (dict(dict.items(self)),)

    def _note(self, name: str, frame: FrameType) -> None:
        key = self._keys.get(name)
        if key is None and self._prefix is not None and not dict.__contains__(self, name):
            key = f"{self._prefix}{name}"
        if key is None or (reader := _reader_frame(frame)) is None:
            return
        if key not in keys.blocks():
            self._reads.read[key].add(_who(reader))
            _note_attribute(self._reads, key, reader)
        elif not dict.__contains__(self, name):  # a block that nobody sets, asked for
            for within in _KEYS:
                if within.startswith(f"{key}."):
                    self._reads.read[within].add(_who(reader))

    def _note_copy(self, frame: FrameType) -> None:
        if (reader := _reader_frame(frame)) is not None:
            for key in self._keys.values():
                self._reads.copied[key].add(_who(reader))


def wrap(values: Mapping[str, Any], reads: Reads, prefix: str = "") -> Traced:
    """A configuration as `Traced`, block by block."""
    wrapped: dict[str, Any] = {}
    keys: dict[str, str] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        keys[name] = key
        is_block = isinstance(value, dict) and key not in _KEYS
        wrapped[name] = wrap(value, reads, f"{key}.") if is_block else value
    reads.blocks[prefix] = {
        name: value for name, value in wrapped.items() if not isinstance(value, Traced)
    }
    return Traced(wrapped, keys, prefix, reads)


@contextlib.contextmanager
def traced(reads: Reads) -> Iterator[None]:
    """Follows configuration through calls with `**` while the block runs.

    It writes into the callee's frame from a trace function, as debuggers do (Python 3.11).
    """
    before = sys.gettrace()

    def on_event(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_back is not None and _is_watched(frame.f_back.f_code):
            _on_call(frame, reads)

    sys.settrace(on_event)
    try:
        yield
    finally:
        sys.settrace(before)


def _on_call(frame: FrameType, reads: Reads) -> None:
    """Finds values of the configuration among the arguments of a call with `**`."""
    assert frame.f_back is not None
    if _operation(frame.f_back) != "CALL_FUNCTION_EX":
        return
    code = frame.f_code
    named = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    rest_name = _rest_name(code)
    variables = frame.f_locals
    arguments = {name: variables[name] for name in named if name in variables}
    rest: dict[str, Any] = variables[rest_name] if rest_name else {}
    keys = _origins({**arguments, **rest}, reads)
    if not keys and not any(isinstance(value, Traced) for value in rest.values()):
        return
    who = _who(frame)
    if not who.startswith(_COUNTED) or who.startswith(_WATCHERS):
        return
    keys |= _defaulted(frame, keys, reads)
    for name in arguments.keys() & keys.keys():
        if _uses(code, name):
            reads.read[keys[name]].add(who)
            for attribute in _attributes_from(code, name):
                reads.stored[keys[name]].add((_class_of(frame), attribute))
        else:
            reads.unused[keys[name]].add(who)
    if rest_name and any(name in keys or isinstance(rest[name], Traced) for name in rest):
        own = {name: keys[name] for name in rest if name in keys}
        own |= {name: value.block for name, value in rest.items() if isinstance(value, Traced)}
        for key in own.values():
            reads.swallowed[key].add(who)
        prefixes = {key.rpartition(".")[0] for key in own.values()}
        prefix = None
        if len(prefixes) == 1:
            block = prefixes.pop()
            prefix = f"{block}." if block else ""
        elif "" in prefixes:
            prefix = ""
        variables[rest_name] = Traced(rest, own, prefix, reads)


def _origins(arguments: Mapping[str, Any], reads: Reads) -> dict[str, str]:
    """Dotted keys of arguments that are values of the configuration.

    A value is known by its name and identity. Where several blocks hold such a one, it comes from
    the block of which most arrived.
    """
    matches = {
        prefix: {
            name for name, value in block.items() if name in arguments and arguments[name] is value
        }
        for prefix, block in reads.blocks.items()
        if block
    }
    share = {prefix: len(names) / len(reads.blocks[prefix]) for prefix, names in matches.items()}
    ranked = sorted(matches, key=lambda prefix: (-share[prefix], -len(matches[prefix]), prefix))
    # A call gets one block, or the top level with model_conf laid over it.
    whole = [prefix for prefix in ranked if matches[prefix]]
    chosen = whole[:1]
    if chosen and {"", "model_conf."} & set(chosen):
        chosen += [prefix for prefix in ("", "model_conf.") if prefix in whole]
    origins: dict[str, str] = {}
    for prefix in chosen:
        for name in matches[prefix]:
            origins.setdefault(name, f"{prefix}{name}")
    return origins


def _defaulted(frame: FrameType, keys: Mapping[str, str], reads: Reads) -> dict[str, str]:
    """Keys that nobody sets and that a named parameter would take: it has its default."""
    prefixes = {f"{key.rpartition('.')[0]}." if "." in key else "" for key in keys.values()}
    defaults = _defaults(frame)
    prefixes &= reads.blocks.keys()
    variables = frame.f_locals
    return {
        name: f"{prefix}{name}"
        for name in frame.f_code.co_varnames[: frame.f_code.co_argcount]
        for prefix in prefixes
        if name not in reads.blocks[prefix]
        and f"{prefix}{name}" in _KEYS
        and name in defaults
        and variables.get(name) is defaults[name]
    }


def _defaults(frame: FrameType) -> dict[str, Any]:
    """The default values of the function that a frame runs."""
    code = frame.f_code
    owner = frame.f_locals.get("self")
    function = getattr(type(owner), code.co_name, None) if owner is not None else None
    function = function or frame.f_globals.get(code.co_name)
    while function is not None and getattr(function, "__code__", None) is not code:
        function = getattr(function, "__wrapped__", None)
    if function is None or not function.__defaults__:
        return {}
    values = function.__defaults__
    return dict(zip(code.co_varnames[code.co_argcount - len(values) :], values, strict=False))


def _reader_frame(frame: FrameType) -> FrameType | None:
    """Who reads; None if it is conf on its own account."""
    while _file_of(frame.f_code) == _LOOKUP and frame.f_back is not None:
        frame = frame.f_back
    return None if _file_of(frame.f_code).startswith("conf/") else frame


def _who(frame: FrameType) -> str:
    """`funasr/models/fun_asr_nano/model.py:FunASRNano`."""
    return f"{_file_of(frame.f_code)}:{_class_of(frame)}"


def _class_of(frame: FrameType) -> str:
    return frame.f_code.co_qualname.split(".")[0]


@cache
def _file_of(code: CodeType) -> str:
    """A file's name from its package on."""
    parts = Path(code.co_filename).parts
    if "site-packages" in parts:
        return "/".join(parts[parts.index("site-packages") + 1 :])
    path = Path(code.co_filename)
    return path.relative_to(_ROOT).as_posix() if path.is_relative_to(_ROOT) else path.name


@cache
def _is_watched(code: CodeType) -> bool:
    return _file_of(code).startswith(("funasr/", "trainer/"))


def _operation(frame: FrameType) -> str:
    """The bytecode operation that a frame is in."""
    return _operations(frame.f_code).get(frame.f_lasti, "")


@cache
def _operations(code: CodeType) -> dict[int, str]:
    """Also at the inline caches behind an instruction, where a frame may stand in a call."""
    operations: dict[int, str] = {}
    current = ""
    starts = {instruction.offset: instruction.opname for instruction in _instructions(code)}
    for offset in range(0, len(code.co_code), 2):
        current = starts.get(offset, current)
        operations[offset] = current
    return operations


@cache
def _instructions(code: CodeType) -> tuple[dis.Instruction, ...]:
    return tuple(dis.get_instructions(code))


def _rest_name(code: CodeType) -> str | None:
    """The name of the `**` parameter."""
    if not code.co_flags & 0x08:  # CO_VARKEYWORDS
        return None
    number = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 0x04)
    return code.co_varnames[number]


@cache
def _uses(code: CodeType, name: str) -> bool:
    return any(
        instruction.opname in _LOADS and instruction.argval == name
        for instruction in _instructions(code)
    )


@cache
def _attributes_from(code: CodeType, name: str) -> tuple[str, ...]:
    """Attributes that a function sets to just its parameter, if it does nothing else with it."""
    instructions = _instructions(code)
    attributes = []
    for load, owner, following in zip(
        instructions, instructions[1:], instructions[2:], strict=False
    ):
        if load.opname in _LOADS and load.argval == name:
            if following.opname != "STORE_ATTR" or owner.argval != "self":
                return ()
            attributes.append(following.argval)
    return tuple(attributes)


def _note_attribute(reads: Reads, key: str, frame: FrameType) -> None:
    """Notes the attribute that a line such as `self.x = kwargs.get("x")` sets."""
    code = frame.f_code
    lines = [position[0] for position in code.co_positions()]
    instructions = _instructions(code)
    for owner, instruction in zip(instructions, instructions[1:], strict=False):
        if (
            instruction.opname == "STORE_ATTR"
            and owner.argval == "self"
            and lines[instruction.offset // 2] == frame.f_lineno
        ):
            reads.stored[key].add((_class_of(frame), instruction.argval))
