"""Scoring: character error rate over a corpus, counts first and the rate second.

CER = (S + D + I) / N over the whole corpus, a fraction, where N is the number of reference
characters after the normalisation named by :data:`NORMALISATION`. An empty hypothesis counts as
deletions; no utterance is left out. Alignments are kaldialign's.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from kaldialign import edit_distance

NORMALISATION = "chars-1"
"""Unicode NFKC, lower case, then only letters, digits and marks; everything else is dropped."""


@dataclass(frozen=True, slots=True)
class Cer:
    """Character errors of one utterance or of a corpus; add them up with ``+``."""

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


def normalise(text: str) -> str:
    """Applies :data:`NORMALISATION`; for example ``"OK，你好!"`` becomes ``"ok你好"``."""
    folded = unicodedata.normalize("NFKC", text).lower()
    return "".join(char for char in folded if unicodedata.category(char)[0] in "LNM")


def cer(reference: str, hypothesis: str) -> Cer:
    """Errors of one utterance, both texts normalised first."""
    reference, hypothesis = normalise(reference), normalise(hypothesis)
    distance = edit_distance(list(reference), list(hypothesis))
    return Cer(distance["sub"], distance["del"], distance["ins"], len(reference))


def total(cers: Iterable[Cer]) -> Cer:
    """Corpus counts."""
    return sum(cers, start=Cer())
