"""The pages of the alignment documents: facts in, Markdown out.

A `Page` fills the slots of one template in one language. Each slot is a method: the first ones give
words within a sentence, the others tables and lists. Nothing is read here but the template.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from conf import keys
from conf.checks import CHECKS, GREPS, SEVEN
from conf.delta import CHANGES, SEVERITIES, UNPROVEN, Delta, by_weight, change_table
from conf.document.language import LANGUAGES, Language, Name
from conf.document.numbers import rate
from conf.document.tables import cell, table
from conf.effects import effect_of, funasr_version, load_effects, load_parameters
from conf.errors import ConfigError
from conf.load import HERE, PATHS, STAGES, Config
from conf.reading import flatten, parse_value
from conf.rules import trained
from conf.writing import format_value

TEMPLATES = HERE / "templates"
MATRIX = (
    "audio_encoder_conf.freeze",
    "optim_conf.lr",
    "train_conf.max_epoch",
    "train_conf.use_deepspeed",
    "optim_conf.weight_decay",
    "specaug",
    "frontend_conf.fs",
    "llm_conf.freeze",
    "llm_conf.use_lora",
    "llm_conf.lora_conf.freeze_lora",
    "audio_adaptor_conf.freeze",
    "ctc_decoder_conf.freeze",
    "scheduler_conf.warmup_steps",
)
"""The source document's matrix, and the keys that tell the later stages apart."""
PARTS: Mapping[str, str] = {
    "audio_encoder": "speech encoder",
    "audio_adaptor": "adaptor",
    "ctc_decoder": "CTC decoder",
    "llm": "LLM",
    "lora": "LoRA adapters",
}
START: Mapping[str, str] = {"8k": "base", "s1": "base", "s2": "s1", "s3": "s2", "hub": "base"}
READ_PER_MINUTE: Mapping[str, int] = {"en": 220, "zh": 400}
"""Words of English or characters of Chinese that people read in a minute."""
SLOT = re.compile(r"\{\{\s*(\w+)([^{}]*)\}\}")
NOTHING = "—"


@dataclass(frozen=True)
class Column:
    """One configuration, as a column of the tables."""

    name: str
    file: str
    heading: str
    """The first line of its file."""
    config: Config
    deltas: tuple[Delta, ...]

    @cached_property
    def by_key(self) -> Mapping[str, Delta]:
        """Its deltas by key."""
        return {delta.key: delta for delta in self.deltas}


@dataclass(frozen=True)
class Facts:
    """Everything that the documents say."""

    base: Config
    columns: Mapping[str, Column]
    expectations: Mapping[str, Any]

    def config(self, name: str) -> Config:
        """A configuration by its short name; `base` is the released model."""
        return self.base if name == "base" else self.columns[name].config

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Every key that any of the configurations has, in the schema's order."""
        present = {delta.key for column in self.columns.values() for delta in column.deltas}
        known = [name for name in list(keys.all_keys()) if name in present]
        return (*known, *sorted(present - set(known)))


