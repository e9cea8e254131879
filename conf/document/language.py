"""What documents and reports say, in English or Chinese.

Every sentence stands once, in English: beside a value in a configuration, in the schema, or in the
code that prints it, there as a template with its values, `Said("{trials} trials", trials=7)`.
`zh.yaml` gives the Chinese for each English text. A text without a translation is an error, so a
sentence that changes never keeps a stale translation, and no document is half translated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from conf.errors import ConfigError

CATALOGUE = Path(__file__).with_name("zh.yaml")


class Said:
    """A sentence: `str()` gives it in English, a `Language` in that language.

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
    """A text from elsewhere: in Chinese where the catalogue knows it, otherwise as it is."""

    def __str__(self) -> str:
        return self.template


@dataclass(frozen=True)
class Language:
    """A language of the documents; called with a text, it says the text."""

    code: str
    """`en` or `zh`; the folder of its templates."""
    suffix: str
    """Ends the names of its documents: README_CONFIG_zh.md."""

    def __call__(self, said: str | Said) -> str:
        """Say an English text, or a template with its values, in this language.

        Raises:
            ConfigError: The catalogue has no translation of it.
        """
        if self.code == "en":
            return str(said)
        template = said.template if isinstance(said, Said) else said
        if not template:
            return ""
        if isinstance(said, Name):
            return catalogue().get(template, template)
        if isinstance(said, Listed):
            translated = template.replace(", ", catalogue()[", "])
        else:
            translated = _translation(template)
        if isinstance(said, str):
            return translated
        values = {
            name: self(value) if isinstance(value, Said) else value
            for name, value in said.values.items()
        }
        return translated.format(**values)


ENGLISH = Language("en", "")
CHINESE = Language("zh", "_zh")
LANGUAGES: Mapping[str, Language] = {each.code: each for each in (ENGLISH, CHINESE)}


def joined(language: Language, sentences: Sequence[Said]) -> str:
    """Sentences as a paragraph: Chinese has no blanks between them."""
    return ("" if language == CHINESE else " ").join(language(one) for one in sentences)


@cache
def catalogue() -> Mapping[str, str]:
    """All translations into Chinese, by the English text."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content = yaml.load(CATALOGUE.read_text(encoding="utf-8"), loader)
    return {str(english): str(chinese) for english, chinese in content.items()}


def _translation(text: str) -> str:
    try:
        return catalogue()[text]
    except KeyError:
        raise ConfigError(f"{CATALOGUE}: got no translation of {text!r}, expected one") from None
