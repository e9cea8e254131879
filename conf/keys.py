"""The schema as a table by dotted key: what each takes, its default and its sentence."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import ValidationError

from conf.explain import FREE_BLOCK, Problem, field_words, problems
from conf.schema import MODEL_ROLES, Block, FineTuneConfig, Is, Role, Severity


@dataclass(frozen=True)
class Key:
    """One key of the schema, as a row of a table."""

    name: str
    expected: str
    default: Any
    meaning: str
    role: Role
    severity: Severity


@cache
def all_keys() -> Mapping[str, Key]:
    """Every leaf key by its dotted name, in the schema's order."""
    return {key.name: key for key in _walk(FineTuneConfig, "")}


@cache
def blocks() -> frozenset[str]:
    """The dotted names of the blocks around those keys."""
    parents = {name.rpartition(".")[0] for name in all_keys()}
    return frozenset(parents | {name.rpartition(".")[0] for name in parents}) - {""}


def find_key(name: str) -> Key | None:
    """The key of that name, or the free-form one (`llm_kwargs`) that it lies in."""
    if name in all_keys():
        return all_keys()[name]
    outer = name.rpartition(".")[0]
    while outer and outer not in all_keys():
        outer = outer.rpartition(".")[0]
    return all_keys()[outer] if outer and is_block(outer) else None


def is_block(name: str) -> bool:
    """Whether a name holds further keys, of the schema's or free ones."""
    return name in blocks() or (name in all_keys() and all_keys()[name].expected == FREE_BLOCK)


def belongs_to_model(name: str) -> bool:
    """Whether a key comes with the weights; a key we do not know does if its block does."""
    if key := find_key(name):
        return key.role in MODEL_ROLES
    block: Any = FineTuneConfig
    for part in name.split("."):
        field = block.model_fields.get(part)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, Block)):
            break
        block = inner
    return block is FineTuneConfig or block.role in MODEL_ROLES


def validate(values: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """Check nested values against the schema.

    Returns:
        The values that are set, in the schema's order and types, and what is wrong with them (then
        the values are empty).
    """
    try:
        config = FineTuneConfig.model_validate(values)
    except ValidationError as error:
        return {}, problems(error, FineTuneConfig)
    return config.model_dump(exclude_unset=True), ()


def _walk(block: type[Block], prefix: str) -> list[Key]:
    found: list[Key] = []
    for name, field in block.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Block):
            found += _walk(inner, f"{prefix}{name}.")
            continue
        marks = [mark for mark in field.metadata if isinstance(mark, Is)]
        found.append(
            Key(
                name=f"{prefix}{name}",
                expected=field_words(field),
                default=field.get_default(call_default_factory=True),
                meaning=field.description or "",
                role=next((mark.role for mark in marks if mark.role), block.role),
                severity=next((mark.severity for mark in marks if mark.severity), block.severity),
            )
        )
    return found
