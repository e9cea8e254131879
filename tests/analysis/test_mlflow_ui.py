"""What a newcomer finds in MLflow's own pages, in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from urllib.parse import quote

import pytest

from analysis.report import report
from tests.synthetic import Shape, write_sweep

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium")
START_S = 90


@pytest.fixture
def ui(tmp_path, monkeypatch):
    """A store with a sweep and its report, and MLflow's server over it."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)
    store = write_sweep(tmp_path / "sweep", Shape(trials=12, epochs=4, utterances=40))
    report("synthetic", store, tmp_path / "report")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--host", "127.0.0.1", "--backend-store-uri", store.uri]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(f"{address}/health")
            yield address, store
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=30)


def _wait_for(url):
    for _ in range(START_S):
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise AssertionError(f"{url} did not answer within {START_S} s")


def test_sweep_children_report_and_compare_page(ui):
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium (apt-get install chromium)")
    address, store = ui
    parent = store.sweep_run("synthetic")
    trials = store.trial_runs("synthetic")
    runs = f"{address}/#/experiments/{store.experiment_id}/runs"
    with api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport={"width": 1600, "height": 1200})
        page.set_default_timeout(60_000)

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
        browser.close()
