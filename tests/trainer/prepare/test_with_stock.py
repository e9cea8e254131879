"""What `trainer prepare` writes for stock FunASR: its own dataset reads it, and as we read ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from conf.load import Config
from tests.conftest import BASE
from tests.trainer.prepare.given import corpus, write_lines, write_wav
from tests.trainer.prepare.prepared import run
from trainer.data.batch import collate, make_example
from trainer.data.manifest import read_data_list
from trainer.funasr_parts import load, registered
from trainer.model.build import build


def test_stocks_dataset_gives_the_ids_and_features_that_ours_gives(
    tmp_path: Path, tiny_config: Callable[..., Config]
) -> None:
    made = corpus(tmp_path, 3)
    made[2]["source"] = str(write_wav(tmp_path / "wide.wav", 2.5, rate_hz=16000, seed=8))
    call = str(write_wav(tmp_path / "call.wav", 9.0, channels=2, seed=9))
    part = {"key": "部分/1", "source": call, "target": "一二三四 a", "side": "B"}
    given = write_lines(tmp_path / "m.jsonl", *made, {**part, "start_s": 2, "end_s": 4.2})
    run(tmp_path / "out", given, valid_share=0.0, model=BASE)

    config = tiny_config("8k")
    nano = build(config)
    load("funasr.datasets.fun_asr_datasets.datasets")
    stocks = registered("dataset_classes", "FunASR")(
        str(tmp_path / "out/chat/train.jsonl"),
        frontend=nano.extractor.frontend,
        tokenizer=nano.codec.llm_tokenizer,
        **{**config["dataset_conf"], "index_ds": "FunASR", "prompt_classes": None},
    )
    ours = read_data_list(tmp_path / "out/train.jsonl")
    assert len(stocks) == len(ours) == 4
    for index, utterance in enumerate(ours):
        theirs = stocks[index]
        batch = collate([make_example(utterance, nano.extractor, nano.codec)])
        assert theirs["input_ids"].tolist() == batch.input_ids_BL[0].tolist()
        assert theirs["labels_ids"].tolist() == batch.labels_BL[0].tolist()
        [features] = theirs["speech"]
        assert torch.equal(features, batch.features_BTF[0])
        # What stock sorts and cuts batches by.
        frames, tokens = utterance.tags["source_len"], utterance.tags["target_len"]
        assert stocks.get_source_len(index) == frames + tokens
        assert tokens == len(nano.codec.target_ids(utterance.target)) - 1
