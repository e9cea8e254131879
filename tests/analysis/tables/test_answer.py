"""The paragraph that says what a sweep found, and how sure that is."""

from __future__ import annotations

import re

import pytest

from analysis.facts.comparison import Comparison, comparison
from analysis.tables.answer import answer
from conf.document.language import CHINESE, ENGLISH, Language
from tests.analysis.fakes import stored_trial
from tests.conftest import ROOT

pytestmark = pytest.mark.quick


def test_answer_names_best_base_baseline_and_test(demo_store):
    said = answer(comparison("demo", demo_store))
    assert "trial 3, 8k, lr 1.23e-3" in said
    assert "valid/cer 8.00 % (80 errors); the base has 72.00 %, 9.0 times as much" in said
    assert "default config of 8k has 12.00 %: -33.3 %" in said
    assert "test set, by which no trial was chosen: 9.00 % (base 74.00 %)" in said


def test_answer_says_how_sure_it_is(scored_store):
    said = answer(comparison("demo", scored_store))
    parts = (  # what no trial was chosen by comes first
        "On the test set, by which no trial was chosen",
        "There it is -10.00 points (paired, 95 % interval -",
        "against the default config of 8k: shown.",
        "valid/cer 22.50 % (27 errors), 95 % interval ",
        "-10.00 points (paired; chosen among 1: 95 % interval -1",
    )
    places = [said.index(part) for part in parts]
    assert places == sorted(places)


def test_full_answer_says_what_the_best_config_changes(scored_store):
    facts = comparison("demo", scored_store)
    assert "it changes optim_conf.lr 1e-3 → 2e-3." in answer(facts, full=True)
    assert "它改变了 optim_conf.lr 1e-3 → 2e-3。" in answer(facts, CHINESE, full=True)


@pytest.mark.parametrize(
    ("page", "words"), [("README.md", ENGLISH), ("README_zh.md", CHINESE)], ids=["en", "zh"]
)
def test_the_readme_quotes_the_demonstrations_answer(
    page: str, words: Language, demonstration: Comparison
) -> None:
    """Its rates and the best trial's settings; counts and intervals need the texts as well."""
    text = (ROOT / page).read_text(encoding="utf-8")
    quoted = " ".join(line[2:] for line in text.splitlines() if line.startswith("> "))
    said = answer(demonstration, words)
    rates = re.compile(r"[-+]?\d+\.\d+ %|\d+\.\d+e-\d+|0\.\d{4}")
    assert len(rates.findall(quoted)) > 6
    assert set(rates.findall(quoted)) <= set(rates.findall(said))
    assert quoted.startswith(said.partition("2.91e-3")[0])


def test_a_loss_is_no_rate(make_store):
    loss = {"valid/loss": 4.4575}
    trials = [
        stored_trial(n, "8k", 1e-3, "completed", (80 + n, 0, 0), baseline=not n, metrics=loss)
        for n in range(2)
    ]
    store = make_store(trials, {"base/valid/loss": 9.5}, {"objective": "valid/loss"})
    said = answer(comparison("demo", store))
    assert "It reaches valid/loss 4.457; the base has 9.500" in said
    assert "445" not in said
