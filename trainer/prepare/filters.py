"""The rules that leave a line out: their names, and those that look at texts and lengths."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from trainer.data.manifest import MARK
from trainer.prepare.settings import Settings

BAD_INPUT = (
    "not UTF-8",
    "line too long",
    "malformed line",
    "missing column",
    "list names itself",
    "no such manifest",
    "no transcript",
    "no recording",
    "duplicate key",
    "command instead of a file",
    "outside --root",
    "absolute path not on this machine",
    "no such file",
    "not a file",
    "manifest instead of audio",
    "empty audio",
    "cut off audio",
    "no readable audio",
    "span outside the recording",
    "no such side",
    "samples that are no numbers",
    "audio that would be replaced",
    "channel",
)
"""Mistakes in what was handed in."""

CROSSING = ("call in another split", "content in another split")

STOPS = frozenset((*BAD_INPUT, *CROSSING, "stereo without a side"))
"""``--strict`` ends at the first of these."""

CHOICES = (
    "annotation error",
    "annotator's mark",
    "empty text",
    "unspeakable characters",
    "symbols without a spoken form",
    "numeral that can be read in several ways",
    "sample rate",
    "too short",
    "too long",
    "characters per second",
    "stereo without a side",
    "no sound",
    "duplicate content",
    *CROSSING,
)
"""Of what can be read, what is not taken. ``--keep`` switches these off."""

_ANNOTATION_ERROR = "<ANNOTATION_ERROR>"
_NOT_SPOKEN = re.compile(r"[\[\]()<>{}*#@$%^&_=+|\\/~]")
_NUMERAL = re.compile(r"\d{2,}|\d[.,]\d")
_SPELT = "°"
_SPACE_WITHIN_CHINESE = re.compile(r"(?<=[\u3400-\u9fff])\s+(?=[\u3400-\u9fff])")


def flag_name(rule: str) -> str:
    """A rule as it is written on a command line: without spaces and what shells take for theirs."""
    return rule.replace(" ", "_").replace("'", "")


def against_text(text: str, settings: Settings) -> tuple[str, str] | None:
    """The first rule that leaves a transcript out, and why.

    With ``spoken`` a transcript must also say how it is spoken: then symbols and numerals that
    can be read in several ways are left out.
    """
    for rule, found in (
        ("annotation error", _ANNOTATION_ERROR if _ANNOTATION_ERROR in text else ""),
        ("annotator's mark", _first(MARK, text.replace(_ANNOTATION_ERROR, ""))),
        ("empty text", "" if any(char.isalnum() for char in text) else "no letter or digit"),
        ("unspeakable characters", _unspeakable(text)),
        ("symbols without a spoken form", _first(_NOT_SPOKEN, text) if settings.spoken else ""),
        (
            "numeral that can be read in several ways",
            _first(_NUMERAL, text) if settings.spoken else "",
        ),
    ):
        if found and rule not in settings.keep:
            return rule, f"target: got {found}" if rule == "empty text" else f"got {found!r}"
    return None


def against_length(
    duration_s: float, rate_hz: int, text: str, settings: Settings
) -> tuple[str, str] | None:
    """The first rule that a recording's length or rate breaks, and why."""
    chars = sum(char.isalnum() for char in text)
    per_s = chars / duration_s
    low, high = settings.min_chars_per_s, settings.max_chars_per_s
    # A recording on which nobody speaks has no rate of speech.
    pace_is_wrong = chars > 0 and not low <= per_s <= high
    for rule, applies, why in (
        (
            "sample rate",
            bool(settings.rates_hz) and rate_hz not in settings.rates_hz,
            f"got {rate_hz} Hz, expected {' or '.join(map(str, settings.rates_hz))}",
        ),
        (
            "too short",
            duration_s < settings.min_s,
            f"got {duration_s:.3g} s, expected at least {settings.min_s:g} s",
        ),
        (
            "too long",
            duration_s > settings.max_s,
            f"got {duration_s:.1f} s, expected at most {settings.max_s:g} s",
        ),
        (
            "characters per second",
            pace_is_wrong,
            f"got {per_s:.1f} ({chars} in {duration_s:.1f} s), expected {low:g} to {high:g}",
        ),
    ):
        if applies and rule not in settings.keep:
            return rule, why
    return None


def target_of(text: str, settings: Settings) -> str:
    """The transcript as it is written into manifests."""
    if settings.spoken:
        text = re.sub(r"[^\w' ]+", " ", text.lower())
    text = " ".join(text.split())
    # Kaldi's transcripts stand in words; a model would learn to write the spaces.
    return text if settings.keep_spaces else _SPACE_WITHIN_CHINESE.sub("", text)


def _first(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match.group() if match else ""


def _unspeakable(text: str) -> str:
    """Nothing if all can be said; else the first character that nobody can."""
    return next((char for char in text if not char.isalnum() and _is_unspeakable(char)), "")


@lru_cache(maxsize=4096)
def _is_unspeakable(char: str) -> bool:
    """Control characters, what was damaged by a wrong encoding, emoji and other pictures.

    A symbol that Unicode itself spells in letters, as ℃ and №, has a name.
    """
    category = unicodedata.category(char)
    if category == "So":
        return char not in _SPELT and unicodedata.normalize("NFKC", char) == char
    return category in ("Cc", "Co", "Cn", "Cs") and not char.isspace()
