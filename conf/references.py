"""Resolve `${llm_conf.use_lora}`: a value that stands elsewhere in the same configuration."""

import re
from collections.abc import Mapping
from typing import Any

from conf.explain import Problem, show

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
