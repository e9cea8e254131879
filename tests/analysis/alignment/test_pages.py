"""The templates of the alignment documents, and the slots that are filled in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analysis.alignment import pages
from analysis.alignment.align import NAMES, gather
from analysis.alignment.pages import SLOT, TEMPLATES, Page
from conf.document.language import ENGLISH
from conf.errors import ConfigError

pytestmark = pytest.mark.quick


ALLOWED_NUMBERS = re.compile(
    r"Fun-ASR-Nano-2512|(?:8|16) kHz|[Ss]tages? \d(?: of \d)?|阶段 \d|exits with 1|退出码为 1|7 步"
    r"|gpu_id 0|# \d\. |stage1|three stages|/8k/|config_8k\w*|fp32|1e-5|\{\{[^}]*\}\}"
    r"|about 50 hours"
)


def test_no_number_is_written_by_hand() -> None:
    """Values in prose are slots; reasons and headings hold none either."""
    for template in TEMPLATES.rglob("*.md"):
        for number, line in enumerate(template.read_text(encoding="utf-8").splitlines(), start=1):
            rest = ALLOWED_NUMBERS.sub("", line)
            assert not re.search(r"\d", rest), f"{template}:{number}: {line}"
    for column in gather().columns.values():
        for delta in column.deltas:
            assert not re.search(r"\d", ALLOWED_NUMBERS.sub("", delta.reason)), delta
        assert not re.search(r"\d", ALLOWED_NUMBERS.sub("", column.heading)), column.heading


@pytest.mark.parametrize(
    ("slot", "message"),
    [
        ("{{valu 8k optim_conf.lr}}", "got an unknown slot, expected value, raw"),
        ("{{value 8k optim_conf.rate}}", "got arguments that name nothing"),
        ("{{value 9k optim_conf.lr}}", "got arguments that name nothing"),
        ("{{value 8k}}", "got arguments that name nothing"),
        ("{{require 8k optim_conf.lr = 1}}", "got 5e-5 and 1, so this passage no longer holds"),
    ],
)
def test_wrong_slots(
    slot: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line that names the template's line."""
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "README_CONFIG.md").write_text(f"# Title\n\n{slot}\n")
    monkeypatch.setattr(pages, "TEMPLATES", tmp_path)
    with pytest.raises(ConfigError, match=r"README_CONFIG.md:3: ") as caught:
        Page(gather(), ENGLISH, "README_CONFIG", {}).render()
    assert message in str(caught.value)


def test_every_slot_is_used() -> None:
    """And the two languages use the same ones, so neither says less."""
    used = {
        code: [
            sorted(slot[0] for slot in SLOT.finditer((TEMPLATES / code / f"{name}.md").read_text()))
            for name in NAMES
        ]
        for code in ("en", "zh")
    }
    assert used["en"] == used["zh"]
    names = {SLOT.match(slot)[1] for page_ in used["en"] for slot in page_}  # type: ignore[index]
    assert names == set(pages.SLOTS)
