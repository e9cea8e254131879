"""Write plain values as YAML that every reader takes for the same values, line by line.

Numbers are written as PyYAML writes them (`5.0e-05`): a reader of plain YAML 1.1 would take `5e-5`
for text. What people read (`format_value`) says `5e-5`.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import yaml

from conf.reading import FLOAT

COMMENT_COLUMN = 48


def to_yaml(values: Mapping[str, Any], comment: Callable[[str], str] | None = None) -> str:
    """Write nested values as YAML in their own order.

    Args:
        values: Nested blocks of plain values.
        comment: Gives the trailing comment of a dotted leaf key; empty for none.
    """
    return "".join(f"{line}\n" for line in _block(values, "", 0, comment or (lambda key: "")))


def format_value(value: Any) -> str:
    """A value as people write it in YAML: `5e-5`, `true`, `null`, `[0, 15]`.

    >>> format_value(5e-06), format_value([0, 15]), format_value(None)
    ('5e-6', '[0, 15]', 'null')
    """
    if isinstance(value, float) and 0 < abs(value) < 1e-3:
        return f"{Decimal(repr(value)).normalize():e}"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list):
        return "[" + ", ".join(format_value(item) for item in value) + "]"
    return _scalar(value)


def _block(
    values: Mapping[str, Any], prefix: str, depth: int, comment: Callable[[str], str]
) -> list[str]:
    lines = []
    for name, value in values.items():
        head = f"{'  ' * depth}{_scalar(name)}:"
        if isinstance(value, Mapping) and value:
            lines.append(head)
            lines += _block(value, f"{prefix}{name}.", depth + 1, comment)
            continue
        line = f"{head} {_scalar(value)}"
        note = comment(f"{prefix}{name}")
        lines.append(f"{line:<{COMMENT_COLUMN}}  # {note}" if note else line)
    return lines


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper; it puts text in quotes that our reader would take for a number."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789"))


def _scalar(value: Any) -> str:
    """One value on one line."""
    unprintable = isinstance(value, str) and not value.isprintable()
    text = yaml.dump(
        value,
        Dumper=_Dumper,
        default_style='"' if unprintable else None,
        default_flow_style=True,
        allow_unicode=True,
        width=float("inf"),
    )
    return text.removesuffix("\n").removesuffix("...").removesuffix("\n")
