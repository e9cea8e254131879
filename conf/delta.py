"""What a configuration changes against the released model, key by key.

Pure functions over a `Config`: `classify` gathers the facts, the others print them.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from conf import keys, schema
from conf.document.language import ENGLISH, Language, Name
from conf.document.tables import cell, table
from conf.effects import effect_of
from conf.layers import merge
from conf.load import ALLOWED, PATHS, Config
from conf.reading import flatten
from conf.writing import format_value, to_yaml

Change = Literal["ALIGNED", "MODIFIED", "NEW", "OMITTED"]

CHANGES: tuple[Change, ...] = ("MODIFIED", "NEW", "OMITTED", "ALIGNED")
"""In the order in which tables list them."""
SEVERITIES: tuple[schema.Severity, ...] = ("critical", "important", "minor")
UNPROVEN = "unproven"
"""Printed for an effect that nothing has proven yet."""
FOLLOWS, INHERITED = "follows another key", "left out here"
UNSET, UNKNOWN = "not set: the code's default", "not in the schema"
MARK = (
    r"\[(?:ALIGNED\]|NEW\]|MODIFIED\] (?:pretrained|default): (?:(?!  # )[^\n\r\x85\u2028\u2029])*)"
)
"""What `mark` gives, as a regular expression."""

RUN_KEYS = PATHS | {"finetune_conf.stage"}
"""Where a run reads and writes, and its label: nothing to compare with a released model."""

HEADER = """\
# The whole configuration of one fine-tune; it trains again with
#
#   python -m trainer train --config THIS_FILE --init_param MODEL/model.pt \\
#       --train_data_set_list T --valid_data_set_list V --output_dir OUTPUT
#
# [ALIGNED] as the released model has it; [MODIFIED] changed, the released value beside it;
# [NEW] the released model's configuration does not set it. The keys of finetune_conf are our
# trainer's own and compared with its defaults.

"""


@dataclass(frozen=True)
class Delta:
    """How one key of a configuration stands to the released model's."""

    key: str
    base: Any
    """The value it is compared with; None for a NEW key."""
    value: Any
    change: Change
    severity: schema.Severity
    effect: str | None = None
    """Who reads the key (`both`, `stock`, `here`, `none`); None as long as that is not proven."""
    note: str = ""
    reason: str = ""
    """Why it was changed: what stands behind the value in the file that sets it."""

    @property
    def is_change(self) -> bool:
        """Whether the value is another one than the released model's."""
        return self.change in ("MODIFIED", "NEW") or self.value != self.base


def classify(config: Config) -> tuple[Delta, ...]:
    """A delta for every key of the effective configuration, in its order.

    - MODIFIED: the value differs from the base.
    - NEW: the base does not set the key.
    - ALIGNED: the file sets the value that the base has.
    - OMITTED: the file leaves the key out, so the base's value holds. Read by stock FunASR as a
      standalone file, the code's default would; the note says where that is another one.
    """
    base, values = flatten(config.base), config.flat()
    gone = [key for key in base if key not in values]
    return tuple(_delta(key, base, config) for key in [*values, *gone] if key not in RUN_KEYS)


def against(config: Config, other: Config) -> Config:
    """The same configuration, compared with another one instead of the released model."""
    return replace(config, base=other.values)


def counts(deltas: Sequence[Delta]) -> dict[str, int]:
    """How many keys changed: `critical` of them, and `modified` and `new` in all."""
    return {
        "critical": sum(delta.is_change and delta.severity == "critical" for delta in deltas),
        "modified": sum(delta.change == "MODIFIED" for delta in deltas),
        "new": sum(delta.change == "NEW" for delta in deltas),
    }


def by_weight(deltas: Sequence[Delta]) -> list[Delta]:
    """The changes, most severe first."""
    return sorted(
        (delta for delta in deltas if delta.is_change),
        key=lambda delta: (SEVERITIES.index(delta.severity), CHANGES.index(delta.change)),
    )


