"""The checks before training, on the tiny base: each broken thing fails exactly its check."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest
import soundfile

from conf.checks import CHECKS, GREPS, SEVEN
from conf.errors import ConfigError, WorkError, run_command
from conf.load import STAGES, Config, load_config, stage_config_path
from conf.writing import format_value
from tests.conftest import BASE, base_without_ctc
from trainer.__main__ import main
from trainer.checks.run_checks import (
    CheckResult,
    ChecksFailed,
    failed,
    one_line,
    raise_if_failed,
    run_checks,
    tags,
    to_json,
)

ROOT = Path(__file__).parents[3]
FILES = [*STAGES.values(), "config_8k_telephone_from_hub"]
KEYS = {
    "encoder-trains": ("audio_encoder_conf.freeze", "freeze: true"),
    "learning-rate": ("optim_conf.lr", "lr: 5e-6"),
    "deepspeed-off": ("train_conf.use_deepspeed", "use_deepspeed: true"),
    "weight-decay": ("optim_conf.weight_decay", "weight_decay: 0.0"),
    "specaug-on": ("specaug", "specaug: null"),
    "llm-frozen": ("llm_conf.freeze", "freeze: false"),
}
"""Of each check the key that it looks at, and a line that fails it."""


def status(results: list[CheckResult], wanted: str) -> set[str]:
    """The ids of the results of that status."""
    return {result.id for result in results if result.status == wanted}


def by_id(results: list[CheckResult]) -> dict[str, CheckResult]:
    """The results by id."""
    return {result.id: result for result in results}


def grep(id: str, path: Path) -> str:
    """What one of the source document's commands prints, a comment aside."""
    command = GREPS[id].format(file=path)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    return "\n".join(line.split("#")[0].strip() for line in done.stdout.splitlines())


@pytest.mark.quick
@pytest.mark.parametrize("name", FILES)
def test_seven_checks_agree_with_the_greps(name: str) -> None:
    """What a command prints is what its check finds; where it prints nothing, the value is
    inherited."""
    path = ROOT / "conf" / f"{name}.yaml"
    config = load_config(path, model=BASE)
    results = by_id(run_checks(config, parts=["config"]))
    assert list(results)[:7] == list(SEVEN)
    for id, (key, _) in KEYS.items():
        said = f"{key.rpartition('.')[2]}: {format_value(config.get(key))}"
        assert grep(id, path) == (said if key in config.in_file else "")
        assert results[id].found == format_value(config.get(key))
    assert not failed(list(results.values()))


@pytest.mark.quick
@pytest.mark.parametrize(("id", "broken"), [(id, broken) for id, (_, broken) in KEYS.items()])
def test_broken_copies_fail_exactly_their_check(id: str, broken: str, tmp_path: Path) -> None:
    """A copy with one line broken: the command prints another value, and one check fails."""
    source = stage_config_path("8k")
    text = source.read_text(encoding="utf-8")
    line = grep(id, source)
    block = {"encoder-trains": "audio_encoder_conf:\n  ", "llm-frozen": "llm_conf:\n  "}.get(id, "")
    assert text.count(f"{block}{line}") == 1
    path = tmp_path / source.name
    path.write_text(text.replace(f"{block}{line}", f"{block}{broken}"), encoding="utf-8")
    assert grep(id, path) == broken
    results = run_checks(load_config(path, model=BASE), parts=["config"])
    assert status(results, "failed") == {id}
    assert failed(results)[0].mend


@pytest.mark.quick
def test_step_seven_without_weights() -> None:
    """The echo of the source document, as a check."""
    results = run_checks(load_config(stage_config_path("8k")))
    assert status(results, "failed") == {"init-param"}
    assert by_id(results)["coverage"].found == "no weights given"
    assert by_id(results)["data-paths"].status == "not run"


@pytest.mark.quick
def test_every_check_has_its_result_and_words() -> None:
    """In the table's order; skipping is said."""
    results = run_checks(load_config(stage_config_path("8k")), skip=["init-param", "warmup"])
    assert [result.id for result in results] == list(CHECKS)
    assert status(results, "skipped") == {"init-param", "warmup"}
    assert all(result.why and result.mend for result in results)
    assert tags(results)["checks.skipped"] == "init-param, warmup"
    assert json.loads(to_json(results))[6]["status"] == "skipped"
    raise_if_failed(results)


@pytest.mark.quick
def test_a_failed_check_stops_a_run() -> None:
    """One line each, with the way out, and exit 1."""
    results = run_checks(load_config(stage_config_path("8k")), parts=["config"])
    with pytest.raises(ChecksFailed, match=r"^check init-param: init_param: got none, expected a"):
        raise_if_failed(results)
    assert issubclass(ChecksFailed, WorkError)
    assert one_line(failed(results)[0]).endswith("(or --skip-check init-param)")


