"""What is wrong is said before a sweep starts: one line for each mistake, and nothing is made."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

from conf.errors import WorkError
from sweeps.preflight import (
    card_bytes,
    card_problem,
    check_weights,
    effective_concurrency,
    num_gpus,
)
from sweeps.spec.sweep_file import load_sweep
from tests.sweeps.conftest import SWEEP
from tests.sweeps.driving import ENVIRONMENT, run_command
from trainer.checks.model_checks import Need

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        ("sweep.yaml: trials: 8 -> trails: 8", "sweep.yaml:11: trails: got an unknown key"),
        ("sweep.yaml: low: 1e-5 -> low: 1", "sweep.yaml:9: space.optim_conf.lr: got low=1"),
        (
            "sweep.yaml: valid: data/ -> valid: no/",
            "sweep.yaml:3: data.valid: got 'no/valid.jsonl'",
        ),
        ("sweep.yaml: cpu -> cpu", ""),
        ("data/train.jsonl: { -> {{", "data/train.jsonl:1: got no JSON"),
        ("data/a.wav: RIFF -> nope", "data/train.jsonl:1: source: got 'data/a.wav'"),
        ("model/model.pt: gone", "sweep.yaml:2: base: got 'model' (no model.pt)"),
        ("sweep.yaml: gone", "sweep.yaml: no such file"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(place: Path, spoil: str, expected: str) -> None:
    name, _, change = spoil.partition(": ")
    file = place / name
    if change == "gone":
        file.unlink()
    elif expected:
        old, _, new = change.partition(" -> ")
        file.write_bytes(file.read_bytes().replace(old.encode(), new.encode(), 1))
    else:
        file.write_text(SWEEP + "resources: {cpu: 4096}\n")
        expected = "sweep.yaml:14: resources.cpu: got 4096, expected at most"
    result = run_command()
    assert result.returncode == 2
    assert expected in result.stderr
    assert result.stderr.startswith("sweeps: ")
    assert "Traceback" not in result.stderr
    assert not (place / "outputs").exists()
    assert not (place / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--name", "a/b"], "name: got 'a/b', expected letters"),
        (["resources.gpu=64"], "resources.gpu: got 64, expected at most"),
        (["data.valid=none.jsonl"], "data.valid: got 'none.jsonl' (no such file)"),
        (["stages=[s9]"], "stages"),
    ],
)
def test_a_bad_command_line_is_one_line_and_leaves_nothing(
    place: Path, arguments: list[str], expected: str
) -> None:
    _refused(place, expected, *arguments)


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        ("deleted", "MLflow experiment fun-asr-nano-8k-telephone: got a deleted one"),
        ("sqlite:///nowhere/mlflow.db", "MLflow store sqlite:///nowhere/mlflow.db: got 'nowhere'"),
        ("http://127.0.0.1:9", "MLflow store http://127.0.0.1:9: got no answer (Connection refu"),
        ("foo://bar", "MLflow store foo://bar: got foo, expected sqlite:///FILE"),
        ("no experiment", "MLFLOW_EXPERIMENT_ID: got 77, expected an experiment of sqlite:///"),
        ("a file", "got a place that cannot be written"),
        ("no database", "expected a database"),
    ],
)
def test_a_store_that_is_of_no_use_is_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, store: str, expected: str
) -> None:
    if store == "a file":
        (place / "outputs").write_text("")
    elif store == "no database":
        (place / "mlflow.db").write_text("nothing of the kind" * 100)
    elif store in ("deleted", "no experiment"):
        with contextlib.closing(sqlite3.connect(place / "mlflow.db")) as database, database:
            columns = "experiment_id INTEGER, name TEXT, lifecycle_stage TEXT"
            database.execute(f"CREATE TABLE experiments ({columns})")
            database.execute(
                "INSERT INTO experiments VALUES (1, 'fun-asr-nano-8k-telephone', 'deleted')"
            )
        if store == "no experiment":
            monkeypatch.setitem(ENVIRONMENT, "MLFLOW_EXPERIMENT_ID", "77")
    else:
        monkeypatch.setitem(ENVIRONMENT, "MLFLOW_TRACKING_URI", store)
    _refused(place, expected)


def _refused(place: Path, expected: str, *arguments: str) -> None:
    before = sorted(place.rglob("*"))
    result = run_command(*arguments)
    assert result.returncode == 2, result.stderr
    [line] = result.stderr.splitlines()
    assert line.startswith("sweeps: ")
    assert expected in line
    assert sorted(place.rglob("*")) == before


def test_weights_that_could_not_be_looked_at_are_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(WorkError, match=r"^checking the weights of model: exit status 1$"):
        check_weights(load_sweep(Path("sweep.yaml"))[0])


@pytest.mark.parametrize(
    ("visible", "there"), [("", 0), ("-1", 0), ("0", 1), ("1, 3", 2), ("GPU-5ebe9f43", 1)]
)
def test_the_gpus_are_those_that_the_environment_shows(
    monkeypatch: pytest.MonkeyPatch, visible: str, there: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert num_gpus() == there


@pytest.mark.parametrize(
    ("gpu", "at_once"),
    [("0", 8), ("0.25", 8), ("0.4", 4), ("0.5", 4), ("0.7", 2), ("1", 2), ("2", 1), ("4", 1)],
)
def test_as_many_trials_run_at_once_as_have_their_gpus(
    place: Path, monkeypatch: pytest.MonkeyPatch, gpu: str, at_once: int
) -> None:
    """Without GPUs the number is the user's choice; no trial has parts of two GPUs."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    overrides = ["concurrency=8", f"resources.gpu={gpu}"]
    assert effective_concurrency(load_sweep(Path("sweep.yaml"), overrides=overrides)[0]) == at_once


def test_the_card_is_the_smallest_that_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\necho "$@" > asked\nprintf "81559\\n24564\\n"\n')
    tool.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, 3")
    assert card_bytes() == 24564 * 2**20
    assert "--id=1,3" in Path("asked").read_text()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert card_bytes() is None


@pytest.mark.parametrize(
    ("gpu", "need", "expected"),
    [
        ("1", (19e9, 21e9), None),
        ("0.5", (10e9, 4e9), None),
        (
            "0.25",
            (10e9, 4e9),
            "got 0.25: 4 trials of stage s3 on a GPU, which take 40.0 GB (4 times 10.0 GB) in "
            "training, expected at most 21.6 GB of its memory; resources.gpu 0.5 puts 2 on a GPU",
        ),
        (
            "1",
            (19e9, 22e9),
            "got 1: a trial of stage s3 on a GPU, which takes 22.0 GB in evaluation, expected at "
            "most 21.6 GB of its memory; a smaller finetune_conf.eval_batch_size needs less",
        ),
        (
            "2",
            (30e9, 22e9),
            "got 2: a trial of stage s3 on a GPU, which takes 30.0 GB in training, expected at "
            "most 21.6 GB of its memory; a smaller dataset_conf.batch_size with a larger "
            "train_conf.accum_grad needs less",
        ),
    ],
)
def test_trials_that_a_gpu_does_not_hold_are_one_line_with_both_figures(
    place: Path, gpu: str, need: tuple[float, float], expected: str | None
) -> None:
    overrides = ["concurrency=8", f"resources.gpu={gpu}"]
    sweep, _ = load_sweep(Path("sweep.yaml"), overrides=overrides)
    found = card_problem(sweep, "s3", Need(int(need[0]), int(need[1])), 0.9 * 24e9)
    assert found == expected