class Page:
    """One document in one language: the slots of its template."""

    def __init__(
        self, facts: Facts, language: Language, name: str, others: Mapping[str, str]
    ) -> None:
        self._facts = facts
        self._language = language
        self._say = language
        self._name = name
        self._others = others
        self._path = TEMPLATES / language.code / f"{name}.md"

    def render(self) -> str:
        """The document.

        Raises:
            ConfigError: Naming the template's line whose slot is wrong or no longer holds.
        """
        template = self._path.read_text(encoding="utf-8")
        lines = [
            SLOT.sub(partial(self._fill, number), line)
            for number, line in enumerate(template.splitlines(), start=1)
        ]
        # A line of nothing but fulfilled conditions leaves an empty one.
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
        return text.strip("\n") + "\n"

    def _fill(self, number: int, slot: re.Match[str]) -> str:
        name, arguments = slot[1], slot[2].split()
        where = f"{self._path}:{number}: {slot[0]}"
        if (fill := SLOTS.get(name)) is None:
            raise ConfigError(f"{where}: got an unknown slot, expected {', '.join(SLOTS)}")
        try:
            return fill(self, *arguments)
        except (KeyError, TypeError, IndexError) as error:
            raise ConfigError(f"{where}: got arguments that name nothing ({error})") from None
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from None

    # Words within a sentence

    def value(self, config: str, key: str) -> str:
        return f"`{format_value(self._facts.config(config)[key])}`"

    def raw(self, config: str, key: str) -> str:
        """A value within a command or before its unit."""
        return format_value(self._facts.config(config)[key])

    def times(self, config: str, key: str) -> str:
        """How many times the released model's value."""
        ratio = self._facts.config(config)[key] / self._facts.base[key]
        return f"{ratio:.3g}"

    def count(self, config: str, what: str) -> str:
        """How many keys a configuration has in a class, or critical changes."""
        return str(_counts(self._facts.columns[config].deltas)[what])

    def target(self, name: str) -> str:
        return f"{100 * self._facts.expectations['targets'][name]:g} %"

    def minutes(self, name: str) -> str:
        """How long a document takes to read."""
        text = self._others[name]
        code = self._language.code
        words = r"[\u4e00-\u9fff]|[\w.]*\w[\w.]*" if code == "zh" else r"[\w.']*\w[\w.']*"
        units = len(re.findall(words, text))
        return str(max(1, math.ceil(units / READ_PER_MINUTE[code])))

    def file(self, config: str) -> str:
        return f"`{self._facts.columns[config].file}`"

    def doc(self, name: str) -> str:
        return f"[{name}]({name}{self._language.suffix}.md)"

    def funasr(self) -> str:
        return funasr_version() or NOTHING

    def require(self, *words: str) -> str:
        """Nothing, as long as a condition holds: `8k optim_conf.lr > base optim_conf.lr`."""
        operators: Mapping[str, Callable[[Any, Any], bool]] = {
            "<": lambda one, two: one < two,
            ">": lambda one, two: one > two,
            "=": lambda one, two: one == two,
            "!=": lambda one, two: one != two,
        }
        [place] = [place for place, word in enumerate(words) if word in operators]
        one, two = (self._operand(part) for part in (words[:place], words[place + 1 :]))
        if not operators[words[place]](one, two):
            raise ValueError(
                f"got {format_value(one)} and {format_value(two)}, so this passage no longer holds:"
                " expected it to be written anew"
            )
        return ""

    def _operand(self, words: Sequence[str]) -> Any:
        if len(words) == 1:
            return parse_value(words[0], "require")
        name, key = words
        if name == "count":
            config, what = key.split(":")
            return _counts(self._facts.columns[config].deltas)[what]
        return self._facts.config(name)[key]

    # Blocks of lines

    def notice(self) -> str:
        """Where a document comes from, and its other language."""
        other = next(item for item in LANGUAGES.values() if item != self._language)
        names = {"en": "English", "zh": "中文"}
        link = f"[{names[other.code]}]({self._name}{other.suffix}.md)"
        made = {
            "en": "Made by `python -m analysis align` from `conf/`; change those files, not this.",
            "zh": "本文由 `python -m analysis align` 根据 `conf/` 生成；请改配置，不要改本文。",
        }
        return f"> {link} · {made[self._language.code]}"

    def critical(self, config: str) -> str:
        """The critical changes of a configuration, one by one."""
        lines = []
        column = self._facts.columns[config]
        changes = [delta for delta in by_weight(column.deltas) if delta.severity == "critical"]
        for number, delta in enumerate(changes, start=1):
            meaning = self._meaning(delta.key)
            lines += [
                f"**{number}. `{delta.key}`** {meaning}",
                "",
                "```yaml",
                *_snippet(delta, self._say("pretrained")),
                "```",
                "",
            ]
            lines += [self._why_sentence(delta), ""]
        return "\n".join(lines).strip()

    def others(self, config: str) -> str:
        """The important changes of a configuration, as a list."""
        column = self._facts.columns[config]
        found = [
            delta
            for delta in by_weight(column.deltas)
            if delta.severity == "important" and delta.change == "MODIFIED"
        ]
        return "\n".join(
            f"- `{delta.key}`{self._colon}{_arrow(delta)}{self._bracket(self._say(delta.reason))}"
            for delta in found
        )

    def matrix(self) -> str:
        """The most telling keys, all configurations side by side."""
        return self._side_by_side(MATRIX, marks=True)

    def files(self) -> str:
        """What each configuration is for, what it trains and from where it starts."""
        rows = [
            (f"`{c.file}`", self._say(c.heading), self._trains(c.config), self._start(name))
            for name, c in self._facts.columns.items()
        ]
        return self._table(("file", "purpose", "trains", "starts from"), rows)

    def greps(self, config: str) -> str:
        """The source document's seven steps as commands."""
        lines = ["```bash"]
        file = f"conf/{self._facts.columns[config].file}"
        for number, id in enumerate(SEVEN, start=1):
            question = self._say(CHECKS[id].question)
            command = GREPS[id].format(file=file) if id in GREPS else None
            lines += [f"# {number}. {question}"]
            if command is None:
                said = {
                    "en": "remember --init_param MODEL/model.pt",
                    "zh": "记住用 --init_param 加载预训练模型",
                }
                command = f'echo "{said[self._language.code]}"'
            lines += [command, ""]
        return "\n".join([*lines[:-1], "```"])

    def expected(self, config: str) -> str:
        """What those commands print."""
        values = self._facts.columns[config].config
        lines = ["```"]
        for id in GREPS:
            key = GREP_KEYS[id]
            lines.append(f"{key.rpartition('.')[2]}: {format_value(values[key])}")
        return "\n".join([*lines, "```"])

    def checks(self) -> str:
        """Every check: what it asks, why, and how to mend it."""
        head = ["check", "question", "why", "how to mend it"]
        rows = [
            (
                f"`{check.id}`" + (f" ({SEVEN.index(check.id) + 1})" if check.id in SEVEN else ""),
                *(self._say(text) for text in (check.question, check.why, check.mend)),
            )
            for check in CHECKS.values()
        ]
        return self._table(head, rows)

    def mend(self, id: str) -> str:
        """How one check is mended."""
        return self._say(CHECKS[id].mend)

    def diff(self, config: str) -> str:
        """What one configuration changes, most severe first."""
        column = self._facts.columns[config]
        headings = ("Critical changes", "Important changes", "Minor changes")
        lines = []
        for severity, heading in zip(SEVERITIES, headings, strict=True):
            chosen = [d for d in by_weight(column.deltas) if d.severity == severity]
            if chosen:
                title = f"### {self._say(heading)} ({len(chosen)})"
                lines += [title, "", *change_table(chosen, self._language), ""]
        return "\n".join(lines).strip()

    def omitted(self) -> str:
        """What is left out and would be another value in a standalone file, and by which files."""
        columns = self._facts.columns
        rows = []
        for key in self._facts.keys:
            leaves = {
                name: column.by_key[key].note
                for name, column in columns.items()
                if key in column.by_key and column.by_key[key].change == "OMITTED"
            }
            note = next((note for note in leaves.values() if note), "")
            if note:
                alone = f"`{note.partition(': ')[2]}`"
                who = self._say("all") if len(leaves) == len(columns) else ", ".join(leaves)
                rows.append((f"`{key}`", self._pretrained(key), alone, who))
        return self._table(("key", "pretrained", "standalone", "left out by"), rows)

    def counts(self) -> str:
        """How many keys each configuration has in each class."""
        words = ["critical", *CHANGES]
        head = [self._say("config"), self._say("critical"), *CHANGES]
        rows = []
        for column in self._facts.columns.values():
            number = _counts(column.deltas)
            rows.append((f"`{column.file}`", *(str(number[word]) for word in words)))
        return "\n".join(table(head, rows))

    def modules(self) -> str:
        """All keys of all configurations, module by module."""
        lines = []
        for module, names in self._modules().items():
            title = f"`{module}`" if module else self._say("top level")
            lines += [f"### {title}", "", self._side_by_side(names), ""]
        return "\n".join(lines).strip()

    def purposes(self) -> str:
        """The changed keys by what they are for."""
        lines = []
        columns = self._facts.columns.values()
        for role in _roles():
            changed = [
                key
                for key in self._facts.keys
                if (known := keys.find_key(key)) is not None
                and known.role == role
                and any(key in c.by_key and c.by_key[key].is_change for c in columns)
            ]
            if changed:
                lines += [f"### {self._say(role)}", "", self._side_by_side(changed), ""]
        return "\n".join(lines).strip()

    def parameters(self) -> str:
        """Parameters per module, and what trains of them, at full size."""
        counted = load_parameters()
        if not counted:
            return self._say("Parameters have not been counted at full size yet.")
        stages = [name for name in STAGES if name in counted]
        modules = list(dict.fromkeys(module for stage in stages for module in counted[stage]))
        rows = []
        for module in modules:
            size = max(c[module].parameters for s in stages if (c := counted[s]) and module in c)
            trains = (
                f"{counted[stage][module].trainable:,}" if module in counted[stage] else NOTHING
                for stage in stages
            )
            rows.append((f"`{module}`", f"{size:,}", *trains))
        total = (
            f"**{sum(part.trainable for part in counted[stage].values()):,}**" for stage in stages
        )
        rows.append((self._say("all"), NOTHING, *total))
        head = [self._say("module"), self._say("parameters")]
        head += [f"{stage} {self._say('trainable')}" for stage in stages]
        return "\n".join(table(head, rows))

    def precision(self) -> str:
        """In which precision each module's weights are held, stage by stage; bold what trains."""
        counted = load_parameters()
        stages = [name for name in STAGES if name in counted]
        modules = list(dict.fromkeys(module for stage in stages for module in counted[stage]))
        rows = []
        for module in modules:
            held = (counted[stage].get(module) for stage in stages)
            cells = (
                NOTHING
                if part is None
                else f"**`{part.dtype}`**"
                if part.trainable
                else f"`{part.dtype}`"
                for part in held
            )
            rows.append((f"`{module}`", *cells))
        return "\n".join(table([self._say("module"), *stages], rows))

    def targets(self) -> str:
        """The CER that users of the recipe aim at, stage by stage."""
        targets = self._facts.expectations["targets"]
        rows = [(f"`{STAGES[name]}`", self.target(name)) for name in STAGES if name in targets]
        return self._table(("stage", "CER, at most"), rows)

    def measured(self) -> str:
        """The runs that were measured."""
        runs = self._facts.expectations["measured"]
        if not runs:
            return self._say("No run has been measured yet.")
        head = ("config", "model", "data", "before", "after", "measured")
        rows = [
            (
                f"`{run['config']}`",
                self._say(run["model"]),
                self._say(run["data"]),
                rate(run["before"], 1),
                rate(run["after"], 1),
                run["source"],
            )
            for run in runs
        ]
        return self._table(head, rows)

    def effects(self) -> str:
        """How many keys have each effect, and those that the files change in vain."""
        if not load_effects():
            return self._say("No effect has been proven yet.")
        head = ["config", "both", "here", "stock", "none", "unproven"]
        rows = []
        for column in self._facts.columns.values():
            number = Counter(delta.effect or UNPROVEN for delta in column.deltas if delta.is_change)
            rows.append((f"`{column.file}`", *(str(number[word]) for word in head[1:])))
        return self._table(head, rows)

    def every_key(self) -> str:
        """Every key with all that is known of it, block by block."""
        lines: list[str] = []
        for module, names in self._modules().items():
            title = f"`{module}`" if module else self._say("top level")
            lines += [f"## {title}", ""]
            for key in names:
                lines += self._key(key)
        return "\n".join(lines).strip()

    # Pieces of blocks

    def _table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        return "\n".join(table([self._say(word) for word in head], rows))

    def _modules(self) -> Mapping[str, list[str]]:
        """The keys by the block that they belong to: `llm` goes with `llm_conf`."""
        blocks: dict[str, list[str]] = {"": []}
        tops = {key.partition(".")[0] for key in self._facts.keys if "." in key}
        for key in self._facts.keys:
            top, dot, _ = key.partition(".")
            own = f"{top}_conf"
            module = top if dot else own if own in tops else ""
            blocks.setdefault(module, []).append(key)
        return blocks

    def _key(self, key: str) -> list[str]:
        known = keys.find_key(key)
        lines = [f"### `{key}`", ""]
        if known is not None:
            facts = [
                self._say(known.severity),
                self._say(known.role),
                f"{self._say('type')}{self._colon}{self._type(known.expected)}",
                f"{self._say('code default')}{self._colon}{cell(known.default)}",
                f"{self._say('pretrained')}{self._colon}{self._pretrained(key)}",
            ]
            lines += [self._say(known.meaning), "", " · ".join(facts), ""]
        columns = self._facts.columns.items()
        effects = {name: effect_of(key, column.config.stage) for name, column in columns}
        if proven := self._effect_line(key, effects):
            lines += [proven, ""]
        deltas = {name: column.by_key[key] for name, column in columns if key in column.by_key}
        rows = [
            (
                name,
                cell(delta.value),
                delta.change,
                self._say(delta.effect or UNPROVEN),
                self._say(delta.reason) or self._say(delta.note) or NOTHING,
            )
            for name, delta in deltas.items()
            if delta.change != "OMITTED"
        ]
        if rows:
            lines += [self._table(("config", "value", "change", "effect", "why"), rows), ""]
        else:
            note = next((delta.note for delta in deltas.values()), "")
            value = note.partition(": ")[2]
            said = {
                "en": "OMITTED everywhere: the released model's value holds"
                + (f"; standalone it would be `{value}`." if value else "."),
                "zh": "各配置均省略（OMITTED），沿用预训练的取值"
                + (f"；单独使用时为 `{value}`。" if value else "。"),
            }
            lines += [said[self._language.code], ""]
        return lines

    def _effect_line(self, key: str, effects: Mapping[str, str | None]) -> str:
        proven = load_effects().get(key)
        if proven is None:
            return ""
        said = sorted({self._say(effect) for effect in effects.values() if effect})
        parts = [f"{self._say('effect')}{self._colon}{', '.join(said)}"] if said else []
        if proven.read_by:
            parts.append(f"{self._say('read by')}{self._colon}`{proven.read_by}`")
        if proven.note:
            parts.append(self._language(Name(proven.note)))
        return " · ".join(parts)

    def _side_by_side(self, keys: Sequence[str], *, marks: bool = False) -> str:
        head = [self._say("key"), self._say("pretrained"), *self._facts.columns]
        rows = []
        for key in keys:
            cells = [f"`{key}`", self._pretrained(key)]
            for column in self._facts.columns.values():
                delta = column.by_key.get(key)
                text = cell(delta.value) if delta else NOTHING
                if delta is not None and delta.is_change:
                    text = f"**{text}**"
                    text += " ⚠️" if marks and delta.severity == "critical" else ""
                cells.append(text)
            rows.append(cells)
        return "\n".join(table(head, rows))

    def _pretrained(self, key: str) -> str:
        base = flatten(self._facts.base.values)
        return cell(base[key]) if key in base and key not in PATHS else NOTHING

    def _meaning(self, key: str) -> str:
        known = keys.find_key(key)
        return self._say(known.meaning) if known else ""

    def _why_sentence(self, delta: Delta) -> str:
        """Why a configuration changes a key, and what all of them have."""
        same: dict[str, list[str]] = {}
        for name, column in self._facts.columns.items():
            same.setdefault(format_value(column.config[delta.key]), []).append(name)
        reason = self._say(delta.reason)
        if self._language.code == "zh":
            spread = "；".join(f"{'、'.join(names)} 为 `{value}`" for value, names in same.items())
            return f"原因：{reason}。各配置取值：{spread}。"
        spread = "; ".join(f"`{value}` in {', '.join(names)}" for value, names in same.items())
        return f"Why: {reason}. The values: {spread}."

    @property
    def _colon(self) -> str:
        return "：" if self._language.code == "zh" else ": "

    def _bracket(self, text: str) -> str:
        if not text:
            return ""
        return f"（{text}）" if self._language.code == "zh" else f" ({text})"

    def _trains(self, config: Config) -> str:
        parts = trained(config)
        names = [self._say(word) for part, word in PARTS.items() if part in parts]
        return ("、" if self._language.code == "zh" else ", ").join(names) or self._say("nothing")

    def _start(self, name: str) -> str:
        start = START[name]
        return (
            self._say("pretrained") if start == "base" else f"`{self._facts.columns[start].file}`"
        )

    def _type(self, expected: str) -> str:
        if self._language.code == "en":
            return expected
        for english, chinese in TYPE_WORDS:
            expected = re.sub(english, chinese, expected)
        return expected