@pytest.mark.quick
def test_unknown_id() -> None:
    """The nearest known one is named."""
    with pytest.raises(ConfigError, match=r"got 'learning-rat', .* \(nearest: learning-rate\)"):
        run_checks(load_config(stage_config_path("8k")), skip=["learning-rat"])


@pytest.mark.quick
def test_changed_keys_without_effect(replace_effects: Callable[[str], Path]) -> None:
    """A warning that names them; what is unproven is counted."""
    replace_effects(
        "keys:\n  dataset_conf.retry: {stages: {8k: stock}}\n"
        "  optim_conf.lr: {stages: {8k: both}}\n"
    )
    result = by_id(run_checks(load_config(stage_config_path("8k")), parts=["config"]))["effects"]
    assert result.status == "warning"
    assert result.found.startswith("dataset_conf.retry (read by stock training only); ")
    assert result.found.endswith("changed keys unproven")


@pytest.mark.quick
def test_unknown_keys_warn(tmp_path: Path) -> None:
    """Let through knowingly, and told every time."""
    path = tmp_path / "my.yaml"
    path.write_text("audio_encoder_conf: {frezee: true}\n")
    config = load_config(path, allow_unknown=True)
    result = by_id(run_checks(config, parts=["config"]))["unknown-keys"]
    assert result.status == "warning"
    assert result.found == "audio_encoder_conf.frezee (nearest: audio_encoder_conf.freeze)"


@pytest.mark.quick
def test_without_torch() -> None:
    """The configuration's part imports nothing heavy, so a driver can run it."""
    code = (
        "import sys; from conf.load import *; from trainer.checks.run_checks import run_checks; "
        "run_checks(load_config(stage_config_path('8k')), parts=['config']); "
        "print(sorted({'torch', 'numpy', 'funasr', 'mlflow', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


# With the data


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
    """Only that it is too little for the intervals."""
    results = look(wideband=[{"rate": 16000, "band": 7500}], test=[{}])
    assert {r.id for r in results.values() if r.status != "passed"} == {"warmup", "intervals"}
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


# With the model


@pytest.mark.parametrize("stage", STAGES)
def test_tiny_model(stage: str, tiny_config: Callable[..., Config]) -> None:
    """Counted in the built model; everything is forecast; nothing fails."""
    results = by_id(run_checks(tiny_config(stage)))
    assert status(list(results.values()), "failed") == set()
    trainable = results["trainable"]
    wanted = {
        "8k": "audio_encoder, ctc_decoder, ctc trains",
        "s1": "audio_encoder trains",
        "s2": "audio_adaptor, ctc_decoder, ctc trains",
        "s3": "llm trains",
    }
    assert trainable.expected == wanted[stage]
    assert re.search(r"SHA-256 [0-9a-f]{64}$", results["coverage"].found)
    assert "ms on cpu" in results["time"].found
    assert "GB needed" in results["disk"].found


def test_a_checkpoint_without_ctc(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    """As one hub's copy has it: the component is named; nothing else is forecast."""
    directory = base_without_ctc(tmp_path / "base")
    config = tiny_config()
    config = load_config(stage_config_path("8k"), model=directory, layers=[("test", config.flat())])
    config = config.replace({"init_param": str(directory / "model.pt")}, "test")
    results = by_id(run_checks(config, parts=["model"]))
    assert status(list(results.values()), "failed") == {"coverage"}
    assert "ctc_decoder: got 0 of" in results["coverage"].found
    assert results["memory"].status == "not run"


def test_no_room(tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    """Disk and memory are compared with what is there."""
    from trainer.checks import model_checks

    class Usage:
        free = 1000

    monkeypatch.setattr(model_checks.shutil, "disk_usage", lambda path: Usage)
    monkeypatch.setattr(model_checks, "_free_memory", lambda device: (1e6, "a small one"))
    results = run_checks(tiny_config(), parts=["model"])
    assert status(results, "failed") == {"disk", "memory"}


def test_command(
    tiny_config: Callable[..., Config],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A table for people, JSON for programs, exit 1 when one fails."""
    config = tiny_config()
    arguments = ["check", "--config", str(stage_config_path("8k")), "--model", str(BASE)]
    arguments += ["--train_data_set_list", config["train_data_set_list"]]
    arguments += ["--valid_data_set_list", config["valid_data_set_list"]]
    assert run_command(main, [*arguments, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [result["id"] for result in results] == list(CHECKS)
    broken = [*arguments, "--optim_conf.weight_decay", "0"]
    assert run_command(main, broken) == 1
    out = capsys.readouterr().out
    assert re.search(r"weight-decay +failed +above 0 +0\.0", out)
    assert "1 failed" in out
    assert run_command(main, [*broken, "--skip-check", "weight-decay"]) == 0
    assert re.search(r"weight-decay +skipped", capsys.readouterr().out)
    assert run_command(main, [*broken, "--skip-check", "weigth-decay"]) == 2
    assert "nearest: weight-decay" in capsys.readouterr().err
