"""Lay values over each other, keep in mind who said what, and check the whole at once."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conf import explain, keys
from conf.errors import ConfigError
from conf.explain import Problem, lines, show
from conf.reading import Document, flatten, unflatten

REFUSED = frozenset({"trust_remote_code", "remote_code"})
"""Keys that would run code found beside the weights."""


@dataclass(frozen=True)
class Layer:
    """Values by dotted key, and who says so."""

    label: str
    values: Mapping[str, Any]
    document: Document | None = None

    def where(self, key: str) -> str:
        """`FILE:LINE` where the layer is a file, else its label."""
        return self.document.where(key) if self.document else self.label


def effective(layers: tuple[Layer, ...], foreign: frozenset[str]) -> dict[str, Any]:
    """The checked values of all layers.

    Args:
        layers: The lowest first.
        foreign: Keys that the schema does not know and that are kept, unchecked: the weights' own
            config.yaml has them, so the model may read them, or they are allowed by name.
    """
    known = {key for layer in layers for key in layer.values if keys.find_key(key)} | foreign
    problems = [line for layer in layers for line in _name_problems(layer, known)]
    where = who_said(layers)
    merged = {key: value for key, value in merge(layers).items() if key in known}
    resolved, unresolved = resolve(merged)
    checked, invalid = keys.validate(
        unflatten({key: value for key, value in resolved.items() if key not in foreign})
    )
    problems += lines((*unresolved, *invalid), where)
    if problems:
        raise ConfigError(problems)
    kept = {key: value for key, value in resolved.items() if key in foreign}
    return unflatten({**flatten(checked), **kept})


def merge(layers: Iterable[Layer]) -> dict[str, Any]:
    """The values of all layers; a later one wins."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer.values
    return merged


def unknown_keys(layers: Iterable[Layer], foreign: frozenset[str] = frozenset()) -> list[str]:
    """The keys that could be let through: unknown, not refused, and not inside a plain value."""
    values = merge(layers)
    return [
        key
        for key in values
        if not keys.find_key(key)
        and key not in foreign
        and key not in keys.blocks()
        and not REFUSED & set(key.split("."))
        and not any(_is_leaf(outer, values) for outer in _around(key))
    ]


def _around(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _is_leaf(key: str, values: Mapping[str, Any]) -> bool:
    return key in values or (keys.find_key(key) is not None and not keys.is_block(key))


def who_said(layers: Sequence[Layer]) -> Callable[[str], str]:
    """Who said a key last; of a block, who said one of its keys, of an item, who said its list."""

    def where(key: str) -> str:
        for layer in reversed(layers):
            if any(_lies_in(name, key) or _lies_in(key, name) for name in layer.values):
                return layer.where(key)
        return layers[-1].label

    return where


def _lies_in(key: str, block: str) -> bool:
    return key == block or key.startswith(f"{block}.")


def unknown_key(key: str) -> Problem:
    """Say that a configuration has no such key, and the nearest that it has."""
    return explain.unknown_key(key, [*keys.all_keys(), *keys.blocks()], listed=False)


def _name_problems(layer: Layer, known: Iterable[str]) -> list[str]:
    """A line for each key that is refused, unknown, or a block that got a value."""
    problems: list[Problem] = []
    for key, value in layer.values.items():
        if REFUSED & set(key.split(".")):
            problems.append(Problem(key, show(value), "no such key: no foreign code is run"))
        elif key in keys.blocks():
            problems.append(Problem(key, show(value), "a block of keys"))
        elif key not in known:
            problems.append(unknown_key(key))
    return lines(problems, layer.where)


REFERENCE = re.compile(r"\$\{([^{}]*)\}")


class _Unresolvable(Exception):
    """A reference in a circle or to nothing; the text says what was expected."""


def resolve(flat: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """Put the values in the place of the references to them.

    A reference that is the whole value keeps the type of what it refers to; within a longer text it
    becomes text.

    Args:
        flat: Values by dotted key.

    Returns:
        The values without references, and a problem for each that leads nowhere or in a circle
        (those keys are left out).
    """
    resolved, problems = {}, []
    for key, value in flat.items():
        try:
            resolved[key] = _resolve(value, flat, (key,))
        except _Unresolvable as reason:
            problems.append(Problem(key, show(value), str(reason)))
    return resolved, tuple(problems)


def _resolve(value: Any, flat: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    if isinstance(value, list):
        return [_resolve(item, flat, path) for item in value]
    if not isinstance(value, str):
        return value
    if whole := REFERENCE.fullmatch(value):
        return _follow(whole[1].strip(), flat, path)
    return REFERENCE.sub(lambda part: str(_follow(part[1].strip(), flat, path)), value)


def _follow(target: str, flat: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    if target in path:
        circle = " -> ".join((*path[path.index(target) :], target))
        raise _Unresolvable(f"a reference that ends at a value, not in a circle ({circle})")
    if target not in flat:
        raise _Unresolvable(f"a reference to a key that is set ({target} is not)")
    return _resolve(flat[target], flat, (*path, target))
