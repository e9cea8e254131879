"""What reports say, in English or Chinese.

A sentence is a template with its values, `Said("{trials} trials", trials=7)`, and stands in the
code in English; `zh.yaml` holds the Chinese by the English template. A template without a
translation is an error, so none is half-translated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from conf.errors import ConfigError

CATALOGUE = Path(__file__).parent / "zh.yaml"


class Said:
    """A sentence: `str()` gives it in English, `Words` in a language.

    Args:
        template: English, with its values' names in braces.
        values: What stands there; texts among them are data and stay as they are, others said.
    """

    def __init__(self, template: str, **values: object) -> None:
        self.template = template
        self.values: Mapping[str, object] = values

    def __str__(self) -> str:
        return self.template.format(**self.values)

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


class Listed(Said):
    """Words and numbers side by side: in every language alike but for the comma."""


class Name(Said):
    """A name that somebody else gives: in Chinese where the catalogue knows it, else as it is."""

    def __str__(self) -> str:
        return self.template


Words = Callable[[Any], str]
"""Says a text or a `Said` in a language."""


def english(said: str | Said) -> str:
    """As it stands in the code."""
    return str(said)


def chinese(said: str | Said) -> str:
    """By the catalogue.

    Raises:
        ConfigError: It has no translation of this template.
    """
    template = said.template if isinstance(said, Said) else said
    if not template:
        return ""
    if isinstance(said, Name):
        return catalogue().get(template, template)
    if isinstance(said, Listed):
        template = template.replace(", ", catalogue()[", "])
        return template.format(**{k: _in_chinese(v) for k, v in said.values.items()})
    try:
        translated = catalogue()[template]
    except KeyError:
        place = f"{CATALOGUE}: got no translation of {template!r}, expected one"
        raise ConfigError(place) from None
    if isinstance(said, str):
        return translated
    return translated.format(**{k: _in_chinese(v) for k, v in said.values.items()})


def _in_chinese(value: object) -> object:
    return chinese(value) if isinstance(value, Said) else value


LANGUAGES: Mapping[str, Words] = {"en": english, "zh": chinese}


def joined(words: Words, sentences: list[Said]) -> str:
    """Sentences as a paragraph: Chinese has no blanks between them."""
    return ("" if words is chinese else " ").join(words(one) for one in sentences)


@cache
def catalogue() -> Mapping[str, str]:
    """All translations, by the English template."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content = yaml.load(CATALOGUE.read_text(encoding="utf-8"), loader)
    return {str(english): str(chinese) for english, chinese in content.items()}
