"""Error rates: counts, normalisations, and agreement with two independent implementations."""

import random
from collections.abc import Callable, Sequence

import jiwer
import pytest

from analysis.facts import significance
from trainer.evaluation import error_rates
from trainer.evaluation.error_rates import (
    Cer,
    Spotted,
    alignment,
    cer,
    interval,
    mixed,
    normalise,
    raw,
    repeats,
    spot,
    total,
)

pytestmark = pytest.mark.quick

NUM_PAIRS = 10_000
PIECES = (
    *"零一二三四五六七八九十百千万的我你好银行卡请等下",
    *(
        "hello",
        "OK",
        "don't",
        "it’s",
        "e-mail",
        "3.5",
        "2024",
        "ＡＢＣ",
        "é",
        "ka\u0301",
        "カナ",
        "々",
    ),
    *("，", "。", "!", "?", "、", " ", "  ", "\t", "%", "-", "'", "…", "\u3000"),
)


def random_pairs() -> list[tuple[str, str]]:
    """Texts of all kinds, most of them a reference with some pieces changed; some empty."""
    rng = random.Random(4)
    pairs = []
    for _ in range(NUM_PAIRS):
        reference = rng.choices(PIECES, k=rng.choice([0, 1, 2, 5, 10, 20]))
        hypothesis = [] if rng.random() < 0.05 else list(reference)
        for _ in range(rng.randint(0, 4)):
            place = rng.randint(0, len(hypothesis))
            hypothesis[place : place + rng.randint(0, 2)] = rng.choices(PIECES, k=rng.randint(0, 2))
        pairs.append(("".join(reference), "".join(hypothesis)))
    assert {bool(text) for pair in pairs for text in pair} == {True, False}
    return pairs


def plain_distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Levenshtein's distance by its definition, sharing nothing with the product."""
    row = list(range(len(hypothesis) + 1))
    for i, expected in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, got in enumerate(hypothesis, start=1):
            best = min(diagonal + (expected != got), row[j] + 1, row[j - 1] + 1)
            diagonal, row[j] = row[j], best
    return row[-1]


@pytest.mark.parametrize(
    ("rate", "units"),
    [
        (error_rates.cer, lambda text: list(normalise(text))),
        (error_rates.raw_cer, lambda text: list(raw(text))),
        (error_rates.wer, error_rates.words),
        (error_rates.mer, mixed),
    ],
    ids=["cer", "raw_cer", "wer", "mer"],
)
def test_agrees_with_jiwer_and_a_plain_implementation(
    rate: Callable[[str, str], Cer], units: Callable[[str], list[str]]
) -> None:
    pairs = random_pairs()
    ours = [rate(*pair) for pair in pairs]
    split = [(units(reference), units(hypothesis)) for reference, hypothesis in pairs]
    for found, (reference, hypothesis) in zip(ours, split, strict=True):
        assert found.errors == plain_distance(reference, hypothesis)
        assert found.reference_length == len(reference)
        assert found.insertions - found.deletions == len(hypothesis) - len(reference)
    # jiwer refuses empty references; units become words of it, whatever they hold (raw: spaces).
    kept = [(r, h, e) for (r, h), e in zip(split, ours, strict=True) if r]
    names = {unit: f"u{n}" for n, unit in enumerate({u for r, h, _ in kept for u in r + h})}
    theirs = jiwer.process_words(
        [" ".join(map(names.__getitem__, reference)) for reference, _, _ in kept],
        [" ".join(map(names.__getitem__, hypothesis)) for _, hypothesis, _ in kept],
    )
    corpus = total(errors for _, _, errors in kept)
    assert corpus.errors == theirs.substitutions + theirs.deletions + theirs.insertions
    assert corpus.rate == pytest.approx(theirs.wer)


