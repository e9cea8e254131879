"""Say the sentences of documents in English or Chinese.

Every sentence stands once, in English: beside a value in a configuration, in the schema, in the
code that prints it. `templates/zh.yaml` gives the Chinese for each. A sentence that changes no
longer finds its translation, which is an error: a stale one is never printed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from conf.errors import ConfigError

TEMPLATES = Path(__file__).parents[1] / "templates"
CATALOGUE = TEMPLATES / "zh.yaml"

Say = Callable[[str], str]
"""Turns an English sentence into one of the document's language."""


@dataclass(frozen=True)
class Language:
    """A language of the documents."""

    code: str
    """`en` or `zh`; the folder of its templates."""
    suffix: str
    """What stands behind a document's name: README_CONFIG_zh.md."""

    def say(self, text: str) -> str:
        """A sentence in this language.

        Raises:
            ConfigError: If the catalogue has no translation of it.
        """
        if self.code == "en" or not text:
            return text
        try:
            return catalogue()[text]
        except KeyError:
            raise ConfigError(
                f"{CATALOGUE}: got no translation of {text!r}, expected one"
            ) from None

    def say_or_keep(self, text: str) -> str:
        """As `say`, but a sentence of somebody's own file stays as it was written."""
        return text if self.code == "en" else catalogue().get(text, text)


ENGLISH = Language("en", "")
CHINESE = Language("zh", "_zh")
LANGUAGES = (ENGLISH, CHINESE)


@cache
def catalogue() -> dict[str, str]:
    """All translations into Chinese, by the English sentence."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    blocks = yaml.load(CATALOGUE.read_text(encoding="utf-8"), loader)
    return {english: chinese for block in blocks.values() for english, chinese in block.items()}
