"""Lay values over each other, keep in mind who said what, and check the whole at once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from conf import references, schema
from conf.errors import ConfigError
from conf.reading import Document, flatten, unflatten
from conf.writing import format_value

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
    known = {key for layer in layers for key in layer.values if schema.find_key(key)} | foreign
    problems = [line for layer in layers for line in _name_problems(layer, known)]
    where = who_said(layers)
    merged = {key: value for key, value in merge(layers).items() if key in known}
    resolved, unresolved = references.resolve(merged)
    checked, invalid = schema.validate(
        unflatten({key: value for key, value in resolved.items() if key not in foreign})
    )
    problems += [
        f"{where(wrong.key)}: {wrong.key}: got {_show(wrong.got)}, expected {wrong.expected}"
        for wrong in (*unresolved, *invalid)
    ]
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
        if not schema.find_key(key)
        and key not in foreign
        and key not in schema.blocks()
        and not REFUSED & set(key.split("."))
        and not any(_is_leaf(outer, values) for outer in _around(key))
    ]


def _around(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _is_leaf(key: str, values: Mapping[str, Any]) -> bool:
    return key in values or (schema.find_key(key) is not None and not schema.is_block(key))


def who_said(layers: Sequence[Layer]) -> Callable[[str], str]:
    """Who said a key last; of a block, who said one of its keys last."""

    def where(key: str) -> str:
        for layer in reversed(layers):
            if any(name == key or name.startswith(f"{key}.") for name in layer.values):
                return layer.where(key)
        return layers[-1].label

    return where


def nearest_key(name: str, known: Iterable[str] | None = None) -> str | None:
    """The known key or block that an unknown name most likely means."""
    candidates = list(known) if known is not None else [*schema.keys(), *schema.blocks()]
    last = {key: key.rpartition(".")[2] for key in candidates}
    wanted = name.rpartition(".")[2]
    close = get_close_matches(name, candidates, 1, 0.75)
    close = close or [key for key in candidates if last[key] == wanted]
    if not close and (similar := get_close_matches(wanted, last.values(), 1)):
        close = [key for key in candidates if last[key] == similar[0]]
    return close[0] if close else None


def _name_problems(layer: Layer, known: Iterable[str]) -> list[str]:
    """A line for each key that is refused, unknown, or a block that got a value."""
    problems = []
    for key, value in layer.values.items():
        start = f"{layer.where(key)}: {key}: got"
        if REFUSED & set(key.split(".")):
            problems.append(f"{start} {_show(value)}, expected no such key: no foreign code is run")
        elif key in schema.blocks():
            problems.append(f"{start} {_show(value)}, expected a block of keys")
        elif key not in known:
            near = nearest_key(key)
            hint = f" (nearest: {near})" if near else ""
            problems.append(f"{start} an unknown key, expected a known one{hint}")
    return problems


def _show(value: Any) -> str:
    text = "a block" if isinstance(value, Mapping) else format_value(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
