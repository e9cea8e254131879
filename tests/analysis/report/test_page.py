"""The report: what it says, and that it works in a real browser, opened from disk."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
from pathlib import Path

import pytest

from analysis.facts.comparison import comparison
from analysis.report.page import description, render, report, shortened
from analysis.tables.answer import answer
from conf.document.language import CHINESE, ENGLISH
from conf.errors import UserError
from tests.analysis.fakes import stored_trial
from tests.synthetic import Shape, write_sweep

SHAPE = Shape(trials=40, epochs=8, utterances=60)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A sweep of forty trials in a real store, in the working directory of these tests."""
    directory = tmp_path_factory.mktemp("report")
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patch.delenv(name)
        os.chdir(directory)
        try:
            yield write_sweep(directory / "sweep", SHAPE)
        finally:
            os.chdir(before)


@pytest.fixture(scope="module")
def written(store, tmp_path_factory):
    """The report in both languages."""
    root = tmp_path_factory.mktemp("reports")
    facts = comparison("synthetic", store)
    return {
        language: report(facts, store, root / language, language=language, other_sweep="synthetic")
        for language in ("en", "zh")
    }


@pytest.fixture
def opened(open_page, written):
    """Opens a report in the browser."""
    return lambda language="en", width=1280: open_page(written[language], width)


def column(page, table, index):
    """The cells of a table's column that are shown."""
    rows = page.locator(f"{table} tbody tr:not([hidden])")
    return rows.locator(f"td:nth-child({index + 1})").all_inner_texts()


def test_the_page_stands_alone_and_is_small(written):
    for path in written.values():
        text = path.read_text(encoding="utf-8")
        assert len(text.encode()) < 8e6
        assert "default-src 'none'" in text
        assert not re.findall(
            r"<(?:script|img|link|iframe)[^>]+(?:src|href)=[\"']?(?!data:)\w+:", text
        )


def test_it_is_logged_and_the_answer_is_the_description(store, written, tmp_path):
    facts = comparison("synthetic", store)
    logged = store.download(facts.run_id, "report.html", tmp_path).read_bytes()
    assert logged == written["zh"].read_bytes()
    note = store.run(facts.run_id).tags["mlflow.note.content"]
    assert note == description(facts, CHINESE)
    assert answer(facts)[:20] in description(facts, ENGLISH)


def test_answer_tells_the_cost(store):
    said = description(comparison("synthetic", store), ENGLISH)
    assert re.search(r"All 40 trials took \d+ epochs, \d+m\d\ds of training\.", said)
    assert "Against the untrained base it is -" in said


def test_trials_are_sorted_with_what_is_not_measured_last(opened):
    page = opened()
    heads = page.locator("#trial-table thead th").all_inner_texts()
    index = next(i for i, head in enumerate(heads) if head.startswith("lr"))
    button = page.locator(f"#trial-table thead th:nth-child({index + 1}) button")
    button.click()
    rising = [float(cell) for cell in column(page, "#trial-table", index)]
    assert rising == sorted(rising)
    button.click()
    assert [float(cell) for cell in column(page, "#trial-table", index)] == rising[::-1]
    test = next(i for i, head in enumerate(heads) if head.startswith("test/cer"))
    page.locator(f"#trial-table thead th:nth-child({test + 1}) button").click()
    cells = column(page, "#trial-table", test)
    assert cells[-1] == "-"
    known = [float(cell.removesuffix(" %")) for cell in cells if cell != "-"]
    assert known == sorted(known)


def test_sorting_works_with_the_keyboard_and_is_announced(opened):
    page = opened()
    head = page.locator("#trial-table thead th").first
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    numbers = [int(cell) for cell in column(page, "#trial-table", 0)]
    assert numbers == sorted(numbers)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"


def test_trials_are_filtered(opened):
    page = opened()
    page.select_option("#trial-stage", "s3")
    assert set(column(page, "#trial-table", 1)) == {"s3"}
    count = len(column(page, "#trial-table", 1))
    assert page.inner_text("#trial-count") == f"{count} of 39 shown"
    page.select_option("#trial-stage", "")
    page.fill("#trial-find", "pruned")
    assert 0 < len(column(page, "#trial-table", 0)) < 39
    page.select_option("#trial-outcome", "failed")
    assert column(page, "#trial-table", 0) == []


def test_every_figure_is_drawn(opened):
    page = opened()
    plots = page.locator(".plot")
    assert plots.count() == 6
    for index in range(plots.count()):
        plots.nth(index).scroll_into_view_if_needed()
        plots.nth(index).locator(".main-svg, .message").first.wait_for(state="attached")
    traces = page.evaluate("document.getElementById('figure-curves').data.length")
    assert traces >= 5
    caption = page.locator("#figure-history ~ figcaption").inner_text()
    assert re.fullmatch(
        r"Hollow marks: .* After \d+ epochs of training: synthetic .* %, synthetic .* %\.", caption
    )


