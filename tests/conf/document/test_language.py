"""Saying a text in a language, and the catalogue of translations."""

from __future__ import annotations

import re

import pytest

from conf.document.language import (
    CATALOGUE,
    CHINESE,
    ENGLISH,
    LANGUAGES,
    Listed,
    Name,
    Said,
    catalogue,
    joined,
)
from conf.errors import ConfigError

pytestmark = pytest.mark.quick


def test_a_text_is_said_in_english_as_it_stands() -> None:
    assert ENGLISH("one GPU") == "one GPU"
    assert ENGLISH(Said("{trials} trials", trials=7)) == "7 trials"


def test_a_text_is_said_in_chinese_by_the_catalogue() -> None:
    assert CHINESE("one GPU") == "单 GPU"
    assert CHINESE("") == ""
    assert CHINESE(Said("{low} to {high}", low="1", high="2")) == "1 至 2"


def test_values_that_are_sentences_are_said_too_and_data_stays() -> None:
    said = Said("Trial {trial} {outcome}: {reason}", trial=3, outcome=Said("failed"), reason="no")
    assert CHINESE(said) == "试验 3 失败：no"


def test_a_list_differs_in_its_comma_alone() -> None:
    said = Listed("{n} {what}, {m} {what}", n=1, m=2, what=Said("completed"))
    assert ENGLISH(said) == "1 completed, 2 completed"
    assert CHINESE(said) == "1 已完成，2 已完成"


def test_a_text_from_elsewhere_stays_where_the_catalogue_does_not_know_it() -> None:
    assert CHINESE(Name("one GPU")) == "单 GPU"
    assert CHINESE(Name("tried by hand, {x}")) == "tried by hand, {x}"


@pytest.mark.parametrize("said", ["two GPUs", Said("{n} GPUs in all", n=2)])
def test_a_text_without_a_translation_is_an_error(said: str | Said) -> None:
    """It would be stale."""
    with pytest.raises(ConfigError, match=r"zh.yaml: got no translation of '"):
        CHINESE(said)


def test_sentences_make_a_paragraph() -> None:
    sentences = [Said("one GPU"), Said("yes")]
    assert joined(ENGLISH, sentences) == "one GPU yes"
    assert joined(CHINESE, sentences) == "单 GPU是"


def test_the_languages_have_names_of_their_own() -> None:
    assert {code: language.suffix for code, language in LANGUAGES.items()} == {
        "en": "",
        "zh": "_zh",
    }


def test_translations_keep_every_value() -> None:
    for template, translated in catalogue().items():
        names = set(re.findall(r"{\w+}", template))
        assert set(re.findall(r"{\w+}", translated)) == names, template


def test_a_text_is_in_the_catalogue_once() -> None:
    """A second entry would silently take the place of the first."""
    lines = CATALOGUE.read_text(encoding="utf-8").splitlines()
    entries = [line for line in lines if line and not line.startswith("#")]
    assert len(entries) == len(catalogue())