def deltas_markdown(
    deltas: Sequence[Delta],
    language: Language = ENGLISH,
    *,
    title: str = "Changes against the released model",
    base: str = "released",
) -> str:
    """The changes as a Markdown table, most severe first, and what was left out.

    Args:
        deltas: All of a configuration, in its order.
        language: Of the words around keys and values.
        title: The heading, in English.
        base: Heading of the column of values that they are compared with, in English.
    """
    number = {change: sum(delta.change == change for delta in deltas) for change in CHANGES}
    lines = [
        f"# {language(Name(title))}",
        "",
        ", ".join(f"{count} {change}" for change, count in number.items()),
        "",
        *change_table(by_weight(deltas), language, base),
    ]
    if inherited := [delta for delta in deltas if delta.change == "OMITTED" and delta.note]:
        heading = language("Left out, and another value in a standalone file")
        lines += ["", f"## {heading}", "", *omitted_table(inherited, language)]
    return "\n".join(lines) + "\n"


def change_table(
    deltas: Sequence[Delta], language: Language = ENGLISH, base: str = "released"
) -> list[str]:
    """One row per delta: values, class, severity, effect, and why."""
    head = ("key", base, "value", "change", "severity", "effect", "why")
    return table(
        [language(Name(word)) for word in head], [_row(delta, language) for delta in deltas]
    )


def omitted_table(deltas: Sequence[Delta], language: Language = ENGLISH) -> list[str]:
    """One row per key that is left out and would be another value in a standalone file."""
    return table(
        [language(word) for word in ("key", "value", "note")],
        [(f"`{delta.key}`", cell(delta.value), _note(delta, language)) for delta in deltas],
    )


def deltas_json(deltas: Sequence[Delta]) -> str:
    """All deltas as a JSON list."""
    rows = [asdict(delta) for delta in deltas]
    return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"


def annotate(config: Config) -> str:
    """The whole effective configuration as YAML, each key marked with how it stands to the base.

    `load_config` reads it back as the same configuration.
    """
    marks = {delta.key: mark(delta) for delta in classify(config)}
    return HEADER + to_yaml(config.values, lambda key: marks.get(key, ""))


def _delta(key: str, base: dict[str, Any], config: Config) -> Delta:
    known = keys.find_key(key)
    delta = Delta(
        key=key,
        base=base.get(key),
        value=config.get(key),
        change="OMITTED",
        severity=known.severity if known else "minor",
        effect=effect_of(key, config.stage),
    )
    if key not in base:
        note = UNKNOWN if key in config[ALLOWED] else ""
        return replace(delta, change="NEW", note=note, reason=_reason(key, config))
    if config.get(key, KeyError) is KeyError:
        return replace(delta, value=known.default if known else None, note=UNSET)
    if delta.value != delta.base:
        note = "" if key in config.in_file else _followed(key, config)
        return replace(delta, change="MODIFIED", note=note, reason=_reason(key, config))
    if key in config.in_file:
        return replace(delta, change="ALIGNED", reason=_reason(key, config))
    return replace(delta, note=_standalone(known, delta.value))


def _reason(key: str, config: Config) -> str:
    """What stands behind the value in the file that says it; nobody explains a sampled value."""
    for layer in reversed(config.layers):
        if key in layer.values:
            said = layer.document.comments.get(key, "") if layer.document else ""
            return re.sub(r"(?:^|\s*# ?)" + MARK + "$", "", said)
    return ""


def _followed(key: str, config: Config) -> str:
    """How a key got another value than the base without being set."""
    said = merge((*config.base_layers, *config.layers)).get(key)
    return FOLLOWS if isinstance(said, str) and "${" in said else INHERITED


def _standalone(known: keys.Key | None, inherited: Any) -> str:
    """What the code's default would be, where it is not the value that is inherited."""
    if known is None or known.default == inherited:
        return ""
    return f"standalone: {format_value(known.default)}"


def mark(delta: Delta) -> str:
    """What is written behind a value: its class, and beside a change the value before it."""
    if delta.change == "NEW":
        return "[NEW]"
    if delta.change == "MODIFIED":
        whose = "default" if delta.key.startswith("finetune_conf.") else "pretrained"
        return f"[MODIFIED] {whose}: {format_value(delta.base)}"
    return "[ALIGNED]"


def _row(delta: Delta, language: Language) -> tuple[str, ...]:
    before = "-" if delta.change == "NEW" else cell(delta.base)
    effect = language(delta.effect or UNPROVEN)
    why = language(Name(delta.reason)) or _note(delta, language)
    fields = (cell(delta.value), delta.change, language(delta.severity), effect)
    return (f"`{delta.key}`", before, *fields, why.replace("|", "\\|"))


def _note(delta: Delta, language: Language) -> str:
    label, colon, value = delta.note.partition(": ")
    if label == "standalone":
        return f"{language(label)}{colon}`{value}`"
    return language(delta.note)
