"""Read YAML into plain values with the line of every key.

Numbers in YAML 1.1 need a point (`5e-5` would be text); here `5e-5` and `5.0e-5` are the same
number, as FunASR's own reader (OmegaConf) has it. Dates stay text. No tag ever builds an object.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from conf.errors import ConfigError

MAX_BYTES = 1_000_000
"""A configuration is some kilobytes; a file beyond this is something else (a manifest, weights)."""

CORE_TAGS = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")
)


@dataclass(frozen=True)
class Document:
    """A YAML file as plain nested values, and where each key stands."""

    path: Path
    values: dict[str, Any]
    lines: dict[str, int]
    """Line, from 1, of each dotted key; blocks and items of lists (`stages.0`) included."""
    comments: dict[str, str] = field(default_factory=dict)
    """What stands behind a value in its line (`lr: 5e-5  # why`), without the `#`."""

    def where(self, key: str) -> str:
        """`FILE:LINE` of a dotted key, or of the nearest block around it."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return f"{self.path}:{self.lines[key]}" if key else str(self.path)


FLOAT = re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$")
"""Numbers with an exponent and without a point, which YAML 1.1 takes for text."""


COMMENT = re.compile(r"[ \t,\]}]*(?<=[ \t])#([^\n\r\x85\u2028\u2029]*)")
"""What may stand behind a value before its line ends, of which a comment is wanted."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with 5e-5 as a number, dates as text and no aliases."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's own way of saying it)
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, "got an alias (*), expected the value itself", event.start_mark
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789"))


def read_yaml(path: Path | str) -> Document:
    """Read a YAML file.

    Args:
        path: The file; its top level must be `key: value` pairs (an empty file is none of them).

    Raises:
        ConfigError: If the file cannot be read, is not YAML, or has a duplicate key, a tab as
            indentation, an alias or a tag that would build an object; each with its line.
    """
    path = Path(path)
    text = _read_text(path)
    node = _compose(text, str(path))
    if node is None:
        return Document(path, {}, {})
    if not isinstance(node, yaml.MappingNode):
        # A text may be all that a file holds, which was named by mistake: it is not for a log.
        got = "a text" if isinstance(node, yaml.ScalarNode) else _kind(node)
        raise ConfigError(f"{path}:{_line(node)}: got {got}, expected `key: value` pairs")
    lines: dict[str, int] = {}
    values = _plain(node, "", str(path), lines)
    assert isinstance(values, dict)
    ends = dict(_value_ends(node, ""))
    comments = {key: comment for key, end in ends.items() if (comment := _comment(text, end))}
    return Document(path, values, lines, comments)


def value_ends(text: str, label: str) -> dict[str, int]:
    """Where the value of each dotted leaf key ends, as an index into the text.

    Values written as a block of text (`|`, `>`) are left out: nothing can stand behind them.
    """
    node = _compose(text, label)
    return dict(_value_ends(node, "")) if isinstance(node, yaml.MappingNode) else {}


def parse_value(text: str, label: str) -> Any:
    """Read one value as YAML would: `1e-4`, `true`, `null`, `[0, 15]`, or text.

    Args:
        text: What was typed.
        label: Who says so if it is wrong, such as `command line: optim_conf.lr`.
    """
    node = _compose(text, label)
    if isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{label}: got {text!r}, expected one value, not a block")
    return None if node is None else _plain(node, "", label, {})


def flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
    """`{"optim_conf": {"lr": 1}}` -> `{"optim_conf.lr": 1}`; lists and empty blocks are leaves."""
    return dict(_leaves(nested, ""))


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The opposite of `flatten`."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        put(nested, key, value)
    return nested


def put(nested: dict[str, Any], key: str, value: Any) -> None:
    """Set a value by its dotted key; blocks that are missing are added."""
    *blocks, last = key.split(".")
    for name in blocks:
        nested = nested.setdefault(name, {})
    nested[last] = value


def _leaves(nested: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in nested.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _read_text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ConfigError(
                f"{path}: got {size:,} bytes, expected a YAML file below {MAX_BYTES:,}"
            )
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file, expected a YAML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: got a byte that is not UTF-8 at {error.start}") from None
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise ConfigError(f"{path}: {reason}, expected a YAML file") from None


def _compose(text: str, label: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{label}{line}: {_problem(error)}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{label}: not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ConfigError(f"{label}: nested too deeply to be a configuration") from None


def _problem(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "not YAML"
    if "'\\t'" in problem:
        return "got a tab, expected spaces"
    return problem if problem.startswith("got ") else f"not YAML: {problem}"


def _plain(node: yaml.Node, key: str, label: str, lines: dict[str, int]) -> Any:
    """The value of a node; notes the lines of the keys under it."""
    if node.tag not in CORE_TAGS:
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise ConfigError(f"{label}:{_line(node)}: got the tag {tag}, expected a plain value")
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, key, label, lines)
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            lines[f"{key}.{index}"] = _line(item)
            items.append(_plain(item, f"{key}.{index}", label, lines))
        return items
    try:
        return _Loader("").construct_object(node)
    except (ValueError, KeyError, yaml.YAMLError):
        kind = node.tag.rpartition(":")[2]
        raise ConfigError(f"{label}:{_line(node)}: {key}: got {node.value!r} as {kind}") from None


def _mapping(node: yaml.MappingNode, key: str, label: str, lines: dict[str, int]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name_node, value_node in node.value:
        line = _line(name_node)
        if not isinstance(name_node, yaml.ScalarNode):
            raise ConfigError(f"{label}:{line}: got {_kind(name_node)} as a key, expected a name")
        name = name_node.value
        dotted = f"{key}.{name}" if key else name
        if name in values:
            raise ConfigError(
                f"{label}:{line}: {dotted}: got the key a second time,"
                f" expected it once (first in line {lines[dotted]})"
            )
        lines[dotted] = line
        values[name] = _plain(value_node, dotted, label, lines)
    return values


def _value_ends(node: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, int]]:
    for name, value in node.value:
        key = f"{prefix}{name.value}"
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _value_ends(value, f"{key}.")
        elif (last := _last_part(value)) is not None:
            yield key, last.end_mark.index


def _last_part(node: yaml.Node) -> yaml.Node | None:
    """The node that ends where a value ends; a list in lines ends with its last item, but its own
    mark stands at whatever comes next."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _last_part(last[1] if isinstance(last, tuple) else last)
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        return None
    return node


def _comment(text: str, start: int) -> str:
    """The comment between an index and the end of its line."""
    found = COMMENT.match(text, start)
    return found[1].strip() if found else ""


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return "a block" if isinstance(node, yaml.MappingNode) else repr(node.value)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
