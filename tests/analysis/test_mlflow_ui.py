"""What a newcomer finds in MLflow's own pages, in a real browser."""

from __future__ import annotations

import json
import os
import re
import sys
from urllib.parse import quote

import pytest

from analysis.facts.comparison import comparison
from analysis.report.page import report
from tests.conftest import HANG_S
from tests.servers import free_port, serving
from tests.synthetic import Shape, write_sweep

pytestmark = pytest.mark.slow


@pytest.fixture
def ui(tmp_path, monkeypatch):
    """A store with a sweep and its report, and MLflow's server over it."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)
    store = write_sweep(tmp_path / "sweep", Shape(trials=12, epochs=4, utterances=40))
    report(comparison("synthetic", store), store, tmp_path / "report")
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--host", "127.0.0.1", "--backend-store-uri", store.uri]
    with serving(command, f"{address}/health"):
        yield address, store


def test_sweep_children_report_and_compare_page(ui, chromium):
    address, store = ui
    parent = store.sweep_run("synthetic")
    trials = store.trial_runs("synthetic")
    runs = f"{address}/#/experiments/{store.experiment_id}/runs"
    with chromium.new_page(viewport={"width": 1600, "height": 1200}) as page:
        page.set_default_timeout(1000 * HANG_S)

        page.goto(f"{runs}/{parent.run_id}")
        page.get_by_text("Best of 11 trials").first.wait_for()
        page.get_by_text("synthetic/011").first.wait_for()

        page.goto(f"{runs}/{parent.run_id}/artifacts/report.html")
        frame = page.frame_locator("iframe").first
        frame.locator("body[data-ready=true]").wait_for()
        frame.locator("#figure-curves").scroll_into_view_if_needed()
        frame.locator("#figure-curves .main-svg").first.wait_for()

        ids = quote(json.dumps([trial.run_id for trial in trials[:3]]))
        experiments = quote(json.dumps([store.experiment_id]))
        page.goto(f"{address}/#/compare-runs?runs={ids}&experiments={experiments}")
        page.get_by_text("Comparing 3 Runs").wait_for()
        for stage in ("8k", "s1", "s2"):  # learning rate and stage stand above every column
            name = re.compile(rf"^synthetic/00\d {stage} lr 1e-3$")
            page.get_by_text(name).first.wait_for(state="attached")
        page.get_by_text("optim_conf.lr", exact=True).first.wait_for(state="attached")
        page.get_by_text("0.001", exact=True).first.wait_for(state="attached")
