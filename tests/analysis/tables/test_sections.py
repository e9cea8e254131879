"""The further tables, as facts: finalists, slices, configs."""

from __future__ import annotations

import pytest

from analysis.facts.comparison import comparison
from analysis.tables.sections import cuts, sections, text_class
from tests.analysis.fakes import hypotheses, stored_trial

pytestmark = pytest.mark.quick


def by_name(facts):
    return {section.name: section for section in sections(facts)}


def test_finalists_are_confirmed_on_the_test_set(scored_store):
    section = by_name(comparison("demo", scored_store))["finalists"]
    lines = [dict(zip([c.name for c in section.columns], r, strict=True)) for r in section.rows]
    first = lines[0]
    assert (first["set"], first["config"], first["trial"]) == ("test", "best", 1)
    assert first["over_baseline"] == pytest.approx(-0.1)
    assert [line["config"] for line in lines if line["set"] == "valid"] == [
        "best",
        "baseline",
        "base",
    ]
    of_valid = next(line for line in lines if line["set"] == "valid")
    assert of_valid["over_base"] == pytest.approx(27 / 120 - 0.6)
    assert any("12 utterances of 6 speakers" in str(note) for note in section.notes)
    assert any("each by itself: the trials name no" in str(note) for note in section.notes)


def test_slices_by_what_the_manifest_names(scored_store):
    rows = by_name(comparison("demo", scored_store))["slices"].rows
    kinds = {row[1] for row in rows if row[0] == "valid"}
    assert kinds == {"duration", "speaker", "codec", "snr_db"}
    gsm = next(row for row in rows if row[1:3] == ("codec", "gsm"))
    assert gsm[3:5] == (6, 60)
    assert gsm[7] == pytest.approx(13 / 60)


def test_numeric_tags_of_many_values_are_quartered(scored_store):
    facts = comparison("demo", scored_store)
    evaluated = facts.evidence.sets["valid"]
    named = [name for kind, name, _ in cuts(evaluated) if kind == "duration"]
    assert named == ["0 to 2 s", "2 to 5 s", "5 to 10 s", "10 to 20 s"]


def test_a_name_of_each_utterance_by_itself_is_no_slice(make_store):
    lines = hypotheses(range(4), length=20, codec=["gsm", "amr", "gsm", "amr"], noise=list("abcd"))
    trial = stored_trial(
        0, "8k", 1e-3, "completed", (6, 0, 0), metrics={"valid/cer": 6 / 80, "objective": 6 / 80}
    )
    store = make_store([trial], artifacts={("run00", "hypotheses/valid.jsonl"): lines})
    evaluated = comparison("demo", store).evidence.sets["valid"]
    assert {kind for kind, _, _ in cuts(evaluated)} == {"codec"}


def test_configs_are_set_side_by_side_where_they_differ(scored_store):
    section = by_name(comparison("demo", scored_store))["configs"]
    assert [column.name for column in section.columns] == [
        "key",
        "8k #1",
        "8k #0 default",
        "severity",
        "effect",
    ]
    assert section.rows == (("optim_conf.lr", 2e-3, 1e-3, "critical", "both"),)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("今天天气", "words"),
        ("幺三八零零", "numbers"),
        ("用wifi上网", "mixed"),
        ("ok", "latin"),
        ("一共八", "numbers"),
        ("。", "silence"),
    ],
)
def test_text_class(text, kind):
    assert text_class(text) == kind
