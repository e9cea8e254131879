"""What the checks see of manifests and recordings: each bad list fails its check."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest
import soundfile

from conf.load import load_config, stage_config_path
from tests.conftest import BASE
from tests.trainer.checks.results import by_id
from trainer.checks.run_checks import CheckResult, run_checks


@pytest.fixture
def calls(tmp_path: Path) -> Callable[..., str]:
    """Makes a manifest of short noise: one dict per utterance, `rate`, `band`, `seconds` aside."""
    generator = numpy.random.default_rng(0)

    def make(name: str, lines: list[dict[str, Any]]) -> str:
        path = tmp_path / f"{name}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for number, line in enumerate(lines):
                rate, band = line.pop("rate", 8000), line.pop("band", 3400)
                seconds = line.pop("seconds", 1.0)
                wav = tmp_path / f"{name}-{number}.wav"
                line.setdefault("source", wav.name)
                spectrum = numpy.fft.rfft(generator.standard_normal(int(rate * seconds)))
                spectrum[int(band * seconds) :] = 0
                samples = numpy.fft.irfft(spectrum)
                soundfile.write(wav, 0.1 * samples / numpy.abs(samples).max(), rate, "PCM_16")
                file.write(json.dumps({"target": "你好", **line}, ensure_ascii=False) + "\n")
        return str(path)

    return make


@pytest.fixture
def look(calls: Callable[..., str]) -> Callable[..., dict[str, CheckResult]]:
    """Runs the data's checks over lists of utterances."""

    def run(
        stage: str = "8k",
        settings: Mapping[str, Any] | None = None,
        **lists: list[dict[str, Any]],
    ) -> dict[str, CheckResult]:
        keys = {
            "train": "train_data_set_list",
            "valid": "valid_data_set_list",
            "wideband": "finetune_conf.wideband_data_set_list",
            "test": "finetune_conf.test_data_set_list",
        }
        lists = {"train": [{}] * 4, "valid": [{}], **lists}
        values = {
            keys[name]: calls(name, [{"key": f"{name}-{i}", **line} for i, line in enumerate(each)])
            for name, each in lists.items()
        }
        values |= settings or {}
        config = load_config(stage_config_path(stage), model=BASE, layers=[("test", values)])
        return by_id(run_checks(config, parts=["data"]))

    return run


def test_good_data(look: Callable[..., dict[str, CheckResult]]) -> None:
    """Only that it is too little for the warm-up; nobody set the intervals."""
    results = look(wideband=[{"rate": 16000, "band": 7500}], test=[{}])
    assert {r.id for r in results.values() if r.status != "passed"} == {"warmup"}
    assert "8000 Hz, upsampled to 16000 Hz" in results["fs-data"].found
    assert re.search(r"peaks at \de-\d", results["warmup"].found)


BAD_DATA: list[tuple[dict[str, list[dict[str, Any]]], str, str, str]] = [
    ({"train": [{"source": "none.wav"}]}, "data-paths", "failed", "none.wav' (no such file)"),
    ({"train": [{"rate": 48000}] * 3}, "fs-data", "warning", "48000 Hz"),
    ({"train": [{"rate": 8000}, {"rate": 16000}]}, "fs-data", "warning", "8000 Hz, 16000 Hz"),
    (
        {"train": [{"rate": 16000, "band": 7500}] * 3},
        "bandwidth",
        "warning",
        "train: 3 of 3 with sound above 4000 Hz (16000 Hz)",
    ),
    ({"wideband": [{"rate": 16000}] * 2}, "bandwidth", "warning", "wideband: 0 of 2"),
    (
        {"train": [{"target": "你好<ANNOTATION_ERROR>"}, {}]},
        "texts",
        "failed",
        "with marks: 1 of 3: ",
    ),
    ({"train": [{"target": " "}, {}]}, "texts", "warning", "empty: 1 of 2: "),
    ({"train": [{"seconds": 0.05}, {}]}, "lengths", "warning", "1 left out: 1 audio shorter"),
    ({"train": [{"seconds": 0.05}]}, "lengths", "failed", "1 left out: 1 audio shorter"),
    (
        {"train": [{"call_id": 7}], "test": [{"call_id": 7}]},
        "splits",
        "failed",
        "1 calls in train and test (7)",
    ),
    (
        {"train": [{"speaker_id": "a"}], "valid": [{"speaker_id": "a"}]},
        "splits",
        "warning",
        "1 speakers in train and valid (a)",
    ),
    (
        {"train": [{}], "valid": [{"source": "train-0.wav"}]},
        "splits",
        "failed",
        "1 recordings in train and valid",
    ),
    (
        {"train": [{"seconds": 70.0}]},
        "lengths",
        "failed",
        "1 left out: 1 longer than dataset_conf.max_token_length 1024",
    ),
]
"""Lists of utterances, the check that is for them, and what it finds."""


@pytest.mark.parametrize(("lists", "id", "expected", "found"), BAD_DATA)
def test_bad_data(
    lists: dict[str, list[dict[str, Any]]],
    id: str,
    expected: str,
    found: str,
    look: Callable[..., dict[str, CheckResult]],
) -> None:
    """Each is told by the check that is for it."""
    result = look(**lists)[id]
    assert result.status == expected, result
    assert found in result.found


def test_an_utterance_longer_than_a_batch(look: Callable[..., dict[str, CheckResult]]) -> None:
    results = look(settings={"dataset_conf.max_token_length": 8000}, train=[{"seconds": 70.0}])
    assert results["batch-longest"].status == "warning"
    assert "batch_size 6,000" in results["batch-longest"].found


def test_the_same_recording_under_another_name(
    look: Callable[..., dict[str, CheckResult]], calls: Callable[..., str], tmp_path: Path
) -> None:
    """By its content."""
    calls("other", [{}])
    copy = tmp_path / "copy.wav"
    copy.write_bytes((tmp_path / "other-0.wav").read_bytes())
    results = look(train=[{"source": "other-0.wav"}], valid=[{"source": "copy.wav"}])
    assert "1 recordings in train and valid" in results["splits"].found


def test_characters_beyond_the_vocabulary(calls: Callable[..., str]) -> None:
    """Ids that the CTC layer has no output for: the character can never be written."""
    lists = {"train_data_set_list": calls("a", [{}]), "valid_data_set_list": calls("b", [{}])}
    layer = ("test", {**lists, "ctc_vocab_size": 257})
    config = load_config(stage_config_path("8k"), model=BASE, layers=[layer])
    result = by_id(run_checks(config, parts=["data"]))["spelling"]
    assert result.status == "warning"
    assert result.found == "CTC: 2 characters, 4 times: 你 好"


def test_recordings_that_are_silent_or_torn(
    look: Callable[..., dict[str, CheckResult]], tmp_path: Path
) -> None:
    """A header alone does not show it."""
    soundfile.write(tmp_path / "silence.wav", numpy.zeros(8000), 8000, "PCM_16")
    result = look(train=[{"source": "silence.wav"}, {}])["decoding"]
    assert result.status == "failed"
    assert "no sound at all" in result.found


def test_only_a_training_list(calls: Callable[..., str]) -> None:
    """The validation list is missing, and said so."""
    values = {"train_data_set_list": calls("train", [{"key": "a"}])}
    config = load_config(stage_config_path("8k"), layers=[("test", values)])
    result = by_id(run_checks(config, parts=["data"]))["data-paths"]
    assert (result.status, result.found) == ("failed", "no valid_data_set_list")
