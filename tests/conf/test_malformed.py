"""Malformed configurations through the commands: one clear message each, exit 2, nothing run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from conf.errors import run_command

pytestmark = pytest.mark.quick

DEEP = "a: " + "[" * 3000
BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"

MALFORMED = {
    "type": ("optim_conf: {lr: high}", "my.yaml:1: optim_conf.lr: got high, expected a number > 0"),
    "quoted number": ("optim_conf: {lr: '5e-5'}", "my.yaml:1: optim_conf.lr: got '5e-5', expected"),
    "quoted boolean": (
        "audio_encoder_conf: {freeze: 'false'}",
        "my.yaml:1: audio_encoder_conf.freeze: got 'false', expected true or false",
    ),
    "boolean for a number": (
        "train_conf: {max_epoch: true}",
        "my.yaml:1: train_conf.max_epoch: got true, expected a whole number >= 1",
    ),
    "fraction": (
        "train_conf: {max_epoch: 1.5}",
        "my.yaml:1: train_conf.max_epoch: got 1.5, expected a whole number >= 1",
    ),
    "below range": (
        "optim_conf: {weight_decay: -1}",
        "my.yaml:1: optim_conf.weight_decay: got -1, expected a number >= 0",
    ),
    "above range": (
        "model_conf: {lsm_weight: 1.5}",
        "my.yaml:1: model_conf.lsm_weight: got 1.5, expected a number >= 0 and <= 1",
    ),
    "infinite": ("optim_conf: {lr: .inf}", "my.yaml:1: optim_conf.lr: got inf, expected a number"),
    "not a number": (
        "optim_conf: {lr: .nan}",
        "my.yaml:1: optim_conf.lr: got nan, expected a numb",
    ),
    "upside down": (
        "specaug_conf: {time_mask_width_range: [50, 0]}",
        "my.yaml:1: specaug_conf.time_mask_width_range: got [50, 0], expected [low, high] with 0",
    ),
    "too short": (
        "specaug_conf: {freq_mask_width_range: [5]}",
        "my.yaml:1: specaug_conf.freq_mask_width_range: got [5], expected a list of 2 whole",
    ),
    "choice": ("scheduler: cosine", "my.yaml:1: scheduler: got cosine, expected warmuplr"),
    "unknown key": (
        "optim_conf:\n  learning_rate: 1e-4",
        "my.yaml:2: optim_conf.learning_rate: got an unknown key, expected a known one",
    ),
    "misspelt key": (
        "audio_encoder_conf: {frezee: true}",
        "my.yaml:1: audio_encoder_conf.frezee: got an unknown key, expected a known one"
        " (nearest: audio_encoder_conf.freeze)",
    ),
    "circle": (
        "optim: ${scheduler}\nscheduler: ${optim}",
        "my.yaml:1: optim: got ${scheduler}, expected a reference that ends at a value, not in a",
    ),
    "circle of one": ("output_dir: ${output_dir}", "my.yaml:1: output_dir: got ${output_dir}, exp"),
    "reference to nothing": (
        "output_dir: ${nowhere}",
        "my.yaml:1: output_dir: got ${nowhere}, expected a reference to a key that is set",
    ),
    "duplicate key": (
        "optim_conf:\n  lr: 1e-4\n  lr: 2e-4",
        "my.yaml:3: optim_conf.lr: got the key a second time, expected it once (first in line 2)",
    ),
    "duplicate block": (
        "optim_conf: {lr: 1e-4}\noptim_conf: {weight_decay: 0.1}",
        "my.yaml:2: optim_conf: got the key a second time, expected it once (first in line 1)",
    ),
    "tab": ("optim_conf:\n\tlr: 1e-4", "my.yaml:2: got a tab, expected spaces"),
    "block for a value": (
        "optim_conf: {lr: {x: 1}}",
        "my.yaml:1: optim_conf.lr.x: got an unknown key",
    ),
    "value for a block": (
        "optim_conf: 3",
        "my.yaml:1: optim_conf: got 3, expected a block of keys",
    ),
    "list for a block": ("optim_conf: [lr]", "my.yaml:1: optim_conf: got [lr], expected a block"),
    "nested too deep": (
        "train_conf: {optim_conf: {lr: 1}}",
        "my.yaml:1: train_conf.optim_conf.lr: got an unknown key, expected a known one (nearest",
    ),
    "dotted name": (
        "optim_conf.lr: 1",
        "my.yaml:1: optim_conf.lr: got a dotted name, expected nest",
    ),
    "list at the top": ("- optim_conf", "my.yaml:1: got a list, expected `key: value` pairs"),
    "text at the top": ("hello", "my.yaml:1: got a text, expected `key: value` pairs"),
    "huge": ("# " + "x" * 1_000_000, "my.yaml: got 1,000,002 bytes, expected a YAML file below"),
    "deep": (DEEP, "my.yaml: nested too deeply to be a configuration"),
    "bomb": (BOMB, "my.yaml:2: got an alias (*), expected the value itself"),
    "two documents": ("a: 1\n---\nb: 2", "my.yaml:2: not YAML: "),
    "unbalanced": ("optim_conf: {lr: 1e-4", "my.yaml:1: not YAML: "),
    "control character": ("optim: ad\x00am", "my.yaml: not YAML: "),
    "object": (
        "a: !!python/object/apply:os.system ['touch {place}/ran']",
        "my.yaml:1: got the tag !!python/object/apply:os.system, expected a plain value",
    ),
    "module": ("a: !!python/module:antigravity {{}}", "my.yaml:1: got the tag !!python/module:ant"),
    "own tag": (
        "a: !include other.yaml",
        "my.yaml:1: got the tag !include, expected a plain value",
    ),
    "timestamp tag": ("a: !!timestamp 2025-01-05", "my.yaml:1: got the tag !!timestamp, expected"),
    "foreign code": (
        "trust_remote_code: true",
        "my.yaml:1: trust_remote_code: got true, expected no such key: no foreign code is run",
    ),
    "foreign code inside": (
        "llm_conf: {load_kwargs: {trust_remote_code: true}}",
        "my.yaml:1: llm_conf.load_kwargs.trust_remote_code: got true, expected no such key",
    ),
    "foreign file": (
        "remote_code: ./model.py",
        "my.yaml:1: remote_code: got ./model.py, expected no",
    ),
}


@pytest.mark.parametrize("command", ["check", "align"])
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(
    name: str,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first line says file, line, key, got and expected; nothing on stdout, no traceback."""
    text, message = MALFORMED[name]
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(text.replace("{place}", str(tmp_path)), encoding="utf-8")
    before = set(sys.modules)
    code, stderr = run(command, capsys)
    assert code == 2
    assert message in stderr.splitlines()[0]
    assert "Traceback" not in stderr
    assert {path.name for path in tmp_path.iterdir()} == {"my.yaml"}, "nothing is run or written"
    assert not {"torch", "funasr", "antigravity"} & (set(sys.modules) - before)


def run(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code and stderr of `python -m PACKAGE COMMAND --config my.yaml`."""
    if command == "align":
        from analysis.__main__ import main
    else:
        from trainer.__main__ import main
    code = run_command(main, [command, "--config", "my.yaml"])
    captured = capsys.readouterr()
    assert captured.out == ""
    return code, captured.err


def test_not_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes of another encoding, a directory, and no file at all."""
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_bytes("a: 电话".encode("gbk"))
    assert "got a byte that is not UTF-8" in run("align", capsys)[1]
    Path("my.yaml").unlink()
    assert "my.yaml: no such file, expected a YAML file" in run("align", capsys)[1]
    Path("my.yaml").mkdir()
    assert "expected a YAML file" in run("align", capsys)[1]


def test_all_mistakes_of_a_file_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line each."""
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text("optim_conf: {lr: high, wd: 1}\ntrain_conf: {max_epoch: 0}\n")
    code, stderr = run("check", capsys)
    assert code == 2
    assert len(stderr.splitlines()) == 3
