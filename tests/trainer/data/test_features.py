"""Features: those of the store are those computed anew, bit for bit, and shared by content."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conf.load import Config
from trainer.data.array_store import ArrayStore
from trainer.data.features import FeatureExtractor
from trainer.data.manifest import Manifest, read_data_list

pytestmark = pytest.mark.quick

CONF: Mapping[str, Any] = {
    "fs": 16000,
    "window": "hamming",
    "n_mels": 80,
    "frame_length": 25,
    "frame_shift": 10,
    "lfr_m": 7,
    "lfr_n": 6,
    "dither": 0.0,
}


@pytest.fixture
def utterances(cut: Callable[..., Path]) -> Manifest:
    return read_data_list(cut("train", 6))


@pytest.fixture
def store(tmp_path: Path) -> ArrayStore:
    return ArrayStore(tmp_path / "store", 2**26)


def _extractor(store: ArrayStore | None, **conf: Any) -> FeatureExtractor:
    return FeatureExtractor("WavFrontend", {**CONF, **conf}, store)


def test_kept_features_are_those_computed_anew(utterances: Manifest, store: ArrayStore) -> None:
    plain, kept = _extractor(None), _extractor(store)
    for _ in ("computed", "found before the commit", "found after it"):
        for utterance in utterances:
            features = kept(utterance)
            assert torch.equal(features, plain(utterance))
            features.zero_()  # the caller's own
        store.flush()


def test_features_do_not_depend_on_the_number_of_threads(utterances: Manifest) -> None:
    """Or those that a run with more of them keeps would not be those of another.

    FunASR's frontend and the resampling do, in the last bits.
    """
    extractor, threads = _extractor(None), torch.get_num_threads()
    try:
        found = []
        for number in (1, 2, 4):
            torch.set_num_threads(number)
            found.append([extractor(utterance) for utterance in utterances])
    finally:
        torch.set_num_threads(threads)
    for features in found[1:]:
        assert all(map(torch.equal, features, found[0]))


def test_the_second_process_computes_nothing(
    utterances: Manifest, store: ArrayStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _extractor(store)
    expected = [first(utterance) for utterance in utterances]
    store.flush()
    second = _extractor(ArrayStore(store.directory, store.max_bytes))
    monkeypatch.setattr(second.frontend, "forward", None)
    assert all(map(torch.equal, map(second, utterances), expected))


def test_the_content_decides_not_the_path(
    utterances: Manifest, store: ArrayStore, tmp_path: Path
) -> None:
    extractor, utterance = _extractor(store), utterances[0]
    copy = replace(utterance, source=Path(shutil.copy(utterance.source, tmp_path / "copy.wav")))
    assert extractor.cache_key(copy) == extractor.cache_key(utterance)
    shutil.copy(utterances[1].source, copy.source)
    assert extractor.cache_key(copy) == extractor.cache_key(utterances[1])
    assert torch.equal(extractor(copy), _extractor(None)(utterances[1]))


def test_all_that_decides_features_is_in_the_key(
    utterances: Manifest, store: ArrayStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(**conf: Any) -> bytes | None:
        return _extractor(store, **conf).cache_key(utterances[0])

    def cmvn(name: str, shift: float) -> str:
        path = tmp_path / name
        path.write_text(
            f"<AddShift> 560 560\n<LearnRateCoef> 0 [ {' '.join([str(shift)] * 560)} ]\n"
            f"<Rescale> 560 560\n<LearnRateCoef> 0 [ {' '.join(['1.0'] * 560)} ]\n"
        )
        return str(path)

    keys = {
        key(),
        key(fs=8000),
        key(window="povey"),
        key(lfr_n=3),
        key(cmvn_file=cmvn("a", 1.0)),
        key(cmvn_file=cmvn("b", 2.0)),
    }
    assert len(keys) == 6
    assert key(cmvn_file=cmvn("c", 2.0)) in keys
    monkeypatch.setattr("trainer.funasr_parts.version", lambda: "0")
    assert key() not in keys


def test_what_is_drawn_anew_is_not_kept(
    utterances: Manifest, store: ArrayStore, tmp_path: Path
) -> None:
    extractor = _extractor(store, dither=1.0)
    assert extractor.cache_key(utterances[0]) is None
    assert not torch.equal(extractor(utterances[0]), extractor(utterances[0]))
    assert not (tmp_path / "store").exists()


def test_a_build_keeps_features_where_the_configuration_says(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    from trainer.model.build import build

    config = tiny_config(finetune_conf__feature_cache_dir=str(tmp_path / "here"))
    nano = build(config)
    assert nano.extractor.store is not None
    nano.extractor(read_data_list(config["train_data_set_list"])[0])
    nano.extractor.store.flush()
    assert list((tmp_path / "here").rglob("data.mdb"))
    assert build(tiny_config(finetune_conf__feature_cache_mb=0)).extractor.store is None
