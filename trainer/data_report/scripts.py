"""In which scripts a text is written."""

from __future__ import annotations

import unicodedata

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
