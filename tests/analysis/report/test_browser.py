"""What the report's browser shows of every utterance: references, texts, and marked errors."""

from __future__ import annotations

import pytest

from analysis.facts.comparison import comparison
from analysis.facts.utterances import BASE
from analysis.report.browser import operations, systems, texts
from conf.document.language import CHINESE

pytestmark = pytest.mark.quick


def test_the_finalists_and_the_base_can_be_looked_at(scored_store):
    facts = comparison("demo", scored_store)
    assert [(system.name, system.trial) for system in systems(facts)] == [
        ("8k #1 best", 1),
        ("8k #0 default", 0),
        ("base", BASE),
    ]
    assert [system.name for system in systems(facts, CHINESE)][-1] == "基座"


def test_every_utterance_has_its_slices_and_a_text_of_each_system(scored_store):
    shown = texts(comparison("demo", scored_store), scored_store)
    assert shown["test"]["systems"] == ["8k #1 best", "8k #0 default"]  # the base has no texts
    valid = shown["valid"]
    assert valid["whole"] == len(valid["utterances"]) == 12
    assert valid["slices"]["codec"] == ["amr", "gsm"]
    first = valid["utterances"][0]
    assert (first["key"], first["ref"]) == ("valid-0", "一" * 10)
    assert first["slices"]["codec"] == "gsm"
    assert first["texts"] == [["", "D" * 10]] * len(valid["systems"])


@pytest.mark.parametrize(
    ("reference", "hypothesis", "steps"),
    [("一二三", "一三", "=D="), ("一二", "一五二", "=I="), ("一二", "一五", "=S"), ("", "一", "I")],
)
def test_operations(reference, hypothesis, steps):
    assert operations(reference, hypothesis) == [hypothesis, steps]
