"""Death, hanging, interruption and want of room, with real Ray, Optuna and MLflow."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
from pathlib import Path

import pytest

from conf.files import holder_of
from sweeps.directory import SweepDirectory
from sweeps.execute.orphans import marked
from sweeps.search.study import read_states
from tests.conftest import until
from tests.servers import free_port, serving
from tests.sweeps.driving import (
    ENVIRONMENT,
    artifact,
    assert_whole,
    children,
    drive,
    driving,
    hold,
    release,
    statuses,
    wait_for,
)

COUNTED_CLOCK = """
import functools
from pathlib import Path
from sweeps.execute import deaths, tuner

def clock():
    return 10.0 * Path("hangs").stat().st_size if Path("hangs").exists() else 0.0

tuner.Watch = functools.partial(deaths.Watch, clock=clock)
"""
"""A driver's clock that goes on only while a trial hangs: a slow machine is never taken for one."""


def test_a_hung_trial_is_tried_again_and_a_failure_says_why(place: Path) -> None:
    sweep = ("trials=4", "concurrency=1", "trial_timeout_s=60")
    done = drive("sweep.yaml", "troubled_finetune", *sweep, before=COUNTED_CLOCK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_whole("tiny", 4)
    states = read_states(SweepDirectory.of("tiny").study, "tiny")
    assert [state.outcome for state in states] == ["completed", "completed", "failed", "failed"]
    assert states[2].reason == "no report for 60 s (3 times); see failure.log"
    assert states[3].reason == "MemoryError: cannot allocate 80 GB"
    hung = artifact("tiny", 2, "failure.log", place / "copies")
    assert "about to hang" in hung
    assert hung.count("death: no report for 60 s") == 3
    raised = artifact("tiny", 3, "failure.log", place / "copies2")
    assert raised.startswith("trial 3: MemoryError: cannot allocate 80 GB")
    assert "Traceback" in raised


@pytest.mark.parametrize(
    "victim",
    [
        pytest.param("gcs_server", id="gcs"),
        pytest.param("raylet/raylet", id="raylet", marks=pytest.mark.slow),
        pytest.param("RuntimeEnvAgent", id="agent", marks=pytest.mark.slow),
        pytest.param("", id="all", marks=pytest.mark.slow),
    ],
)
def test_the_death_of_ray_ends_the_sweep_with_a_line(place: Path, victim: str) -> None:
    command = ("sweep.yaml", "held_finetune", "trials=4", "pruning.method=none")
    hold(2)
    with driving(*command) as driver:
        wait_for(driver, "completed")
        for pid, title in children(driver.pid).items():
            if victim in title:
                os.kill(pid, signal.SIGKILL)
        assert driver.stdout is not None
        rest = driver.stdout.read()
        assert driver.wait() == 1, rest
    # Without the watch Ray waits for a minute, and then ends the driver without this line.
    [line] = [line for line in rest.splitlines() if "died; the same command goes on" in line]
    assert "sweep tiny: Ray's" in line
    assert "RUNNING" not in statuses().values()
    release()
    again = drive(*command)
    assert again.returncode == 0, again.stderr
    assert_whole("tiny", 4)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, 3])
def test_a_start_of_ray_that_fails_is_tried_again(place: Path, kills: int) -> None:
    """By itself Ray waits for a minute, and then ends the driver without a word."""
    killed: set[int] = set()

    def kill_next() -> bool:
        titles = children(driver.pid).items()
        new = {pid for pid, title in titles if "gcs_server" in title.split()[0]} - killed
        for pid in new:
            os.kill(pid, signal.SIGKILL)
        killed.update(new)
        return bool(new)

    with driving("sweep.yaml", "finetune", "trials=4") as driver:
        for _ in range(kills):
            until(lambda: driver.poll() is not None or kill_next())
        assert driver.stdout is not None
        printed = driver.stdout.read()
        code = driver.wait()
    assert "trying again (2 of 3)" in printed
    if kills == 3:
        assert code == 1
        # The reason is the death or what Ray waited for, whichever is noticed first.
        assert "Ray did not start in 3 tries (" in printed
        assert marked(SweepDirectory.of("tiny").root) == []
        assert drive("sweep.yaml", "finetune", "trials=4").returncode == 0
    else:
        assert code == 0, printed
    assert_whole("tiny", 4)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(signal.SIGINT, 130, id="SIGINT"),
        pytest.param(signal.SIGTERM, 143, id="SIGTERM", marks=pytest.mark.slow),
    ],
)
def test_a_signal_while_ray_starts_is_answered_at_once(
    place: Path, sent: int, expected: int
) -> None:
    with driving("sweep.yaml", "finetune", "trials=4") as driver:
        until(lambda: "gcs_server" in " ".join(children(driver.pid).values()))
        assert driver.poll() is None
        driver.send_signal(sent)
        assert driver.stdout is not None
        printed = driver.stdout.read()
        assert driver.wait() == expected
    assert printed.splitlines()[-1].startswith("interrupted; the same command goes on")
    assert printed.count("interrupted") == 1
    assert marked(SweepDirectory.of("tiny").root) == []


WAITING_REPORT = """
import time
from pathlib import Path
from analysis.report import page

def report(*_, **__):
    print("writes its report", flush=True)
    Path("writes").touch()
    while True:
        time.sleep(0.1)

page.report = report
"""


