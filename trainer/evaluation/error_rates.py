"""Scoring: error rates over a corpus, counts first and the rate second.

A rate is (S + D + I) / N over the whole corpus, a fraction, where N counts the references' units.
An empty hypothesis counts as deletions; no utterance is left out. Alignments are kaldialign's.
Only the sum S + D + I is unique: often several alignments have as few errors, and which of them is
taken decides how the sum is split.

| rate | units | after |
|---|---|---|
| CER | characters | :data:`NORMALISATION` |
| raw CER | characters | :data:`RAW_NORMALISATION` |
| MER (mixed) | CJK characters singly, other runs as words | :data:`MIXED_NORMALISATION` |
| WER | words by white space | :data:`WORD_NORMALISATION` |

Beside them: keywords missed and falsely heard (:func:`spot`), and hypotheses that repeat
themselves (:func:`repeats`).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kaldialign import align, edit_distance

NORMALISATION = "chars-1"
"""Unicode NFKC, lower case, then only letters, digits and marks; everything else is dropped."""
RAW_NORMALISATION = "raw-1"
"""The text as it stands, but for white space: none at the ends, and one space for any run of it."""
WORD_NORMALISATION = "words-1"
"""Unicode NFKC, lower case, no apostrophes within words (don't, dont); all else that is no letter,
digit or mark becomes white space. Chinese has none, so there the WER is of clauses: see the MER."""
MIXED_NORMALISATION = "mixed-1"
"""As ``words-1``; then every Han, kana or bopomofo character is a word of its own."""
NORMALISATIONS = {
    "cer": NORMALISATION,
    "raw_cer": RAW_NORMALISATION,
    "mer": MIXED_NORMALISATION,
    "wer": WORD_NORMALISATION,
    "keywords": MIXED_NORMALISATION,
    "repetition": MIXED_NORMALISATION,
}
"""What each figure's texts went through; stored beside the figures."""

MIN_REPEATS = (4, 3)
"""How often in a row a unit of one token, or of more, must stand to be a repetition. Speech itself
reduplicates: 看看 and 对对对 are said, and so is 好的好的 (or 谢谢谢谢); what a decoder that has
lost its way writes goes on beyond that."""

# Of Unicode's blocks and of the signs that are used as Han characters (々, 〇, 〡 to 〩).
_CJK = (
    "\u3005\u3007\u3021-\u3029\u3038-\u303b\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_MIXED_TOKEN = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")
_APOSTROPHE = re.compile(r"(?<=[^\W\d_])['\u2019](?=[^\W\d_])")


class _Kept(dict[int, str]):
    """Translates letters, digits and marks to themselves and every other character to one string.

    ``str.translate`` runs in C and asks here once for each new character.
    """

    def __init__(self, other: str) -> None:
        super().__init__()
        self._other = other

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = char if unicodedata.category(char)[0] in "LNM" else self._other
        return self[code]


_WITHOUT_OTHERS = _Kept("")
_OTHERS_AS_SPACE = _Kept(" ")


@dataclass(frozen=True, slots=True)
class Cer:
    """Errors of one utterance or of a corpus; add them up with ``+``.

    In characters, or in the units of one of the other rates.
    """

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference_length: int = 0

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference character; with an empty reference 0 if nothing was inserted."""
        if self.reference_length == 0:
            return 0.0 if self.insertions == 0 else float("inf")
        return self.errors / self.reference_length

    def __add__(self, other: Cer) -> Cer:
        return Cer(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.reference_length + other.reference_length,
        )


@dataclass(frozen=True, slots=True)
class Spotted:
    """Keywords of one utterance or of a corpus, or one keyword's counts; add them with ``+``.

    In an utterance that says a keyword r times and whose hypothesis has it h times, min(r, h) are
    hits, the other r - min(r, h) misses, and h - min(r, h) false alarms, wherever they stand.
    """

    hits: int = 0
    misses: int = 0
    false_alarms: int = 0

    @property
    def reference_count(self) -> int:
        return self.hits + self.misses

    @property
    def rate(self) -> float:
        """KWER: misses and false alarms per keyword said; without any, as :attr:`Cer.rate`."""
        if self.reference_count == 0:
            return 0.0 if self.false_alarms == 0 else float("inf")
        return (self.misses + self.false_alarms) / self.reference_count

    def __add__(self, other: Spotted) -> Spotted:
        return Spotted(
            self.hits + other.hits,
            self.misses + other.misses,
            self.false_alarms + other.false_alarms,
        )


def normalise(text: str) -> str:
    """Applies :data:`NORMALISATION`; for example ``"OK，你好!"`` becomes ``"ok你好"``."""
    return unicodedata.normalize("NFKC", text).lower().translate(_WITHOUT_OTHERS)


def raw(text: str) -> str:
    """Applies :data:`RAW_NORMALISATION`."""
    return " ".join(text.split())


def words(text: str) -> list[str]:
    """Applies :data:`WORD_NORMALISATION`; ``"Don't, 你好 OK!"`` gives dont, 你好, ok."""
    folded = unicodedata.normalize("NFKC", text).lower()
    return _APOSTROPHE.sub("", folded).translate(_OTHERS_AS_SPACE).split()


def mixed(text: str) -> list[str]:
    """Applies :data:`MIXED_NORMALISATION`; ``"Don't, 你好 OK!"`` gives dont, 你, 好, ok."""
    return _MIXED_TOKEN.findall(" ".join(words(text)))


def cer(reference: str, hypothesis: str) -> Cer:
    """Character errors of one utterance, both texts normalised first."""
    return _errors(normalise(reference), normalise(hypothesis))


def raw_cer(reference: str, hypothesis: str) -> Cer:
    """Character errors, punctuation, case and spaces included."""
    return _errors(raw(reference), raw(hypothesis))


def wer(reference: str, hypothesis: str) -> Cer:
    """Word errors."""
    return _errors(words(reference), words(hypothesis))


def mer(reference: str, hypothesis: str) -> Cer:
    """Mixed errors: of CJK characters and of the words between them."""
    return _errors(mixed(reference), mixed(hypothesis))


def total(cers: Iterable[Cer]) -> Cer:
    """Corpus counts."""
    return sum(cers, start=Cer())


def interval(cers: Sequence[Cer]) -> tuple[float, float] | None:
    """The interval that covers 95 % of truths for the CER of some utterances.

    By leaving out one utterance at a time, of the logarithm of the rate, as
    `analysis.facts.significance` does with whole speakers and Student's t. None for fewer than two
    utterances, or where all errors are in one of them.
    """
    whole, count = total(cers), len(cers)
    without = [
        (whole.errors - one.errors, whole.reference_length - one.reference_length) for one in cers
    ]
    if count < 2 or not all(errors > 0 and length > 0 for errors, length in without):
        return None
    squares = sum(math.log(errors / length / whole.rate) ** 2 for errors, length in without)
    factor = math.exp(1.96 * math.sqrt(squares * (count - 1) / count))
    return whole.rate / factor, whole.rate * factor


def alignment(reference: str, hypothesis: str) -> list[tuple[str, str, str]]:
    """What became of which characters, for reading: the errors of :func:`cer`, in their places.

    Returns:
        ``(operation, reference, hypothesis)`` in order, neighbours of one operation together;
        ``=`` equal, ``S`` substituted, ``D`` deleted, ``I`` inserted.
    """
    steps: list[tuple[str, str, str]] = []
    # Normalised text holds no empty character, so the empty string can stand for a gap.
    for expected, got in align(normalise(reference), normalise(hypothesis), ""):
        operation = (
            "=" if expected == got else "S" if expected and got else "D" if expected else "I"
        )
        if steps and steps[-1][0] == operation:
            _, before_expected, before_got = steps.pop()
            expected, got = before_expected + expected, before_got + got
        steps.append((operation, expected, got))
    return steps


def spot(reference: str, hypothesis: str, keywords: Iterable[str]) -> dict[str, Spotted]:
    """Finds keywords in one utterance; see :class:`Spotted` for how they are counted.

    Texts and keywords are compared as :func:`mixed` tokens, so ``art`` is not heard in ``start``,
    and neither case nor punctuation matters. Occurrences of one keyword do not overlap, counted
    from the left; keywords are independent, so 银行卡 counts for 银行 too.

    Returns:
        By keyword, those alone that reference or hypothesis holds.
    """
    reference_tokens, hypothesis_tokens = mixed(reference), mixed(hypothesis)
    spotted = {}
    for keyword in keywords:
        tokens = mixed(keyword)
        said, heard = _count(tokens, reference_tokens), _count(tokens, hypothesis_tokens)
        if said or heard:
            hits = min(said, heard)
            spotted[keyword] = Spotted(hits, said - hits, heard - hits)
    return spotted


def repeats(reference: str, hypothesis: str) -> bool:
    """Whether the hypothesis says something over and over that the reference does not.

    That is: a unit of one :func:`mixed` token stands at least ``MIN_REPEATS[0]`` times in a row, or
    one of several tokens at least ``MIN_REPEATS[1]`` times, and the reference has no such row of
    that unit (a telephone number may well hold 八八八八).
    """
    heard = mixed(hypothesis)
    said = None
    for row in _rows_of_repeats(heard):
        said = mixed(reference) if said is None else said
        if not _count(row, said):
            return True
    return False


def _errors(reference: Sequence[str], hypothesis: Sequence[str]) -> Cer:
    distance = edit_distance(reference, hypothesis)
    return Cer(distance["sub"], distance["del"], distance["ins"], len(reference))


def _count(tokens: Sequence[str], text: Sequence[str]) -> int:
    """Occurrences of ``tokens`` in ``text`` that do not overlap, from the left."""
    width, count, index = len(tokens), 0, 0
    while width and index + width <= len(text):
        if text[index : index + width] == tokens:
            count, index = count + 1, index + width
        else:
            index += 1
    return count


def _rows_of_repeats(tokens: list[str]) -> Iterator[list[str]]:
    """Each shortest row of repeats that is long enough to count; a longer one's begins at once.

    A row of k repeats of n tokens is one of n (k - 1) tokens that each equal the one n further on.
    """
    for width in range(1, len(tokens) // min(MIN_REPEATS) + 1):
        wanted = MIN_REPEATS[0] if width == 1 else MIN_REPEATS[1]
        equal = 0
        for index in range(len(tokens) - width):
            equal = equal + 1 if tokens[index] == tokens[index + width] else 0
            if equal == width * (wanted - 1):
                start = index + 1 - equal
                yield tokens[start : start + width * wanted]
