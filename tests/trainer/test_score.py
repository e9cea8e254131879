"""CER: counts, normalisation, and agreement with an independent implementation."""

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.score import Cer, cer, normalise, total

pytestmark = pytest.mark.quick


def test_counts_come_before_the_rate() -> None:
    assert cer("今天天气好", "今天天汽好吗") == Cer(
        substitutions=1, deletions=0, insertions=1, reference_length=5
    )
    assert cer("今天天气好", "今天天汽好吗").rate == pytest.approx(2 / 5)


def test_corpus_cer_is_total_errors_over_total_characters() -> None:
    corpus = total([cer("甲", "乙"), cer("一二三四五六七八九", "一二三四五六七八九")])
    assert corpus.rate == pytest.approx(1 / 10)  # and not the mean of 1 and 0


def test_an_empty_hypothesis_is_deletions() -> None:
    assert cer("你好", "") == Cer(deletions=2, reference_length=2)


def test_insertions_into_an_empty_reference_have_no_finite_rate() -> None:
    assert cer("", "").rate == 0.0
    assert cer("", "喂").rate == float("inf")


@pytest.mark.parametrize(
    ("text", "normalised"),
    [("ＯＫ，你好!", "ok你好"), ("A  b\tC", "abc"), ("３点", "3点"), ("", "")],
)
def test_normalisation(text: str, normalised: str) -> None:
    assert normalise(text) == normalised


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="甲乙丙丁ab", min_size=1, max_size=20), st.text("甲乙丙丁ab", max_size=20))
def test_agrees_with_jiwer(reference: str, hypothesis: str) -> None:
    theirs = jiwer.process_characters(reference, hypothesis)
    ours = cer(reference, hypothesis)
    assert ours.errors == theirs.substitutions + theirs.deletions + theirs.insertions
    assert ours.rate == pytest.approx(theirs.cer)