def test_an_alignment_holds_the_errors_and_both_texts() -> None:
    for reference, hypothesis in random_pairs():
        steps = alignment(reference, hypothesis)
        assert "".join(step[1] for step in steps) == normalise(reference)
        assert "".join(step[2] for step in steps) == normalise(hypothesis)
        counts = {op: sum(max(len(r), len(h)) for o, r, h in steps if o == op) for op in "SDI"}
        errors = cer(reference, hypothesis)
        assert counts == {
            "S": errors.substitutions,
            "D": errors.deletions,
            "I": errors.insertions,
        }
        assert all(one[0] != other[0] for one, other in zip(steps, steps[1:], strict=False))
    assert alignment("今天天气好", "今天天汽好吗") == [
        ("=", "今天天", "今天天"),
        ("S", "气", "汽"),
        ("=", "好", "好"),
        ("I", "", "吗"),
    ]


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
    ("text", "characters", "mixed_tokens", "words"),
    [
        ("ＯＫ，你好!", "ok你好", "ok 你 好", "ok 你好"),
        ("A  b\tC", "abc", "a b c", "a b c"),
        ("３点", "3点", "3 点", "3点"),
        ("It’s 3.5元", "its35元", "its 3 5 元", "its 3 5元"),
        ("'quoted' rock'n'roll", "quotedrocknroll", "quoted rocknroll", "quoted rocknroll"),
        ("人々とカナabc", "人々とカナabc", "人 々 と カ ナ abc", "人々とカナabc"),
        ("snake_case", "snakecase", "snake case", "snake case"),
        ("。！", "", "", ""),
        ("", "", "", ""),
    ],
)
def test_normalisations(text: str, characters: str, mixed_tokens: str, words: str) -> None:
    assert normalise(text) == characters
    assert mixed(text) == mixed_tokens.split()
    assert error_rates.words(text) == words.split()


def test_raw_keeps_all_but_the_amount_of_white_space() -> None:
    assert raw(" Ａ，b\n c  ") == "Ａ，b c"
    assert error_rates.raw_cer("你好。", "你好") == Cer(deletions=1, reference_length=3)


def test_keywords_are_counted_per_utterance() -> None:
    keywords = ["银行", "银行卡", "OK", "credit card", "art", "余额"]
    spotted = spot("银行卡，银行卡 Credit card。", "银行卡吗 银行 ok start", keywords)
    assert spotted == {
        "银行": Spotted(hits=2, misses=0, false_alarms=0),
        "银行卡": Spotted(hits=1, misses=1, false_alarms=0),
        "OK": Spotted(hits=0, misses=0, false_alarms=1),
        "credit card": Spotted(hits=0, misses=1, false_alarms=0),
    }
    corpus = sum(spotted.values(), start=Spotted())
    assert corpus.rate == pytest.approx((2 + 1) / 5)
    assert (Spotted().rate, Spotted(false_alarms=1).rate) == (0.0, float("inf"))
    assert spot("一一一", "一一一一", ["一一"]) == {"一一": Spotted(hits=1, false_alarms=1)}


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("我看看", "我看看看", False),  # three in a row are said
        ("我看看", "我看看看看", True),
        ("幺八八八八", "八八八八", False),  # the reference has it too
        ("好的", "好的好的", False),
        ("好的", "好的好的好的", True),
        ("thank you", "thank you thank you Thank you.", True),
        ("abab", "abababab", False),  # a word of its own, whatever is in it
        ("请等一下", "请等一下请等一下请等一下请等一下", True),
        ("", "", False),
        ("一二三四五六", "一二三四五六", False),
    ],
)
def test_repetitions(reference: str, hypothesis: str, expected: bool) -> None:
    assert repeats(reference, hypothesis) is expected


def test_an_interval_is_that_of_significance_and_none_where_nothing_can_be_said() -> None:
    cers = [Cer(substitutions=n % 3, reference_length=10) for n in range(30)]
    errors, lengths = [one.errors for one in cers], [one.reference_length for one in cers]
    expected = significance.rate(errors, lengths, significance.cluster_indices([None] * 30))
    low, high = interval(cers) or (0.0, 0.0)
    assert low < total(cers).rate < high
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=0.05)
    assert interval(cers[:1]) is None
    assert interval([Cer(reference_length=10)] * 3) is None
