"""In which scripts a text is written."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

SCRIPTS = {"C": "chinese", "L": "latin", "D": "digits", "O": "other"}


def scripts(text: str) -> str:
    """The script of each character of a text, as a letter: C, L, D or O."""
    return text.translate(_SCRIPT)


class _Scripts(dict[int, str]):
    """Letters of scripts, each found once."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        name = unicodedata.name(char, "")
        if name.startswith("CJK ") or char in "々〇":
            script = "C"
        elif "LATIN" in name:
            script = "L"
        else:
            script = "D" if unicodedata.category(char)[0] == "N" else "O"
        self[code] = script
        return script


_SCRIPT = _Scripts()


def kind_of(found: str) -> str:
    """What a text is written in, from its `scripts`; digits stand beside any of them."""
    letters = set(found)
    if "C" in letters and "L" in letters:
        return "mixed"
    for letter in "CLOD":
        if letter in letters:
            return SCRIPTS[letter]
    return "empty"


def unspelt_by(model: Path, counts: Counter[str]) -> Mapping[str, tuple[tuple[str, int], ...]]:
    """Characters and how often they stand in the texts, by tokenizer, most frequent first.

    Args:
        model: A model directory, `config.yaml` beside its tokenizers.
        counts: How often each character stands in the texts.

    Raises:
        UserError: The directory is no model's.
    """
    # Tokenizers are FunASR's, which brings torch: only those who give a model wait for it.
    from conf.load import load_config
    from trainer.data.text import unspelt
    from trainer.model.build import resolved_values, text_codec

    config = load_config(model / "config.yaml", model=model)
    blank = config.get("ctc_vocab_size", 60515) - 1
    lost = unspelt(text_codec(resolved_values(config)), counts, blank)
    return {name: tuple((char, counts[char]) for char in chars) for name, chars in lost.items()}
