"""Mistakes of a user: one line with file, line and key, exit 2, before any training."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import write_cut
from tests.end_to_end.conftest import Workspace
from tests.trainer.model.test_build import BAD_DIRECTORIES

SWEEP = """\
name: bad
base: trainer/demo/base
data:
  train: cut/train.jsonl
  valid: cut/valid.jsonl
stages: [8k]
space:
  optim_conf.lr: {low: 1e-4, high: 1e-2, log: true}
trials: 2
concurrency: 1
"""


def _replaced(old: str, new: str) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        path = directory / "bad.yaml"
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")

    return edit


def _not_json(directory: Path) -> None:
    path = directory / "cut" / "train.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:2], "{broken", *lines[2:]]), encoding="utf-8")


def _unreadable_wav(directory: Path) -> None:
    (directory / "cut" / "noise.wav").write_bytes(b"not a wav file")
    path = directory / "cut" / "valid.jsonl"
    line = json.dumps({"key": "noise", "source": "noise.wav", "target": "噪声"}, ensure_ascii=False)
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")


def _without_weights(directory: Path) -> None:
    base = directory / "weightless"
    ignored = shutil.ignore_patterns("model.pt")
    shutil.copytree(directory / "trainer/demo/base", base, ignore=ignored)
    _replaced("base: trainer/demo/base", "base: weightless")(directory)


def _precision_of_base(directory: Path) -> None:
    base = directory / "int8"
    shutil.copytree(directory / "trainer/demo/base", base)
    config = base / "config.yaml"
    text = config.read_text(encoding="utf-8").replace("llm_dtype: fp32", "llm_dtype: int8")
    config.write_text(text, encoding="utf-8")
    _replaced("base: trainer/demo/base", "base: int8")(directory)


def _set(key: str, value: str) -> Callable[[Path], None]:
    return _replaced("space:", f"set: {{{key}: {value}}}\nspace:")


CASES = {
    "bad.yaml:10 concurency concurrency": _replaced("concurrency: 1", "concurency: 1"),
    "bad.yaml:8 optm_conf.lr optim_conf.lr": _replaced("optim_conf.lr:", "optm_conf.lr:"),
    "bad.yaml:8 optim_conf.lr low": _replaced("low: 1e-4, high: 1e-2", "low: 1e-2, high: 1e-4"),
    "bad.yaml:5 data.valid nowhere.jsonl": _replaced("cut/valid.jsonl", "cut/nowhere.jsonl"),
    "cut/train.jsonl:3 JSON": _not_json,
    "cut/valid.jsonl:5 noise.wav": _unreadable_wav,
    "bad.yaml:2 base model.pt": _without_weights,
    "int8/config.yaml:29 llm_conf.llm_dtype got int8 expected fp32": _precision_of_base,
    "bad.yaml:7 finetune_conf.lora_dtype got bf61 expected fp32 llm": _set(
        "finetune_conf.lora_dtype", "bf61"
    ),
    "bad.yaml:7 set.llm_conf.llm_dtype belongs to the weights": _set("llm_conf.llm_dtype", "int4"),
}
"""Mistakes by the words of the line that tells them."""


@pytest.fixture
def bad(tmp_path: Path, corpus: Path) -> Workspace:
    workspace = Workspace(tmp_path)
    (tmp_path / "cut").mkdir()
    for split in ("train", "valid"):
        write_cut(corpus, split, 4, tmp_path / "cut" / f"{split}.jsonl")
    (tmp_path / "bad.yaml").write_text(SWEEP, encoding="utf-8")
    return workspace


@pytest.mark.parametrize("said", CASES)
def test_a_mistake_is_one_line_and_leaves_nothing(bad: Workspace, said: str) -> None:
    CASES[said](bad.directory)
    line = _refused(bad)
    for word in said.split():
        assert word in line


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("cut off", ()),
        ("other width", ()),
        ("quantised", ("--dry-run",)),
        ("odd heads", ("--dry-run",)),
    ],
)
def test_weights_that_every_trial_would_refuse_are_refused_first(
    bad: Workspace, case: str, options: tuple[str, ...]
) -> None:
    edit, said = BAD_DIRECTORIES[case]
    base = bad.directory / "base"
    shutil.copytree(bad.directory / "trainer/demo/base", base)
    edit(base)
    _replaced("base: trainer/demo/base", "base: base")(bad.directory)
    assert re.search(said, _refused(bad, *options))


def _refused(bad: Workspace, *options: str) -> str:
    """The one line of a sweep that is not started; what comes before it says what is looked at."""
    before = sorted(bad.directory.rglob("*"))
    finished = bad.run("python", "-m", "sweeps", "run", "bad.yaml", *options)
    assert finished.returncode == 2, finished.stderr
    told = finished.stderr.strip().splitlines()
    [line] = [line for line in told if line.startswith("sweeps: ")]
    assert line == told[-1]
    assert "Traceback" not in finished.stderr
    left = {path for path in bad.directory.rglob("*") if "__pycache__" not in path.parts}
    assert left <= set(before)
    return line


def test_under_mlflow_run_no_run_stays_running(bad: Workspace) -> None:
    from mlflow import MlflowClient

    _replaced("concurrency: 1", "concurency: 1")(bad.directory)
    finished = bad.run(
        *("python", "-m", "mlflow", "run", ".", "-e", "sweep", "--env-manager", "local"),
        *("-P", "sweep=bad.yaml", "-P", "name=bad"),
    )
    assert finished.returncode != 0
    assert "bad.yaml:10" in finished.stderr
    client = MlflowClient(f"sqlite:///{bad.directory / 'mlflow.db'}")
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    assert [run.info.status for run in client.search_runs(ids)] == ["FAILED"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--optm_conf.lr", "1e-4"), ("optm_conf.lr", "optim_conf.lr")),
        (("--optim_conf.lr", "fast"), ("optim_conf.lr", "got fast")),
        (("--init_param", "nowhere/model.pt"), ("nowhere/model.pt",)),
        (("--valid_data_set_list", "nowhere.txt"), ("nowhere.txt",)),
    ],
    ids=["unknown key", "wrong type", "missing weights", "missing list"],
)
def test_train_names_a_mistake(
    bad: Workspace, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    flags = {
        "--config": "conf/config_8k_telephone.yaml",
        "--init_param": "trainer/demo/base/model.pt",
        "--train_data_set_list": "cut/train.jsonl",
        "--valid_data_set_list": "cut/valid.jsonl",
        "--output_dir": "outputs/x",
    }
    flags |= dict([arguments])
    finished = bad.run("python", "-m", "trainer", "train", *(w for f in flags.items() for w in f))
    assert finished.returncode == 2, finished.stderr
    [line] = finished.stderr.strip().splitlines()
    for word in words:
        assert word in line
    assert not (bad.directory / "outputs").exists()
