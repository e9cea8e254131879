"""The report as files: of the demonstration's corpus, in a real browser, and of little."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import pytest
import soundfile

from conf.document.language import catalogue
from conf.errors import DataError, WorkError
from tests.trainer.prepare.report.made import line, of_demo, write_lines, write_prepared
from trainer.__main__ import main
from trainer.prepare.filters import BAD_INPUT, CHOICES
from trainer.prepare.report import write

if TYPE_CHECKING:
    from playwright.sync_api import Page

FILES = ["data_report.html", "data_report.md", "data_report_zh.html", "data_report_zh.md"]


@pytest.fixture(scope="module")
def written(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the demonstration's corpus, some of which was left out."""
    directory = of_demo(corpus, tmp_path_factory.mktemp("prepared"))
    rules = ("annotation error", "too long", "a rule without a translation")
    write_prepared(
        directory,
        {},
        [
            {"rule": rule, "place": "a.csv:7", "text": "嗯|<ANNOTATION_ERROR>\n好", "why": "<b>"}
            for rule in rules
        ],
        {"valid_share": 0.1, "given": [{"path": "a.csv", "split": None}]},
    )
    assert [path.name for path in write(directory)] == FILES
    return directory


@pytest.fixture
def opened(open_page: Callable[..., Page], written: Path) -> Callable[..., Page]:
    """Opens a report in the browser."""

    def make(name: str = "data_report.html", width: int = 1280) -> Page:
        return open_page(written / name, width)

    return make


def test_every_figure_is_drawn(opened: Callable[..., Page]) -> None:
    page = opened()
    plots = page.locator(".plot")
    assert plots.count() == 6 + 7
    for index in range(plots.count()):
        plots.nth(index).scroll_into_view_if_needed()
        plots.nth(index).locator(".main-svg").first.wait_for(state="attached")
    durations = page.evaluate(
        "document.getElementById('figure-duration_s').data.map(t => t.y.slice(0, -1))"
    )
    # All that is shown of a split, in percent of it; a thousandth may lie beyond.
    assert [sum(split) for split in durations] == pytest.approx([100, 100, 100], abs=0.2)
    heat = page.evaluate("document.getElementById('figure-sound-0').data[0]")
    assert heat["dy"] * len(heat["z"]) == pytest.approx(4000, rel=0.02)


def test_tables_sort_and_warnings_come_first(opened: Callable[..., Page]) -> None:
    page = opened()
    assert page.inner_text("h2 >> nth=0").startswith("Warnings (")
    assert "5m31s of speech" in page.inner_text("#warnings li >> nth=0")
    page.click("#table-sets thead th:nth-child(2) button")
    cells = page.locator("#table-sets tbody td:nth-child(2)").all_inner_texts()
    assert cells == ["120", "120", "320"]
    assert "嗯|<ANNOTATION_ERROR> 好" in page.inner_text("#table-left_out_examples")


@pytest.mark.parametrize(("name", "language"), [(FILES[0], "en"), (FILES[2], "zh")])
def test_a_narrow_screen_scrolls_only_inside_tables(
    opened: Callable[..., Page], name: str, language: str
) -> None:
    page = opened(name, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("html").get_attribute("lang") == language
    if language == "zh":
        assert page.inner_text("h2 >> nth=0").startswith("警告（")
        assert "标注错误" in page.inner_text("#table-left_out")


def test_the_page_is_small_and_stands_alone(written: Path) -> None:
    for name in FILES[::2]:
        text = (written / name).read_text(encoding="utf-8")
        assert len(text.encode()) < 6e6
        assert "default-src 'none'" in text
        assert "<b>" not in text


def test_markdown_is_the_same_without_figures(written: Path) -> None:
    text = (written / "data_report.md").read_text(encoding="utf-8")
    assert text.index("## Warnings") < text.index("## How much there is")
    assert "| train | 320 | 0.23 | 16 | 3417 | 3417 |" in text
    assert "| a rule without a translation | &lt;b> | 嗯\\|&lt;ANNOTATION_ERROR> 好 |" in text
    assert "| given | path: a.csv |" in text
    assert "data_report.html" in text
    chinese = (written / "data_report_zh.md").read_text(encoding="utf-8")
    # But for names that come from elsewhere it is in Chinese throughout.
    headings = re.findall(r"^#+ (.*)", chinese, re.MULTILINE)
    assert all(re.search(r"[\u4e00-\u9fff]", heading) for heading in headings)
    assert "data_report_zh.html" in chinese


def test_before_the_content_pass(corpus: Path, tmp_path: Path) -> None:
    [page, text] = write(of_demo(corpus, tmp_path, scanned=False), languages=["en"])
    said = text.read_text(encoding="utf-8")
    assert "Nobody looked at: bandwidth_hz, level_dbfs, peak_dbfs, clipped, sha256" in said
    assert "| train | 8000 | not measured | 320 | 100.00 % |" in said
    assert "figure-level_dbfs" not in page.read_text(encoding="utf-8")


@pytest.mark.quick
def test_the_same_directory_gives_the_same_bytes(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", numpy.sin(numpy.arange(16000) / 3), 8000)
    write_prepared(tmp_path, {"train": [line("a", "好")], "valid": [line("b", "好")]})
    first = {path.name: path.read_bytes() for path in write(tmp_path)}
    assert {path.name: path.read_bytes() for path in write(tmp_path)} == first
    # A recording that is not there is named, and stops nothing.
    assert b"No spectrogram of b: " in first["data_report.html"]
    assert "没有 b 的语谱图".encode() in first["data_report_zh.html"]


@pytest.mark.quick
def test_prepare_ends_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    for number in range(6):
        noise = numpy.random.default_rng(number).uniform(-0.1, 0.1, 16000)
        soundfile.write(tmp_path / f"{number}.wav", noise, 16000)
        lines.append({"key": f"k{number}", "source": f"{number}.wav", "target": "今天天气很好"})
    write_lines(tmp_path / "calls.jsonl", [*lines, {"key": "x", "source": "x.wav", "target": "好"}])
    command = ["prepare", "--input", str(tmp_path / "calls.jsonl"), "--valid_share", "0.34"]
    assert main([*command, "--output_dir", str(tmp_path / "out"), "--workers", "1"]) == 0
    assert [path.name for path in sorted((tmp_path / "out").glob("data_report*"))] == FILES
    assert "data_report.html" in capsys.readouterr().out
    said = (tmp_path / "out" / "data_report.md").read_text(encoding="utf-8")
    assert "| train | 16000 | 7 kHz and more | 4 | 100.00 % |" in said
    assert "| no such file | 1 | 14.29 % |" in said
    assert "Nobody looked at" not in said


@pytest.mark.quick
def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"got no train\.jsonl"):
        write(tmp_path)
    write_prepared(tmp_path, {"train": [line("a", "好")]})
    (tmp_path / "data_report.html").mkdir()
    with pytest.raises(WorkError, match="--output_dir"):
        write(tmp_path)


@pytest.mark.quick
def test_every_rule_of_prepare_has_a_chinese_name() -> None:
    assert [rule for rule in (*BAD_INPUT, *CHOICES) if rule not in catalogue()] == []
