"""Evaluation: every utterance scored or named, whatever the batches."""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from conf.errors import DataError, WorkError
from conf.load import load_config
from tests.conftest import BASE
from trainer.data import batch
from trainer.data.batch import Example, collate, make_example
from trainer.data.manifest import Utterance, read_data_list
from trainer.evaluation import evaluate as module
from trainer.evaluation.error_rates import Spotted
from trainer.evaluation.evaluate import Scores, evaluate, read_keywords
from trainer.evaluation.greedy import Row, Writer
from trainer.model.build import Nano, build
from trainer.model.losses import Objective

RATES = ("cer", "cer_ctc", "mer", "wer", "raw_cer", "repetition_rate")


@pytest.fixture(scope="module")
def nano() -> Nano:
    return build(load_config(BASE / "config.yaml", model=BASE))


def _evaluate(nano: Nano, utterances: Sequence[Utterance], **kwargs: object) -> Scores:
    settings = {"max_new_tokens": 64, "batch_size": 8, **kwargs}
    return evaluate(nano, utterances, **settings)  # type: ignore[arg-type]


def test_scores_do_not_depend_on_batches_and_few_features_are_held(
    nano: Nano, cut: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    utterances = read_data_list(cut("valid", 30))
    whole = _evaluate(nano, utterances, batch_size=30)
    assert [scored.key for scored in whole.utterances] == [u.key for u in utterances]
    alive: weakref.WeakSet[Example] = weakref.WeakSet()
    most, done = 0, []

    def counted(*args: object) -> Example:
        nonlocal most
        example = _Hashed(**vars(make_example(*args)))  # type: ignore[arg-type]
        alive.add(example)
        most = max(most, len(alive))
        return example

    monkeypatch.setattr(module, "make_example", counted)
    monkeypatch.setattr(module, "WINDOW_BATCHES", 2)
    assert _evaluate(nano, utterances, batch_size=4, on_progress=done.append) == whole
    assert most <= 2 * 4 + 4  # a window, and the last batch of the one before
    assert done == [1] * 30


def test_long_recordings_are_decoded_in_smaller_batches(
    nano: Nano, cut: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many seconds at once, whatever the recordings' lengths; texts and scores are the same."""
    utterances = read_data_list(cut("valid", 30))
    whole = _evaluate(nano, utterances, batch_size=30)
    longest = max(len(nano.extractor(utterance)) for utterance in utterances)
    monkeypatch.setattr(batch, "TYPICAL_FRAMES", longest // 2)
    rows: list[int] = []
    step = Writer.step

    def watched(writer: Writer[Any]) -> list[Row[Any]]:
        rows.append(len(writer.rows))
        return step(writer)

    monkeypatch.setattr(Writer, "step", watched)
    assert _evaluate(nano, utterances, batch_size=8) == whole
    assert rows[0] in (3, 4)
    assert 4 < max(rows) <= 8


@pytest.mark.parametrize("where", ["encode_examples", "add", "step", "losses"])
def test_exhausted_memory_names_the_batch_and_what_helps(
    nano: Nano, cut: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise torch.OutOfMemoryError("CUDA out of memory")

    if where == "encode_examples":
        monkeypatch.setattr(module, where, fail)
    elif where != "losses":
        monkeypatch.setattr(Writer, where, fail)
    objective = fail if where == "losses" else None
    utterances = read_data_list(cut("valid", 12))
    with pytest.raises(
        WorkError,
        match=r"^out of memory in evaluation: a batch of 8 utterances, up to \d+ frames and 64 new "
        r"tokens; a smaller finetune_conf.eval_batch_size or .*max_new_tokens needs less$",
    ):
        _evaluate(nano, utterances, objective=objective)


class _Hashed(Example):
    """An example that a set can hold."""

    __hash__ = object.__hash__


def test_the_loss_is_of_tokens_and_utterances_whatever_the_batches(
    nano: Nano, cut: Callable[..., Path]
) -> None:
    utterances = read_data_list(cut("valid", 20))
    objective = Objective(nano.model, load_config(BASE / "config.yaml", model=BASE))
    losses = [_evaluate(nano, utterances, batch_size=n, objective=objective).loss for n in (20, 3)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    examples = [make_example(item, nano.extractor, nano.codec) for item in utterances]
    with torch.inference_mode():
        single = [objective(collate([example]), training=False) for example in examples]
    num_tokens = sum(one.num_tokens for one in single)
    ce = sum(one.ce.item() * one.num_tokens for one in single) / num_tokens
    ctc = sum(one.ctc.item() for one in single if one.ctc is not None) / len(single)
    assert losses[0] == pytest.approx(ce + single[0].ctc_weight * ctc, rel=1e-5)


def test_an_utterance_that_cannot_be_read_is_named(nano: Nano, cut: Callable[..., Path]) -> None:
    path = cut("valid", 3)
    utterances = list(read_data_list(path))
    utterances[1] = replace(utterances[1], source=path.parent / "gone.wav")
    with pytest.raises(DataError, match=r"valid-3.jsonl:2: .*gone.wav.*valid-0001"):
        _evaluate(nano, utterances)


def test_the_valid_set_gives_all_metrics(nano: Nano, cut: Callable[..., Path]) -> None:
    utterances = read_data_list(cut("valid", 12))
    first = _evaluate(nano, utterances)
    base = {scored.key: scored.text for scored in first.utterances}
    base[utterances[0].key] += "。"
    scores = _evaluate(nano, utterances, base=base, keywords=["一", "二", "没人说"])
    metrics = scores.metrics("valid")
    counts = {"substitutions", "deletions", "insertions"}
    keywords = {"kwer", "keyword_misses", "keyword_false_alarms"}
    assert set(metrics) == {f"valid/{name}" for name in {*RATES, *counts, *keywords, "changed"}}
    assert metrics["valid/changed"] == pytest.approx(1 / 12)
    assert metrics["valid/mer"] == metrics["valid/cer"]  # Chinese without punctuation
    assert set(scores.metrics("wideband")) == {"wideband/cer", "wideband/cer_ctc"}
    assert scores.spotted["没人说"] == Spotted()
    said = sum(u.target.count("一") + u.target.count("二") for u in utterances)
    assert sum(counts.reference_count for counts in scores.spotted.values()) == said
    with pytest.raises(DataError, match=r"valid-12.jsonl:2: got no text of the base.*1 of 12"):
        _evaluate(nano, utterances, base={k: v for k, v in base.items() if k != utterances[1].key})


def test_lines_say_what_the_manifest_says_of_the_recording(
    nano: Nano, cut: Callable[..., Path]
) -> None:
    [plain] = read_data_list(cut("valid", 1))
    tags = {"duration_s": 1.25, "call_id": 7, "codec": "gsm", "snr_db": -3.5, "region": "north"}
    [said] = _evaluate(nano, [replace(plain, speaker="ann", tags=tags)]).utterances
    line = said.line()
    assert {name: line[name] for name in ("speaker", "call", "duration_s", "codec", "snr_db")} == {
        "speaker": "ann",
        "call": "7",
        "duration_s": 1.25,
        "codec": "gsm",
        "snr_db": -3.5,
    }
    assert "region" not in line
    [framed] = _evaluate(nano, [plain]).utterances
    assert framed.line()["duration_s"] == plain.tags["source_len"] / 100
    assert "call" not in framed.line()


def test_silence_is_scored_by_what_is_written_into_it(nano: Nano, corpus: Path) -> None:
    utterances = read_data_list(corpus / "silence.jsonl")
    scores = _evaluate(nano, utterances)
    minutes = sum(scored.duration_s or 0.0 for scored in scores.silent) / 60
    assert 12 / 60 <= minutes <= 48 / 60
    written = sum(len(scored.text) for scored in scores.utterances)
    assert scores.metrics("silence") == {
        "silence/insertions_per_minute": pytest.approx(written / minutes),
        "silence/inserted_share": sum(bool(s.text) for s in scores.utterances) / 12,
    }
    summary = scores.summary()
    assert (summary["cer"], summary["insertions"]) == (None, written)


def test_keywords_are_read_with_all_mistakes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "keywords.txt"
    path.write_text("OK\n...\n ok\n余额\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_keywords(path)
    assert [problem.split(": ", 1)[1] for problem in caught.value.problems] == [
        "got '...', expected letters or digits",
        "got 'ok' a second time ('OK')",
    ]
