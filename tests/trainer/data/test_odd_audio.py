"""Recordings that are not as expected: each is used, or left out, or refused by name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import soundfile
import torch

from conf.errors import DataError
from conf.load import Config
from trainer.data.batch import BatchSampler
from trainer.data.features import FeatureExtractor
from trainer.data.loader import Loader
from trainer.data.manifest import Manifest, check_evaluable, read_data_list, read_headers
from trainer.evaluation.evaluate import evaluate
from trainer.model.build import Nano, build

pytestmark = pytest.mark.quick

MAX_S = 300.0
RATE_HZ = 8000


def _speech(corpus: Path) -> numpy.typing.NDArray[numpy.float32]:
    samples, rate_hz = soundfile.read(corpus / "wav/train/train-0000.wav", dtype="float32")
    assert rate_hz == RATE_HZ
    return numpy.asarray(samples)


def _upsampled(samples: numpy.typing.NDArray[numpy.float32], rate_hz: int) -> object:
    at = numpy.arange(len(samples) * rate_hz // RATE_HZ) * RATE_HZ / rate_hz
    return numpy.interp(at, numpy.arange(len(samples)), samples)


def _good(directory: Path, corpus: Path) -> list[Path]:
    """Recordings that are used."""
    samples = _speech(corpus)
    source = corpus / "wav/train/train-0000.wav"
    directory.mkdir()
    paths = {
        name: directory / f"{name}.wav"
        for name in ("one frame", "two samples", "stereo", "44100", "u8", "float", "flac", "mp3")
    }
    soundfile.write(paths["one frame"], samples[8000:8150], RATE_HZ)  # 18.75 ms
    soundfile.write(paths["two samples"], samples[8000:8002], RATE_HZ)
    soundfile.write(paths["stereo"], numpy.stack([samples, samples], axis=1), RATE_HZ)
    soundfile.write(paths["44100"], _upsampled(samples, 44100), 44100)
    soundfile.write(paths["u8"], samples, RATE_HZ, subtype="PCM_U8")
    soundfile.write(paths["float"], samples, RATE_HZ, subtype="FLOAT")
    # Their content tells what they are; the name is not asked.
    soundfile.write(paths["flac"], samples, RATE_HZ, format="FLAC")
    soundfile.write(paths["mp3"], samples, RATE_HZ, format="MP3")
    chinese = Path(shutil.copy(source, directory / "通话 №1.wav"))
    link = directory / "link.wav"
    link.symlink_to(os.path.relpath(source.resolve(), directory))
    return [*paths.values(), chinese, link]


def _bad(directory: Path, corpus: Path) -> dict[Path, str]:
    """Recordings that are refused by their headers, and why."""
    samples = _speech(corpus)
    directory.mkdir()

    def path(name: str) -> Path:
        return directory / name

    soundfile.write(path("empty.wav"), samples[:0], RATE_HZ)
    path("no bytes.wav").write_bytes(b"")
    whole = (corpus / "wav/train/train-0000.wav").read_bytes()
    path("cut off.wav").write_bytes(whole[: len(whole) // 2])
    path("cut header.wav").write_bytes(whole[:30])
    path("text.wav").write_text("你好，这不是录音")
    path("samples.raw").write_bytes(whole[44:])
    path("directory.wav").mkdir()
    os.mkfifo(path("pipe.wav"))
    path("gone.wav").symlink_to(path("nowhere.wav"))
    return {
        path("empty.wav"): "0 samples",
        path("no bytes.wav"): "",
        path("cut off.wav"): "cut off, ",
        path("cut header.wav"): "",
        path("text.wav"): "",
        path("samples.raw"): "samplerate",
        path("directory.wav"): "a directory",
        path("pipe.wav"): "no file",
        path("gone.wav"): "no such file",
        path("missing.wav"): "no such file",
    }


def _manifest(path: Path, sources: list[Path]) -> Manifest:
    with path.open("w", encoding="utf-8") as file:
        for source in sources:
            line = {"key": source.name, "source": str(source), "target": "你好"}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return read_data_list(path)


@pytest.fixture(scope="module")
def nano(corpus: Path) -> Nano:
    from conf.load import load_config, stage_config_path
    from tests.conftest import BASE

    return build(load_config(stage_config_path("8k"), init_param=BASE / "model.pt"))


@pytest.fixture
def extractor(nano: Nano) -> FeatureExtractor:
    return nano.extractor


def test_what_can_be_heard_is_scored_and_trained_on(
    nano: Nano, corpus: Path, tmp_path: Path
) -> None:
    utterances = _manifest(tmp_path / "good.jsonl", _good(tmp_path / "good", corpus))
    check_evaluable(utterances, read_headers(utterances), MAX_S)
    scores = evaluate(nano, utterances, max_new_tokens=8, batch_size=4)
    assert [scored.key for scored in scores.utterances] == [u.key for u in utterances]
    features = {utterance.source.stem: nano.extractor(utterance) for utterance in utterances}
    plain = features["通话 №1"]
    for name in ("stereo", "float", "flac", "link"):
        assert torch.equal(features[name], plain), name
    for name in ("44100", "u8", "mp3"):
        assert abs(len(features[name]) - len(plain)) <= 1, name
    assert {name: len(features[name]) for name in ("one frame", "two samples")} == {
        "one frame": 1,
        "two samples": 1,
    }


def test_a_header_that_shows_a_problem_refuses_an_evaluation(corpus: Path, tmp_path: Path) -> None:
    bad = _bad(tmp_path / "bad", corpus)
    utterances = _manifest(tmp_path / "bad.jsonl", list(bad))
    with pytest.raises(DataError) as caught:
        read_headers(utterances)
    assert len(caught.value.problems) == len(bad)
    for number, (problem, (path, reason)) in enumerate(
        zip(caught.value.problems, bad.items(), strict=True), start=1
    ):
        assert problem.startswith(f"{tmp_path}/bad.jsonl:{number}: source: got '{path}' (")
        assert reason in problem
        assert problem.endswith("), expected a recording")
        assert "\n" not in problem
        assert "()" not in problem


def test_a_header_that_shows_a_problem_is_left_out_of_training(
    tiny_config: Callable[..., Config], corpus: Path, tmp_path: Path
) -> None:
    bad = _bad(tmp_path / "bad", corpus)
    sources = [*bad, corpus / "wav/train/train-0000.wav"]
    utterances = _manifest(tmp_path / "bad.jsonl", sources)
    sampler = BatchSampler(
        utterances,
        read_headers(utterances, leave_out=True),
        [5] * len(utterances),
        tiny_config()["dataset_conf"],
        seed=1,
    )
    assert sampler.epoch(1) == [[len(bad)]]
    assert [left.utterance.source for left in sampler.left_out] == list(bad)
    for left, reason in zip(sampler.left_out, bad.values(), strict=True):
        assert left.reason.startswith("audio: ")
        assert reason in left.reason


@pytest.mark.parametrize(
    ("name", "seconds", "message"),
    [
        ("an hour", 3600.0, "of 3600.0 s, expected at most 300 s (finetune_conf.eval_max_s)"),
        ("one sample", 1 / RATE_HZ, "(1 sample), expected a recording"),
    ],
)
def test_what_is_too_long_or_too_short_for_evaluation(
    tiny_config: Callable[..., Config], tmp_path: Path, name: str, seconds: float, message: str
) -> None:
    samples = numpy.zeros(round(seconds * RATE_HZ), dtype=numpy.int16)
    soundfile.write(tmp_path / "x.wav", samples, RATE_HZ)
    utterances = _manifest(tmp_path / "m.jsonl", [tmp_path / "x.wav"])
    audios = read_headers(utterances)
    with pytest.raises(DataError) as caught:
        check_evaluable(utterances, audios, MAX_S)
    [problem] = caught.value.problems
    assert problem.startswith(f"{tmp_path}/m.jsonl:1: source: got ")
    assert message in problem
    sampler = BatchSampler(utterances, audios, [5], tiny_config()["dataset_conf"], seed=1)
    assert len(sampler) == 0
    assert sampler.left_out[0].reason.startswith("audio ")


def test_what_only_decoding_shows(
    extractor: FeatureExtractor, corpus: Path, tmp_path: Path
) -> None:
    """An evaluation fails on it by name; training leaves it out and goes on."""
    samples = _speech(corpus)
    paths = {name: tmp_path / f"{name}.wav" for name in ("nan", "cut", "odd rate", "good")}
    spoilt = samples.copy()
    spoilt[100] = numpy.nan
    soundfile.write(paths["nan"], spoilt, RATE_HZ, subtype="FLOAT")
    soundfile.write(paths["cut"], samples, RATE_HZ, format="FLAC")
    os.truncate(paths["cut"], paths["cut"].stat().st_size // 2)
    soundfile.write(paths["odd rate"], samples, 44101)
    soundfile.write(paths["good"], samples, RATE_HZ)
    utterances = _manifest(tmp_path / "m.jsonl", list(paths.values()))
    assert len(read_headers(utterances)) == 4
    for utterance, reason in zip(
        utterances,
        ("samples that are no numbers", "lost sync", "44101 Hz, no simple ratio"),
        strict=False,
    ):
        with pytest.raises(DataError, match=reason) as caught:
            extractor(utterance)
        [problem] = caught.value.problems
        assert problem.startswith(f"{utterance.place}: source: got '{utterance.source}'")
        assert "()" not in problem
    from trainer.data.batch import Example

    def load(utterance: object) -> Example:
        return Example("k", extractor(utterance), ([1], [2]), [3, 4], [5])  # type: ignore[arg-type]

    [loaded] = Loader(utterances, load, num_workers=0).batches([[0, 1, 2, 3]])
    assert loaded.batch is not None
    assert len(loaded.batch.keys) == 1
    assert [left.utterance.key for left in loaded.left_out] == [
        "nan.wav",
        "cut.wav",
        "odd rate.wav",
    ]


def test_a_recording_that_goes_away_meanwhile(
    extractor: FeatureExtractor, corpus: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copy(corpus / "wav/train/train-0000.wav", tmp_path / "a.wav"))
    utterances = _manifest(tmp_path / "m.jsonl", [path])
    read_headers(utterances)
    path.unlink()
    with pytest.raises(DataError, match=r"m.jsonl:1: source: got .*No such file"):
        extractor(utterances[0])
