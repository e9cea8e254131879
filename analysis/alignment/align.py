"""The alignment documents, made from conf/ alone, in English and Chinese.

    python -m analysis align            # writes conf/docs/
    python -m analysis align --check    # exits 1 if a committed document is stale
    python -m analysis align --config my.yaml [--base other.yaml] [--language zh]

Prose stands in conf/templates/LANGUAGE/NAME.md. What is a fact stands there as a slot, `{{value 8k
optim_conf.lr}}`, and is filled from the configurations, the schema, the table of checks and what
was proven; a sentence that only holds as long as some values do carries a `{{require ...}}`, and
fails when they change. So no document says anything that the configurations do not.
"""

from __future__ import annotations

from pathlib import Path

from analysis.alignment.pages import Column, Facts, Page
from conf.delta import against, classify, deltas_markdown
from conf.document.language import ENGLISH, LANGUAGES, Language
from conf.files import write_text
from conf.load import HERE, PRETRAINED, STAGES, load_config
from conf.reading import read_yaml

DOCS = HERE / "docs"
NAMES = (
    "README_CONFIG",
    "CONFIG_ALIGNMENT_GUIDE",
    "QUICK_CONFIG_DIFF",
    "CONFIG_COMPARISON_TABLE",
    "CONFIGURATION_ALIGNMENT",
)
FILES = {**STAGES, "hub": "config_8k_telephone_from_hub"}
"""The configurations by their names in tables and slots."""
EXPECTATIONS = HERE / "expectations.yaml"


def gather(directory: Path = HERE) -> Facts:
    """Load all configurations of conf/, or of a directory like it."""
    columns = {}
    for name, stem in FILES.items():
        path = directory / f"{stem}.yaml"
        # Without weights: the documents describe the released model's architecture.
        config = load_config(path, find_model=False)
        heading = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        columns[name] = Column(name, f"{stem}.yaml", heading, config, classify(config))
    base = load_config(PRETRAINED, find_model=False)
    return Facts(base, columns, read_yaml(EXPECTATIONS).values)


def documents(facts: Facts | None = None) -> dict[str, str]:
    """Every document by its file's name: `README_CONFIG.md`, `README_CONFIG_zh.md`, ..."""
    facts = facts or gather()
    made: dict[str, str] = {}
    for language in LANGUAGES.values():
        texts: dict[str, str] = {}
        # README_CONFIG says how long the others take to read, so it comes last.
        for name in reversed(NAMES):
            texts[name] = Page(facts, language, name, texts).render()
        made |= {f"{name}{language.suffix}.md": texts[name] for name in NAMES}
    return made


def write(directory: Path = DOCS) -> list[Path]:
    """Write the documents; gives those that changed."""
    changed = []
    for name, text in documents().items():
        path = directory / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
            changed.append(path)
    return changed


def stale(directory: Path = DOCS) -> list[str]:
    """What `write` would change: one line per document, and per file that is none of them."""
    made = documents()
    lines = []
    for name, text in made.items():
        path = directory / name
        if not path.is_file():
            lines.append(f"{path}: missing")
        elif (written := path.read_text(encoding="utf-8")) != text:
            lines.append(f"{path}:{_first_difference(written, text)}: stale")
    there = {path.name for path in directory.glob("*.md")} if directory.is_dir() else set()
    return lines + [f"{directory / name}: nothing makes it" for name in sorted(there - set(made))]


def own_document(
    path: Path,
    *,
    base: Path | None = None,
    language: Language = ENGLISH,
    allow_unknown: bool = False,
) -> str:
    """What a configuration changes, against the released model or another configuration."""
    config = load_config(path, find_model=False, allow_unknown=allow_unknown)
    if base is None:
        return deltas_markdown(classify(config), language)
    other = load_config(base, find_model=False, allow_unknown=allow_unknown)
    title = f"{base.name} → {path.name}"
    return deltas_markdown(classify(against(config, other)), language, title=title, base=base.name)


def _first_difference(one: str, two: str) -> int:
    lines = zip(one.splitlines(), two.splitlines(), strict=False)
    return next((number for number, (a, b) in enumerate(lines, start=1) if a != b), 1)
