"""How a sweep stands, from another terminal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.directory import SweepDirectory
from sweeps.search.ledger import Ledger
from sweeps.spec.sweep_file import load_sweep, stage_configs
from tests.conftest import ROOT, cpu_s

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
HOLD = """
import signal, sys
from pathlib import Path
from sweeps.directory import SweepDirectory
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
with SweepDirectory(Path(sys.argv[1])).locked():
    print("held", flush=True)
    signal.pause()
"""

pytestmark = pytest.mark.quick


def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m sweeps ARGUMENTS`."""
    command = [sys.executable, "-m", "sweeps", *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)


@pytest.fixture
def half_done(place: Path) -> SweepDirectory:
    """A sweep with one trial completed and one under way, and nobody who runs it."""
    sweep, places = load_sweep(Path("sweep.yaml"))
    directory = SweepDirectory.of(sweep.name)
    directory.create(sweep)
    ledger = Ledger(directory, sweep, stage_configs(sweep, places))
    for number in range(2):
        ledger.ask()
        ledger.report(number, 0, 0.8)
    ledger.report(0, 1, 0.4)
    ledger.tell(0, "completed", objective=0.4)
    directory.base.mkdir()
    (directory.base / "scores.json").write_text('{"valid": {"cer": 0.8}}')
    return directory


def test_status_of_an_interrupted_sweep(half_done: SweepDirectory) -> None:
    shown = ask("status", "tiny")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[0] == "tiny: interrupted: the command that started it goes on"
    assert "40.0    -50 %  █▄" in lines[2]
    assert lines[3].split()[-1] == "killed"
    assert lines[4].startswith("1/8 trials · 1 killed · best 40.0 % (trial 0, 8k, base 80.0 %)")
    assert ask("stop", "tiny").stdout == "tiny: nobody runs it\n"


def test_a_running_sweep_is_seen_and_stopped(half_done: SweepDirectory) -> None:
    command = [sys.executable, "-c", HOLD, str(half_done.root)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert f"tiny: run by pid {holder.pid} since" in ask("status", "tiny").stdout
        assert "run by pid" in ask("list").stdout
        watching = subprocess.Popen(
            [sys.executable, "-m", "sweeps", "status", "tiny", "--watch"],
            env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert watching.stdout is not None
        said = watching.stdout.readline()  # it watches
        stopped = ask("stop", "tiny")
        assert re.match(r"tiny: stopped after \d+:\d\d; ", stopped.stdout), stopped.stderr
        assert holder.wait() == 128 + signal.SIGTERM
        said += watching.stdout.read()
        watching.stdout.close()
        assert watching.wait() == 0
        assert "trial 1 s1 default" in said
    assert "1/8" in ask("list").stdout


def test_a_sweep_that_starts_for_the_first_time_is_seen_and_stopped(place: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(SweepDirectory.of("tiny").root)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        seen = ask("status", "tiny")
        assert re.fullmatch(rf"tiny: run by pid {holder.pid} since .*: starting\n", seen.stdout)
        assert ": starting" in ask("list").stdout
        stopped = ask("stop", "tiny")
        assert re.match(r"tiny: stopped after \d+:\d\d; ", stopped.stdout), stopped.stderr
        assert holder.wait() == 128 + signal.SIGTERM
    assert ask("list").stdout == "no sweep in outputs/sweeps\n"


def test_a_sweep_that_is_not_there_is_one_line(half_done: SweepDirectory) -> None:
    for command in ("status", "stop"):
        for name in ("other", "../tiny", "a/b"):
            asked = ask(command, name)
            assert asked.returncode == 2
            assert asked.stderr == (
                f"sweeps: NAME: got {name!r}, expected a sweep in outputs/sweeps (tiny)\n"
            )


def test_nothing_heavy_is_loaded(half_done: SweepDirectory, torch_s: float) -> None:
    code = (
        "import sys, sweeps.__main__ as m\n"
        "m.main(['status', 'tiny']); m.main(['list'])\n"
        "sys.exit(bool({'ray', 'mlflow', 'torch', 'scipy'} & set(sys.modules)))"
    )
    assert cpu_s(sys.executable, "-c", code, env=ENVIRONMENT) < 4 * torch_s
