"""The checks before training, on the tiny base: each broken thing fails exactly its check."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.checks import CHECKS, GREPS, SEVEN
from conf.errors import ConfigError, WorkError, run_command
from conf.load import STAGES, Config, load_config, stage_config_path
from conf.writing import format_value
from tests.conftest import BASE
from tests.trainer.checks.results import by_id, status
from trainer.__main__ import main
from trainer.checks.run_checks import (
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
    config = load_config(stage_config_path("8k"), overrides=["dataset_conf.retry=7"])
    result = by_id(run_checks(config, parts=["config"]))["effects"]
    assert result.status == "warning"
    assert result.found.startswith("dataset_conf.retry (read by stock training only); ")
    assert result.found.endswith("changed keys unproven")


@pytest.mark.quick
@pytest.mark.parametrize("name", FILES)
def test_no_key_that_we_ship_is_warned_of(name: str, tmp_path: Path) -> None:
    """Neither in our file, nor in a copy under another name, nor with all values written out."""
    path = ROOT / "conf" / f"{name}.yaml"
    config = load_config(path, model=BASE)
    texts = (path.read_text(encoding="utf-8"), config.to_yaml())
    copies = [tmp_path / f"{number}.yaml" for number in range(len(texts))]
    for copy, text in zip(copies, texts, strict=True):
        copy.write_text(text, encoding="utf-8")
    for same in (config, *(load_config(copy, model=BASE) for copy in copies)):
        assert by_id(run_checks(same, parts=["config"]))["effects"].status == "passed"
    changed = config.replace({"dataset_conf.retry": 7}, "test")
    result = by_id(run_checks(changed, parts=["config"]))["effects"]
    assert result.found == "dataset_conf.retry (read by stock training only)"


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
    said = capsys.readouterr()
    assert said.err.splitlines()[0] == f"loading {BASE / 'model.pt'}, 2.3 MB"
    results = json.loads(said.out)
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
