"""Explain what a schema refuses: `FILE:LINE: key: got ..., expected ... (nearest: ...)`.

    try:
        ranges = ChannelRange.model_validate(document.values)
    except ValidationError as error:
        raise ConfigError(lines(problems(error, ChannelRange), document.where)) from None

What a field expects is said in the words of its type (`a whole number >= 1`), the same in errors
and in the documents; pydantic's own words are for programmers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from conf.writing import format_value

FREE_BLOCK = "a block of any keys"
_BLOCK = "a block of keys"
_MAX_CHARS = 80
"""Of a value that is shown: an error is one line."""
_UNKNOWN = "an unknown key"


@dataclass(frozen=True)
class Problem:
    """A key that is not what its schema expects; `got` and `expected` in words."""

    key: str
    got: str
    expected: str

    @property
    def message(self) -> str:
        """What is wrong, without the key."""
        return f"got {self.got}, expected {self.expected}"


def problems(error: ValidationError, model: type[BaseModel]) -> tuple[Problem, ...]:
    """What pydantic found, one problem for each key; unknown keys first.

    A misspelt key is often what is missing, too, and then explains it.
    """
    found: dict[str, Problem] = {}
    for detail in error.errors(include_url=False):
        kind = detail["type"]
        key, expected, known = _field_at(model, detail["loc"])
        if kind == "extra_forbidden":
            problem = unknown_key(key, known)
        elif kind == "missing":
            problem = Problem(key, "nothing", "this key")
        else:
            if kind == "value_error":
                expected = str(detail["ctx"]["error"])
            problem = Problem(key, show(detail["input"]), expected)
        found.setdefault(key, problem)
    return tuple(sorted(found.values(), key=lambda problem: problem.got != _UNKNOWN))


def lines(found: Iterable[Problem], where: Callable[[str], str]) -> list[str]:
    """Put before each problem where its key was said."""
    return [f"{where(problem.key)}: {problem.key}: {problem.message}" for problem in found]


def unknown_key(key: str, known: Iterable[str], *, listed: bool = True) -> Problem:
    """Say that a key is unknown, and the nearest of those that are known.

    Args:
        key: The key, with the blocks around it.
        known: Names beside it; with `listed=False` the dotted names of a whole schema.
        listed: Name all known ones; a whole schema has too many.
    """
    known = list(known)
    expected = f"one of {', '.join(known)}" if listed else "a known one"
    name = key.rpartition(".")[2] if listed else key
    return Problem(key, _UNKNOWN, expected + nearest_hint(name, known))


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """` (nearest: NAME)`: what an unknown name most likely means; empty if nothing is like it."""
    candidates = list(known)
    last = {key: key.rpartition(".")[2] for key in candidates}
    wanted = name.rpartition(".")[2]
    close = get_close_matches(name, candidates, 1, 0.75)
    close = close or [key for key in candidates if last[key] == wanted]
    if not close and (similar := get_close_matches(wanted, last.values(), 1)):
        close = [key for key in candidates if last[key] == similar[0]]
    return f" (nearest: {close[0]})" if close else ""


def show(value: Any) -> str:
    """A value as it stands in YAML, cut where it is long."""
    text = "a block" if isinstance(value, Mapping) else format_value(value)
    return text if len(text) <= _MAX_CHARS else f"{text[: _MAX_CHARS - 3]}..."


def field_words(field: FieldInfo) -> str:
    """What a field expects, in words: `a whole number >= 1`."""
    words = _type_words(field.annotation, field.metadata)
    for sign, attribute in ((">", "gt"), (">=", "ge"), ("<", "lt"), ("<=", "le")):
        for mark in field.metadata:
            if (bound := getattr(mark, attribute, None)) is not None:
                words = f"{words} {'and ' if '>' in words else ''}{sign} {bound}"
    return words


def _type_words(annotation: Any, marks: Sequence[Any] = ()) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return field_words(FieldInfo.from_annotation(annotation))
    if origin is Literal:
        return " or ".join(str(choice) for choice in arguments)
    if origin in (list, tuple):
        least = next((mark.min_length for mark in marks if hasattr(mark, "min_length")), 0)
        most = next((mark.max_length for mark in marks if hasattr(mark, "max_length")), None)
        length = f"{least} " if least and least == most else "one or more " if least else ""
        item = get_args(arguments[0])[0] if get_origin(arguments[0]) is Annotated else arguments[0]
        plural = {int: "whole numbers", float: "numbers", str: "text", Any: "values"}
        words = plural.get(item) or _type_words(item)
        return f"a list of {length}{words.replace(_BLOCK, 'blocks of keys')}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _BLOCK
    if origin is dict:
        return FREE_BLOCK
    if origin in (UnionType, Union):
        parts = [part for part in arguments if part is not int or float not in arguments]
        return " or ".join(_type_words(part) for part in parts)
    simple = {
        NoneType: "null",
        Any: "any value",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
    }
    return simple[annotation]


def _field_at(model: type[BaseModel], path: Sequence[int | str]) -> tuple[str, str, list[str]]:
    """The dotted key of a pydantic location, what is expected there, and the names beside it."""
    field = FieldInfo(annotation=model)
    key: list[str] = []
    beside: list[str] = []
    for part in path:
        inner = _without_null(field.annotation)
        origin, arguments = get_origin(inner), get_args(inner)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            beside = list(inner.model_fields)
            key.append(str(part))
            if part not in inner.model_fields:
                break
            field = inner.model_fields[str(part)]
        elif origin is dict:
            key.append(str(part))
            # Of a refused name pydantic says `NAME, [key]`.
            is_name = path[len(key) :] == ("[key]",)
            field = FieldInfo.from_annotation(arguments[0 if is_name else 1])
            if is_name:
                break
        elif origin in (list, tuple):
            key.append(str(part))
            field = FieldInfo.from_annotation(arguments[0])
        else:  # what follows are pydantic's names for the members of a union
            break
    return ".".join(key), field_words(field), beside


def _without_null(annotation: Any) -> Any:
    """What an optional value is where it is given."""
    while get_origin(annotation) is Annotated or get_origin(annotation) in (UnionType, Union):
        parts = [part for part in get_args(annotation) if part is not NoneType]
        if get_origin(annotation) is not Annotated and len(parts) > 1:
            break
        annotation = parts[0]
    return annotation
