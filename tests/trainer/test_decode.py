"""Decoding in batches gives the text of stock FunASR's one-by-one decoding."""

from collections.abc import Callable

import torch

from conf.load import Config
from trainer.batch import make_example
from trainer.decode import decode
from trainer.manifest import read_data_list
from trainer.model import build, resolved_values


def test_batches_decode_as_stock_does_one_by_one(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config("8k", valid=30)
    nano = build(config)
    utterances = read_data_list(config["valid_data_set_list"])
    examples = [make_example(u, nano.extractor, nano.codec) for u in utterances]
    ours = decode(nano, examples, max_new_tokens=32)
    kwargs = {**resolved_values(config), "device": "cpu", "max_length": 32}
    for name in ("tokenizer", "frontend", "model_conf", "output_dir"):
        kwargs.pop(name, None)
    for utterance, hypothesis in zip(utterances, ours, strict=True):
        with torch.inference_mode():
            [stock], _ = nano.model.inference(
                [str(utterance.source)],
                key=[utterance.key],
                tokenizer=nano.codec.llm_tokenizer,
                frontend=nano.extractor.frontend,
                **kwargs,
            )
        assert hypothesis.key == utterance.key
        assert hypothesis.text == stock["text"]
        assert hypothesis.ctc_text == stock["ctc_text"]


def test_generation_stops_at_the_cap(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config("8k")
    nano = build(config)
    [utterance, *_] = read_data_list(config["valid_data_set_list"])
    examples = [make_example(utterance, nano.extractor, nano.codec)]
    [hypothesis] = decode(nano, examples, max_new_tokens=2)
    assert len(nano.codec.llm_tokenizer.encode(hypothesis.text)) <= 2
