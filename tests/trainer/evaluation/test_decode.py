"""Decoding in batches gives the text of one-by-one decoding: ours, HF's and stock FunASR's."""

import contextlib
import io
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from conf.load import Config, load_config
from tests.conftest import BASE
from trainer.data.batch import Example, collate, make_example
from trainer.data.manifest import Utterance, read_data_list
from trainer.evaluation.decode import Hypothesis, decode
from trainer.finetune.run import finetune
from trainer.finetune.stock_engine import training_module
from trainer.model import stages
from trainer.model.build import Nano, build, resolved_values
from trainer.model.checkpoint import load_state
from trainer.model.losses import embed, encode
from trainer.tracking.event_log import NullTracker

MAX_NEW_TOKENS = 512  # stock's own default
MIN_EQUAL_TO_STOCK = 0.99
END_OF_TURN, NEVER = 609, 608  # token ids of the tiny base; it never says the second


@pytest.fixture(scope="module")
def nano() -> Nano:
    return build(load_config(BASE / "config.yaml", model=BASE))


@pytest.fixture(scope="module")
def test_set(corpus: Path) -> Sequence[Utterance]:
    return read_data_list(corpus / "test.jsonl")


@pytest.fixture(scope="module")
def one_by_one(nano: Nano, test_set: Sequence[Utterance]) -> list[Hypothesis]:
    return [_alone(nano, example, MAX_NEW_TOKENS) for example in _examples(nano, test_set)]


def _examples(nano: Nano, utterances: Sequence[Utterance]) -> list[Example]:
    return [make_example(utterance, nano.extractor, nano.codec) for utterance in utterances]


def _alone(nano: Nano, example: Example, max_new_tokens: int) -> Hypothesis:
    [hypothesis] = decode(nano, [[example]], max_new_tokens, batch_size=1)
    return hypothesis


def _together(nano: Nano, examples: Sequence[Example], batch_size: int) -> dict[str, Hypothesis]:
    starts = range(0, len(examples), batch_size)
    batches = (examples[start : start + batch_size] for start in starts)
    found = list(decode(nano, batches, MAX_NEW_TOKENS, batch_size))
    assert len(found) == len(examples)
    return {hypothesis.key: hypothesis for hypothesis in found}


@pytest.mark.parametrize("batch_size", [1, 7, 32, 120])
def test_neighbours_change_no_text(
    nano: Nano,
    test_set: Sequence[Utterance],
    one_by_one: list[Hypothesis],
    batch_size: int,
) -> None:
    """Neither those beside a text nor those that had its row before."""
    examples = _examples(nano, test_set)
    assert len(examples) == 120
    random.Random(batch_size).shuffle(examples)  # long and short together: much padding
    found = _together(nano, examples, batch_size)
    assert found == {hypothesis.key: hypothesis for hypothesis in one_by_one}


def test_stock_generate_gives_the_same_texts(
    test_set: Sequence[Utterance], one_by_one: list[Hypothesis], nano: Nano
) -> None:
    training_module()  # the parts of FunASR that decoding needs, in a fraction of the time
    import funasr

    differences = []
    with _quiet():
        stock = funasr.AutoModel(model=str(BASE), device="cpu", disable_update=True, ncpu=1)
        assert stock.kwargs["frontend"].dither == 0.0
        for utterance, ours in zip(test_set, one_by_one, strict=True):
            [theirs] = stock.generate(input=str(utterance.source), disable_pbar=True)
            if (ours.text, ours.ctc_text) != (theirs["text"], theirs["ctc_text"]):
                differences.append(f"{ours.key}: {_explain(nano, utterance, ours, theirs)}")
    assert len(differences) <= (1 - MIN_EQUAL_TO_STOCK) * len(test_set), "\n".join(differences)


def test_after_a_fine_tune_the_texts_are_stocks_too(
    tiny_config: Callable[..., Config], test_set: Sequence[Utterance]
) -> None:
    config = tiny_config("s3", train=48, train_conf__max_epoch=1)
    result = finetune(config, NullTracker())
    tuned = build(config)
    weights = result.output_dir / "checkpoints" / f"{result.checkpoint}.safetensors"
    stages.load_trainable_state(tuned.model, load_state(weights))
    ours = _together(tuned, _examples(tuned, test_set), 32)
    kwargs = {**resolved_values(config), "device": "cpu", "max_length": MAX_NEW_TOKENS}
    for name in ("tokenizer", "frontend", "model_conf", "output_dir"):
        kwargs.pop(name, None)
    differences = []
    for utterance in test_set:
        hypothesis = ours[utterance.key]
        with torch.inference_mode(), _quiet():
            [stock], _ = tuned.model.inference(
                [str(utterance.source)],
                key=[utterance.key],
                tokenizer=tuned.codec.llm_tokenizer,
                frontend=tuned.extractor.frontend,
                **kwargs,
            )
        if (hypothesis.text, hypothesis.ctc_text) != (stock["text"], stock["ctc_text"]):
            differences.append(f"{utterance.key}: {_explain(tuned, utterance, hypothesis, stock)}")
    assert len(differences) <= (1 - MIN_EQUAL_TO_STOCK) * len(test_set), "\n".join(differences)


def test_generation_stops_at_the_cap(nano: Nano, test_set: Sequence[Utterance]) -> None:
    hypothesis = _alone(nano, _examples(nano, test_set[:1])[0], max_new_tokens=2)
    assert hypothesis.capped
    assert len(nano.codec.llm_tokenizer.encode(hypothesis.text)) == 2


def _ids(generator: torch.Generator, length: int) -> torch.Tensor:
    return torch.randint(100, 600, (length,), generator=generator)


def _explain(nano: Nano, utterance: Utterance, ours: Hypothesis, theirs: dict[str, Any]) -> str:
    """Both texts, and by how little the LLM preferred one token to the other where they part."""
    if ours.text == theirs["text"]:
        return f"CTC {ours.ctc_text!r}, stock {theirs['ctc_text']!r}"
    ids = [nano.codec.target_ids(text) for text in (ours.text, theirs["text"])]
    place = next(n for n, pair in enumerate(zip(*ids, strict=False)) if pair[0] != pair[1])
    batch = collate(_examples(nano, [utterance]), for_decoding=True)
    model = nano.model
    with torch.inference_mode():
        encoded_BTD, num_frames_B = encode(model, batch.features_BTF.clone(), batch.num_frames_B)
        said_BLD = model.llm.get_input_embeddings()(torch.tensor([ids[0][:place]]).long())
        embeddings_BLD = embed(model, batch, encoded_BTD, num_frames_B)
        logits_V = model.llm(inputs_embeds=torch.cat([embeddings_BLD, said_BLD], 1)).logits[0, -1]
    margin = (logits_V[ids[0][place]] - logits_V[ids[1][place]]).item()
    return (
        f"{ours.text!r}, stock {theirs['text']!r}: they part at token {place}, where the logits "
        f"of the two differ by {margin:.1e}, of about {logits_V.abs().max():.0f}"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """FunASR prints and warns."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
