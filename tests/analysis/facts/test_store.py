"""The path from MLflow to the table, on a real sqlite store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.facts.comparison import comparison
from analysis.tables.formats import json_text
from trainer.tracking.event_log import EventLog
from trainer.tracking.mlflow_store import Store

ROOT = Path(__file__).parents[3]


def run_analysis(directory, *arguments):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    environment["PYTHONPATH"] = str(ROOT)
    environment["XDG_CACHE_HOME"] = str(directory / "cache")
    return subprocess.run(
        [sys.executable, "-m", "analysis", *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def real_store(tmp_path, monkeypatch):
    """A sweep of a completed baseline, a pruned and a failed trial, written as the driver does."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    store = Store.open()
    parent = store.ensure_sweep("demo", "sweep-1")
    store.log_metrics(parent, {"base/valid/cer": 0.72, "base/test/cer": 0.75})
    ends = [("completed", "FINISHED", 6), ("pruned", "FINISHED", 2), ("failed", "FAILED", 0)]
    for number, (outcome, status, epochs) in enumerate(ends):
        directory = tmp_path / f"trial-{number}"
        log = EventLog(directory)
        log.log_params({"optim_conf.lr": 10.0 ** (number - 5), "train_conf.max_epoch": 6})
        for epoch in range(1, epochs + 1):
            cer = 0.6 / epoch
            log.log_metrics({"valid/cer": cer, "objective": cer, "epoch": epoch}, step=10 * epoch)
        tags = {"sweep": "demo", "trial": str(number), "stage": "8k", "trial.dir": str(directory)}
        run_id = store.ensure_run(
            kind="trial", name=f"8k {number}", key=f"demo/{number}", parent=parent, tags=tags
        )
        store.project(run_id, directory)
        baseline = "true" if number == 0 else "false"
        store.set_tags(run_id, {"outcome": outcome, "outcome.reason": "", "baseline": baseline})
        store.finish(run_id, status)
    store.finish(parent, "FINISHED")
    return store


def test_table_from_sqlite_and_command_line(real_store, tmp_path):
    facts = comparison("demo", real_store)
    assert [(row.trial, row.outcome) for row in facts.rows] == [
        (0, "completed"),
        (1, "pruned"),
        (2, "failed"),
    ]
    best = facts.best
    assert (best.lr, best.epochs, best.epochs_run) == (1e-5, 6, 6)
    assert best.objective == pytest.approx(0.1)
    assert best.over_base == pytest.approx(0.1 / 0.72)

    done = run_analysis(tmp_path, "compare", "--sweep", "demo", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(json_text(facts))

    done = run_analysis(tmp_path, "compare", "--sweep", "dmeo")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (  # where reading takes long, progress comes before it
        "analysis: --sweep: got 'dmeo', expected a sweep of this MLflow store (demo)"
    )


def test_without_a_store_none_is_made(tmp_path):
    done = run_analysis(tmp_path, "compare", "--sweep", "demo")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
