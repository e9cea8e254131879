"""Event logs and their projection onto a real MLflow store."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conf.errors import DataError, UserError
from trainer.tracking.event_log import EventLog
from trainer.tracking.mlflow_store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    return Store.open()


@pytest.mark.quick
def test_importing_needs_neither_torch_nor_mlflow() -> None:
    loaded = "bool({'torch', 'mlflow'} & set(sys.modules))"
    code = f"import sys, trainer.tracking.mlflow_store; sys.exit({loaded})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_projecting_twice_is_projecting_once(store: Store, tmp_path: Path) -> None:
    directory = tmp_path / "trial"
    log = EventLog(directory)
    log.log_params(
        {"optim_conf.lr": 5e-5, "specaug": None, "specaug_conf.freq_mask_width_range": [0, 15]}
    )
    log.log_params({f"key.{i}": i for i in range(250)})
    log.set_tags({"stage": "8k"})
    for epoch in range(3):
        log.log_metrics({"valid/cer": 0.5 - epoch / 10, "epoch": epoch}, step=epoch * 7)
    (directory / "h.jsonl").write_text('{"key": "a"}\n')
    log.log_artifact(directory / "h.jsonl", "hypotheses/valid.jsonl")

    parent = store.ensure_sweep("demo", "id-1")
    child = store.ensure_run(
        kind="trial", name="demo/000", key="demo/000", parent=parent, tags={"trial": "0"}
    )
    store.project(child, directory)
    store.project(child, directory)
    other = Store.open()  # a driver started again
    assert other.ensure_sweep("demo", "id-1") == parent
    assert other.ensure_run(kind="trial", name="demo/000", key="demo/000", parent=parent) == child
    other.project(child, directory)
    other.finish(child, "FINISHED")

    (run,) = store.trial_runs("demo")
    assert run.status == "FINISHED"
    assert run.params["optim_conf.lr"] == "5e-05"
    assert run.params["specaug"] == "null"
    assert run.params["specaug_conf.freq_mask_width_range"] == "[0, 15]"
    assert len(run.params) == 253
    assert run.tags["stage"] == "8k"
    assert run.metrics["valid/cer"] == pytest.approx(0.3)
    assert [(p.step, p.value) for p in store.history(child, "epoch")] == [(0, 0), (7, 1), (14, 2)]
    copy = store.download(child, "hypotheses/valid.jsonl", tmp_path / "copy")
    assert copy == tmp_path / "copy/hypotheses/valid.jsonl"
    assert copy.read_text() == '{"key": "a"}\n'
    with pytest.raises(DataError, match="no artifact missing.txt"):
        store.download(child, "missing.txt", tmp_path / "copy")
    assert (tmp_path / "mlflow.db").exists()
    assert list((tmp_path / "mlartifacts").rglob("valid.jsonl"))
    newest = store.sweep_run("demo")
    assert newest is not None
    assert newest.run_id == parent
    assert store.sweep_run("unknown") is None
    assert store.sweep_names() == ("demo",)


def test_not_a_number_is_recorded_as_such(store: Store, tmp_path: Path) -> None:
    log = EventLog(tmp_path / "trial")
    log.log_metrics({"train/loss": math.nan}, step=1)
    run_id = store.ensure_run(kind="train", name="run")
    store.project(run_id, tmp_path / "trial")
    assert math.isnan(store.history(run_id, "train/loss")[0].value)


def test_inherited_run_is_the_parent_and_a_later_one_its_resume(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.ensure_run(kind="x", name="from mlflow run")
    second = store.ensure_run(kind="x", name="from mlflow run again")
    monkeypatch.setenv("MLFLOW_RUN_ID", first)
    assert Store.open().ensure_sweep("demo", "id-1") == first
    monkeypatch.setenv("MLFLOW_RUN_ID", second)
    assert Store.open().ensure_sweep("demo", "id-1") == first
    tags = store.run(second).tags
    assert (tags["kind"], tags["sweep"], tags["resume.of"]) == ("resume", "demo", first)
    assert store.run(first).status == "RUNNING"


def test_reading_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        Store.open(create=False)
    assert not list(tmp_path.iterdir())
    parent = Store.open().ensure_sweep("demo", "id-1")
    found = Store.open(create=False).sweep_run("demo")
    assert found is not None
    assert found.run_id == parent


def test_a_store_that_cannot_be_opened_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/no/such/place.db")
    with pytest.raises(UserError) as error:
        Store.open()
    assert len(str(error.value).splitlines()) == 1
