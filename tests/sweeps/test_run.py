"""Whole sweeps with real Ray, Optuna and MLflow; only the training is a formula."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.directory import SweepDirectory
from sweeps.spec.sweep_file import load_sweep
from tests.sweeps.conftest import SWEEP
from tests.sweeps.driving import (
    ENVIRONMENT,
    drive,
    driving,
    hold,
    release,
    statuses,
    wait_for,
)
from trainer.tracking.mlflow_store import Store


def test_a_sweep_survives_failing_trials_and_dying_workers(place: Path) -> None:
    first = drive("sweep.yaml", "failing_finetune")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "Best of 8 trials" in first.stdout
    assert "(raylet)" not in first.stdout + first.stderr

    store = Store.open()
    parent = store.sweep_run("tiny")
    assert parent is not None
    assert parent.status == "FINISHED"
    trials = {run.tags["trial"]: run for run in store.trial_runs("tiny")}
    assert list(trials) == [str(number) for number in range(8)]
    for run in trials.values():
        assert run.tags["mlflow.parentRunId"] == parent.run_id
        failed = run.tags["outcome"] == "failed"
        assert run.status == ("FAILED" if failed else "FINISHED")
        assert failed == (run.tags["stage"] in ("s2", "s3"))
    assert trials["2"].tags["outcome.reason"] == "RuntimeError: no weights"
    assert "died" in trials["3"].tags["outcome.reason"]
    assert trials["0"].params["optim_conf.lr"] == "0.001"
    assert trials["0"].name == "tiny/000 8k lr 1e-3 default"
    assert f"tiny/004 {trials['4'].tags['stage']} lr " in trials["4"].name
    epochs = [point.value for point in store.history(trials["0"].run_id, "epoch")]
    assert epochs == [0, 1, 2, 3]
    copies = place / "copies"
    table = store.download(parent.run_id, "comparison.csv", copies).read_text()
    assert table.count("\n") == 9
    assert "optim_conf" in store.download(parent.run_id, "best_config.yaml", copies).read_text()
    assert (place / "outputs/sweeps/tiny/best_config.yaml").exists()

    again = drive("sweep.yaml", "failing_finetune")
    assert again.returncode == 0, again.stderr
    assert "Best of 8 trials" in again.stdout
    assert "starting Ray" not in again.stdout
    assert len(Store.open().trial_runs("tiny")) == 8


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(signal.SIGINT, 130, id="SIGINT"),
        pytest.param(signal.SIGTERM, 143, id="SIGTERM", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_sweep_goes_on(place: Path, sent: int, expected: int) -> None:
    hold(2)
    with driving("sweep.yaml", "held_finetune", "trials=4") as driver:
        wait_for(driver, "completed")
        driver.send_signal(sent)
        assert driver.stdout is not None
        rest = driver.stdout.read()  # an end at all: the trials under way would wait for ever
        assert driver.wait() == expected
    assert "the same command goes on" in rest
    left = statuses()
    assert left["tiny"] == "KILLED"
    assert "RUNNING" not in left.values()
    assert "KILLED" in [status for name, status in left.items() if name != "tiny"]

    release()
    again = drive("sweep.yaml", "held_finetune", "trials=4")
    assert again.returncode == 0, again.stderr
    assert statuses() == dict.fromkeys(["tiny", *(f"tiny/{n:03d}" for n in range(4))], "FINISHED")


@pytest.mark.quick
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
    result = subprocess.run(
        [sys.executable, "-m", "sweeps", "run", "sweep.yaml"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert expected in result.stderr
    assert result.stderr.startswith("sweeps: ")
    assert "Traceback" not in result.stderr
    assert not (place / "outputs").exists()
    assert not (place / "mlflow.db").exists()


@pytest.mark.quick
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


@pytest.mark.quick
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


@pytest.mark.quick
def test_a_sweep_that_runs_or_differs_is_refused(place: Path) -> None:
    directory = SweepDirectory.of("tiny")
    directory.create(load_sweep(Path("sweep.yaml"))[0])
    with directory.locked():
        assert f"being run by pid {os.getpid()} since" in _run("trials=9").stderr
    changed = _run("optim_conf.lr=2e-3", "startup_trials=3")
    assert changed.returncode == 2
    [seen] = changed.stderr.splitlines()[1:]
    assert "set.optim_conf.lr: got 0.002, expected 0.001 as in" in changed.stderr
    assert "startup_trials: got 3, expected 4 as in" in changed.stderr
    assert "give the changed sweep another --name" in seen


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sweeps", "run", "sweep.yaml", *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def _refused(place: Path, expected: str, *arguments: str) -> None:
    before = sorted(place.rglob("*"))
    result = _run(*arguments)
    assert result.returncode == 2, result.stderr
    [line] = result.stderr.splitlines()
    assert line.startswith("sweeps: ")
    assert expected in line
    assert sorted(place.rglob("*")) == before


@pytest.mark.quick
def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, sweeps.__main__ as m\n"
        "try: m.main(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'ray', 'optuna', 'mlflow', 'torch', 'pydantic'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, check=False
    )
    assert result.returncode == 0, result


@pytest.mark.quick
def test_a_dry_run_starts_nothing(place: Path) -> None:
    command = [sys.executable, "-m", "sweeps", "run", "sweep.yaml", "--dry-run", "trials=5"]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(" default") == 4
    assert "5 trials checked" in result.stdout
    assert not (place / "outputs").exists()


def test_under_mlflow_run_the_inherited_run_is_the_sweep(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open()
    inherited = store.ensure_run(kind="x", name="made by mlflow run")
    monkeypatch.setitem(ENVIRONMENT, "MLFLOW_RUN_ID", inherited)
    monkeypatch.setitem(ENVIRONMENT, "MLFLOW_EXPERIMENT_ID", store.experiment_id)
    result = drive("sweep.yaml", "finetune", "trials=4", "pruning.method=none")
    assert result.returncode == 0, result.stderr
    parent = store.sweep_run("tiny")
    assert parent is not None
    assert parent.run_id == inherited
    assert len(store.trial_runs("tiny")) == 4