TYPE_WORDS = (
    (r"a list of (\d+) whole numbers", r"\1 个整数的列表"),
    (r"a list of (\d+) numbers", r"\1 个数的列表"),
    (r"a list of numbers", "数的列表"),
    (r"a list of text", "文本列表"),
    (r"a block of any keys", "任意键的块"),
    (r"a whole number", "整数"),
    (r"a number", "数"),
    (r"\btext\b", "文本"),
    (r" or ", " 或 "),
    (r" and ", " 且 "),
)
"""How the schema's words for types read in Chinese."""

GREP_KEYS: Mapping[str, str] = {
    "encoder-trains": "audio_encoder_conf.freeze",
    "learning-rate": "optim_conf.lr",
    "deepspeed-off": "train_conf.use_deepspeed",
    "weight-decay": "optim_conf.weight_decay",
    "specaug-on": "specaug",
    "llm-frozen": "llm_conf.freeze",
}

SLOTS: Mapping[str, Callable[..., str]] = {
    name: method
    for name, method in vars(Page).items()
    if not name.startswith("_") and name != Page.render.__name__
}


def _counts(deltas: Sequence[Delta]) -> Counter[str]:
    found: Counter[str] = Counter(delta.change for delta in deltas)
    found["critical"] = sum(delta.is_change and delta.severity == "critical" for delta in deltas)
    return found


def _roles() -> list[str]:
    return list(dict.fromkeys(key.role for key in keys.all_keys().values()))


def _snippet(delta: Delta, word: str) -> list[str]:
    """A change as it stands in the YAML, with the value before it."""
    *blocks, leaf = delta.key.split(".")
    lines = [f"{'  ' * depth}{block}:" for depth, block in enumerate(blocks)]
    value = f"{'  ' * len(blocks)}{leaf}: {format_value(delta.value)}"
    return [*lines, f"{value}  # {word}: {format_value(delta.base)}"]


def _arrow(delta: Delta) -> str:
    return f"{cell(delta.base)} → {cell(delta.value)}"
