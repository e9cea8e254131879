"""Loading batches: the same with and without workers, and what happens when one breaks."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conf.errors import DataError, WorkError
from conf.load import Config
from tests.conftest import HANG_S
from trainer.data.array_store import ArrayStore
from trainer.data.batch import BatchSampler, Example, make_example
from trainer.data.features import FeatureExtractor
from trainer.data.loader import Loader
from trainer.data.manifest import Utterance, read_data_list, read_headers
from trainer.data.text import TextCodec
from trainer.model.build import resolved_values

pytestmark = pytest.mark.quick

UTTERANCES = [Utterance(str(i), Path(f"{i}.wav"), "好", Path("m.jsonl"), i + 1) for i in range(12)]
PLAN = [[3, 1], [0, 2, 4], [5], [11, 7, 9], [6, 8], [10]]


def _load(utterance: Utterance) -> Example:
    number = int(utterance.key)
    features = torch.full((number + 1, 4), float(number))
    return Example(utterance.key, features, ([7], [9]), [number, 2], [1])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_cannot_be_read_is_left_out_and_the_rest_goes_on(num_workers: int) -> None:
    def load(utterance: Utterance) -> Example:
        if utterance.key in ("2", "5"):
            raise DataError(f"{utterance.place}: source: got nothing")
        return _load(utterance)

    loaded = list(Loader(UTTERANCES, load, num_workers).batches(PLAN))
    keys = [None if one.batch is None else one.batch.keys for one in loaded]
    assert keys == [("3", "1"), ("0", "4"), None, ("11", "7", "9"), ("6", "8"), ("10",)]
    left_out = [(left.utterance.key, left.reason) for one in loaded for left in one.left_out]
    assert left_out == [("2", "source: got nothing"), ("5", "source: got nothing")]


@pytest.fixture
def parts(tiny_config: Callable[..., Config], tmp_path: Path) -> Callable[..., Loader]:
    """Loaders of real utterances with a store of their own."""
    config = tiny_config("8k", train=40)
    values = resolved_values(config)
    dataset_conf = values["dataset_conf"]
    codec = TextCodec(
        values["tokenizer"],
        values["tokenizer_conf"],
        dataset_conf["ctc_tokenizer"],
        dataset_conf["ctc_tokenizer_conf"],
    )
    utterances = read_data_list(config["train_data_set_list"])

    def make(num_workers: int, store: str) -> Loader:
        extractor = FeatureExtractor(
            values["frontend"], values["frontend_conf"], ArrayStore(tmp_path / store, 2**26)
        )
        return Loader(utterances, lambda u: make_example(u, extractor, codec), num_workers)

    return make


def test_workers_load_the_same_batches_and_draw_nothing(
    parts: Callable[..., Loader], tiny_config: Callable[..., Config]
) -> None:
    config = tiny_config("8k", train=40)
    utterances = read_data_list(config["train_data_set_list"])
    lengths = [len(utterance.target) for utterance in utterances]
    sampler = BatchSampler(
        utterances, read_headers(utterances), lengths, config["dataset_conf"], seed=1
    )
    state = torch.get_rng_state()
    runs = []
    for num_workers, store in ((0, "a"), (2, "b"), (2, "b"), (8, "a")):
        loader = parts(num_workers, store)
        runs.append([list(loader.batches(sampler.epoch(epoch))) for epoch in (1, 2)])
    assert torch.equal(state, torch.get_rng_state())
    for run in runs[1:]:
        for epoch, expected in zip(run, runs[0], strict=True):
            for one, other in zip(epoch, expected, strict=True):
                assert one.batch is not None
                assert other.batch is not None
                for name, value in vars(one.batch).items():
                    if torch.is_tensor(value):
                        assert torch.equal(value, getattr(other.batch, name)), name
                    else:
                        assert value == getattr(other.batch, name)


def test_an_epoch_that_is_given_up_leaves_no_process(parts: Callable[..., Loader]) -> None:
    batches = parts(2, "a").batches([[i] for i in range(20)])
    before = _children()
    next(batches)
    workers = _children() - before
    assert workers
    batches.close()  # type: ignore[attr-defined]
    assert not workers & _children()


@pytest.mark.parametrize("how", ["killed", "exits", "raises"])
def test_a_broken_worker_is_an_error_before_it_counts_as_stuck(how: str) -> None:
    def load(utterance: Utterance) -> Example:
        if utterance.key == "9":
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "exits":
                os._exit(0)
            raise ValueError("a mistake of ours")
        return _load(utterance)

    with pytest.raises(WorkError, match="loading data: a worker failed") as caught:
        list(Loader(UTTERANCES, load, 2).batches(PLAN))
    assert "\n" not in str(caught.value)
    expected = {"killed": "by SIGKILL", "exits": "ended with 0", "raises": "a mistake of ours"}
    assert expected[how] in str(caught.value)


def test_a_stuck_worker_is_an_error(parts: Callable[..., Loader]) -> None:
    def load(utterance: Utterance) -> Example:
        if utterance.key == "9":
            time.sleep(HANG_S)
        return _load(utterance)

    with pytest.raises(WorkError, match="no worker gave a batch within 0.5 s"):
        list(Loader(UTTERANCES, load, 2, stuck_s=0.5).batches(PLAN))


def _children() -> set[str]:
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())
