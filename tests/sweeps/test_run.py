"""Whole sweeps with real Ray, Optuna and MLflow; only the training is a formula."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from sweeps.directory import SweepDirectory
from sweeps.spec.sweep_file import load_sweep
from tests.sweeps.driving import (
    ENVIRONMENT,
    drive,
    driving,
    hold,
    release,
    run_command,
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
def test_a_sweep_that_runs_or_differs_is_refused(place: Path) -> None:
    directory = SweepDirectory.of("tiny")
    directory.create(load_sweep(Path("sweep.yaml"))[0])
    with directory.locked():
        assert f"being run by pid {os.getpid()} since" in run_command("trials=9").stderr
    changed = run_command("optim_conf.lr=2e-3", "startup_trials=3")
    assert changed.returncode == 2
    [seen] = changed.stderr.splitlines()[1:]
    assert "set.optim_conf.lr: got 0.002, expected 0.001 as in" in changed.stderr
    assert "startup_trials: got 3, expected 4 as in" in changed.stderr
    assert "give the changed sweep another --name" in seen


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
