"""The pages that people read, taken apart: headings, links, tables, commands and what these print.

README and `docs/` are English, README_zh and `docs/zh/` say the same in Chinese; CONTRIBUTING is
English only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.conftest import ROOT

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SHOWN = re.compile(r"^```bash\n(.*?)^```\n+(?:```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)
_STEP = re.compile(
    r"<!-- first day: (\w+) -->\n```bash\n(.*?)^```(?:\n+```text\n(.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)
_CONTINUED = re.compile(r"(?:\\|(?<=\|))\n\s+")
_COMMENT = re.compile(r"\s+# .*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e-?\d+)?")


@dataclass(frozen=True)
class Shown:
    """A block of commands with what the page says they print."""

    commands: tuple[str, ...]
    output: tuple[str, ...]

    def missing(self, printed: str) -> str | None:
        """The first piece of the output, between one `…` and the next, that was not printed.

        Any number does for a number, and white space does not count, since a page breaks lines
        where a console does not.
        """
        rest = " ".join(printed.split())
        for piece in re.split(r"\s*…\s*", " ".join(" ".join(self.output).split())):
            found = re.search(_NUMBER.pattern.join(map(re.escape, _NUMBER.split(piece))), rest)
            if found is None:
                return piece
            rest = rest[found.end() :]
        return None


@dataclass(frozen=True)
class Page:
    """A page of Markdown."""

    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def prose(self) -> str:
        """The page without its code blocks, in which `#` is no heading."""
        return _FENCE.sub("", self.text)

    @property
    def headings(self) -> list[tuple[str, str]]:
        """Levels (`##`) and titles."""
        return re.findall(r"^(#+) (.*)$", self.prose, re.MULTILINE)

    @property
    def anchors(self) -> list[str]:
        """What links to the page's headings end in, as GitHub makes them."""
        return [
            re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for _, title in self.headings
        ]

    @property
    def links(self) -> list[str]:
        """Where the links and pictures of the page lead."""
        return re.findall(r"\]\(([^)\s]+)\)", self.prose)

    @property
    def shown(self) -> list[Shown]:
        """Every block of commands."""
        return [
            Shown(tuple(lines(block)), tuple(output.splitlines()))
            for block, output in _SHOWN.findall(self.text)
        ]

    @property
    def commands(self) -> list[str]:
        """Our own commands."""
        return [
            line
            for shown in self.shown
            for line in shown.commands
            if line.startswith("python -m ") and " uv " not in line
        ]

    @property
    def steps(self) -> dict[str, Shown]:
        """The blocks that belong to the first day, by name."""
        return {
            name: Shown(tuple(lines(block)), tuple(output.splitlines()))
            for name, block, output in _STEP.findall(self.text)
        }

    def section(self, heading: str) -> str:
        """What stands between a heading and the next one of any level."""
        found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", self.prose, re.S | re.M)
        assert found, f"{self.name}: no heading {heading!r}"
        return found[1]

    def rows(self, heading: str) -> list[list[str]]:
        """The cells of a table's rows below a heading."""
        table = [line for line in self.section(heading).splitlines() if line.startswith("|")]
        assert len(table) > 2, f"{self.name}: no table below {heading!r}"
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def lines(block: str) -> list[str]:
    """The commands of a block, without comments, broken lines put together."""
    return [
        _COMMENT.sub("", line)
        for line in _CONTINUED.sub(" ", block).splitlines()
        if line and not line.startswith("#")
    ]


def page_at(name: str) -> Page:
    """A page by its path from the root."""
    return Page(ROOT / name)


NAMES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
PAIRS = [
    (page_at("README.md"), page_at("README_zh.md")),
    *((page_at(f"docs/{name}"), page_at(f"docs/zh/{name}")) for name in NAMES),
]
"""Every page in English and in Chinese."""
PAGES = [*(p for pair in PAIRS for p in pair), page_at("CONTRIBUTING.md")]