@pytest.mark.parametrize(
    "sent", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_after_the_last_trial_ends_in_order(place: Path, sent: int) -> None:
    """When Ray is gone its C++ has taken SIGTERM's handler with it."""
    with driving("sweep.yaml", "finetune", "trials=4", before=WAITING_REPORT) as driver:
        until(Path("writes").exists)
        driver.send_signal(sent)
        assert driver.stdout is not None
        printed = driver.stdout.read()
        assert driver.wait() == 128 + sent
    assert "interrupted; the same command goes on" in printed
    assert "RUNNING" not in statuses().values()
    assert drive("sweep.yaml", "finetune", "trials=4").returncode == 0
    assert_whole("tiny", 4)


def test_a_killed_driver_is_followed_by_the_next(place: Path) -> None:
    hold(2)
    with driving("sweep.yaml", "held_finetune", "trials=4") as driver:
        wait_for(driver, "completed")
        driver.kill()
        driver.wait()
    release()
    again = drive("sweep.yaml", "held_finetune", "trials=4")
    assert again.returncode == 0, again.stderr
    assert_whole("tiny", 4)


@pytest.mark.slow
def test_a_worker_that_dies_goes_on_and_is_counted_across_drivers(place: Path) -> None:
    command = ("sweep.yaml", "held_finetune", "trials=4", "concurrency=1")
    hold(0)
    killed: list[int] = []
    with driving(*command) as driver:
        wait_for(driver, "started")
        for _ in range(2):
            killed.append(_kill_worker_of_trial_0(killed))
        until(lambda: _worker_of_trial_0() not in (0, *killed))
        driver.kill()
        driver.wait()
    with driving(*command) as driver:
        wait_for(driver, "started")
        _kill_worker_of_trial_0(killed)
        line = wait_for(driver, "failed")
        release()
        assert "the worker's process died (3 times); see failure.log" in line
        assert driver.stdout is not None
        driver.stdout.read()
        assert driver.wait() == 0
    assert_whole("tiny", 4)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once_and_resumably(place: Path, sent: int) -> None:
    hold(2)
    with driving("sweep.yaml", "held_finetune", "trials=4") as driver:
        wait_for(driver, "completed")
        driver.send_signal(sent)
        time.sleep(0.2)
        driver.send_signal(sent)
        began = time.monotonic()
        assert driver.wait() == 128 + sent
    assert time.monotonic() - began < 2
    release()
    assert drive("sweep.yaml", "held_finetune", "trials=4").returncode == 0
    assert_whole("tiny", 4)


@pytest.mark.slow
def test_a_full_disk_stops_the_sweep_and_not_the_trial(place: Path) -> None:
    (place / "full").touch()
    stopped = drive("sweep.yaml", "full_disk_finetune", "trials=4")
    assert stopped.returncode == 1
    assert stopped.stderr.endswith("sweep tiny: checkpoint: the disk is full\n")
    assert "RUNNING" not in statuses().values()
    (place / "full").unlink()
    assert drive("sweep.yaml", "full_disk_finetune", "trials=4").returncode == 0
    assert_whole("tiny", 4)
    assert all(
        s.outcome != "failed" for s in read_states(Path("outputs/sweeps/tiny/study.db"), "tiny")
    )


@pytest.mark.slow
def test_a_store_that_is_locked_for_a_while_only_delays(place: Path) -> None:
    with driving("sweep.yaml", "brief_finetune", "trials=4") as driver:
        wait_for(driver, "started")
        with sqlite3.connect(place / "mlflow.db", isolation_level=None) as database:
            database.execute("BEGIN EXCLUSIVE")
            time.sleep(12)
            database.execute("COMMIT")
        database.close()
        assert driver.stdout is not None
        driver.stdout.read()
        assert driver.wait() == 0
    assert_whole("tiny", 4)


@pytest.mark.slow
def test_an_interrupted_sweep_does_not_wait_for_a_store_that_is_away(place: Path) -> None:
    hold(2)
    with driving("sweep.yaml", "held_finetune", "trials=4") as driver:
        wait_for(driver, "completed")
        with sqlite3.connect(place / "mlflow.db", isolation_level=None) as database:
            database.execute("BEGIN EXCLUSIVE")
            driver.send_signal(signal.SIGINT)
            began = time.monotonic()
            assert driver.wait() == 130
            took = time.monotonic() - began
            database.execute("COMMIT")
        database.close()
    assert took < 16
    release()
    assert drive("sweep.yaml", "held_finetune", "trials=4").returncode == 0
    assert_whole("tiny", 4)


@pytest.mark.slow
def test_a_server_that_is_restarted_only_delays(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", "sqlite:///served.db", "--host", "127.0.0.1"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setitem(ENVIRONMENT, "MLFLOW_TRACKING_URI", address)
    with (
        serving(command, f"{address}/health", env=ENVIRONMENT) as server,
        driving("sweep.yaml", "brief_finetune", "trials=4") as driver,
    ):
        wait_for(driver, "started")
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        time.sleep(5)
        with serving(command, f"{address}/health", env=ENVIRONMENT):
            assert driver.stdout is not None
            said = driver.stdout.read()
            assert driver.wait() == 0, said
            assert_whole("tiny", 4)


def _worker_of_trial_0() -> int:
    """The process that trains it now; 0 if there is none."""
    holder = holder_of(SweepDirectory.of("tiny").trial(0) / "lock")
    return holder.pid or 0 if holder is not None else 0


def _kill_worker_of_trial_0(but: list[int]) -> int:
    """Wait for a worker that has not been killed yet, and kill it."""
    until(lambda: _worker_of_trial_0() not in (0, *but))
    pid = _worker_of_trial_0()
    assert pid > 1
    os.kill(pid, signal.SIGKILL)
    return pid