def test_utterances_are_compared_filtered_and_sorted(opened, store):
    page = opened()
    facts = comparison("synthetic", store)
    best = facts.best
    summary = page.inner_text("#browse-summary")
    assert summary.startswith("60 utterances, ")
    assert f"A {100 * best.test_cer:.2f} %" in summary
    assert page.locator(".utterance").count() == 10
    page.click("#browse-more")
    assert page.locator(".utterance").count() == 20

    def differences():
        lines = page.locator(".utterance > p").all_inner_texts()
        found = [re.search(r"A (\d+), B (\d+)", line).groups() for line in lines]
        return [int(a) - int(b) for a, b in found]

    assert differences() == sorted(differences(), reverse=True)
    page.select_option("#browse-sort", "better")
    assert differences() == sorted(differences())
    page.select_option("#browse-set", "valid")
    page.select_option("#browse-slice", json.dumps(["codec", "gsm"], separators=(",", ":")))
    assert all("codec: gsm" in line for line in page.locator(".utterance > p").all_inner_texts())
    page.select_option("#browse-slice", "")
    page.select_option("#browse-b", label="base")
    assert "A minus B -" in page.inner_text("#browse-summary")
    page.fill("#browse-find", "valid-0007")
    card = page.locator(".utterance")
    assert card.count() == 1
    assert card.get_attribute("data-key") == "valid-0007"
    assert card.locator("tr").count() == 3


def test_marked_errors_are_those_that_are_counted(opened):
    page = opened()
    card = page.locator(".utterance").first
    a, b = map(int, re.search(r"A (\d+), B (\d+)", card.locator("p").inner_text()).groups())
    rows = card.locator("tr")
    assert rows.nth(1).locator(".S, .D, .I").count() == a
    assert rows.nth(2).locator(".S, .D, .I").count() == b
    counts = [int(n) for n in column(page, "#browse-frequent", 2)]
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_narrow_screen_scrolls_only_inside_tables(opened, language):
    page = opened(language, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("html").get_attribute("lang") == language


def test_chinese_says_it_in_chinese(opened):
    page = opened("zh")
    assert page.inner_text("h2 >> nth=0") == "结论"
    assert "个试验" in page.inner_text(".answer")
    assert page.inner_text("#browse-summary").startswith("60 条语句")
    assert page.locator("#browse-b option").all_inner_texts()[-1] == "基座"
    kinds = page.locator("#browse-slice optgroup").evaluate_all("all => all.map((o) => o.label)")
    assert kinds == ["时长", "说话人", "文本", "codec", "snr_db"]
    names = page.locator("#browse-slice optgroup[label=snr_db] option").all_inner_texts()
    assert [name.split(" (")[0] for name in names][::5] == ["0 至 5 dB"]
    assert names[-1].startswith("20 dB 及以上")


@pytest.mark.quick
@pytest.mark.parametrize("words", [ENGLISH, CHINESE])
def test_sweeps_with_little_to_say_have_a_report(make_store, demo_store, words):
    for given in (
        demo_store,
        make_store([]),
        make_store([stored_trial(0, "8k", 1e-3, "failed")]),
        make_store([stored_trial(0, "8k", 1e-3, "completed", (1, 2, 3))]),
    ):
        page = render(comparison("demo", given), given, words)
        assert page.count("<h1>") == 1


@pytest.mark.quick
def test_text_from_elsewhere_is_escaped(make_store):
    tags = {"outcome.reason": "<script>alert(1)</script>"}
    given = make_store([stored_trial(0, "8k", 1e-3, "failed", tags=tags)])
    page = render(comparison("demo", given), given, ENGLISH)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


@pytest.mark.quick
def test_large_sets_are_shortened_and_it_is_said():
    utterances = [
        {"key": str(n), "texts": [hashlib.sha256(str(n).encode()).hexdigest()]} for n in range(800)
    ]
    data = {
        "sets": {
            "valid": {"utterances": utterances, "whole": 800},
            "test": {"utterances": utterances[:60], "whole": 60},
        }
    }
    text = shortened(data, most=20_000)
    assert len(text) <= 20_000
    sets = json.loads(gzip.decompress(base64.b64decode(text)))["sets"]
    assert 100 <= len(sets["valid"]["utterances"]) < sets["valid"]["whole"] == 800
    assert len(sets["test"]["utterances"]) == 60


@pytest.mark.quick
def test_a_file_is_no_directory(demo_store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="expected a directory"):
        report(comparison("demo", demo_store), demo_store, tmp_path / "file")
