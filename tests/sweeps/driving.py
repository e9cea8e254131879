"""Sweeps as processes of their own over the fake fine-tune, and what they leave in the records."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sweeps.directory import SweepDirectory
from sweeps.execute.orphans import marked
from sweeps.search.study import read_states
from tests.conftest import HANG_S, ROOT
from trainer.tracking.mlflow_store import Store

DRIVER = """
import sys
from pathlib import Path
from conf.errors import run_command

def main(argv):  # as the command itself, which loads the rest here
    from sweeps.run import run_sweep
    from tests import fakes
    return run_sweep(Path(argv[0]), overrides=argv[2:], finetune=getattr(fakes, argv[1]))

sys.exit(run_command(main, sys.argv[1:]))
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def drive(
    *arguments: str, before: str = "", code: str = DRIVER
) -> subprocess.CompletedProcess[str]:
    """Run a sweep in a process of its own, as the command line does; `before` is code for it."""
    return subprocess.run(
        [sys.executable, "-c", before + code, *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command on `sweep.yaml`, where it is refused or has nothing to start."""
    return subprocess.run(
        [sys.executable, "-m", "sweeps", "run", "sweep.yaml", *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


@contextmanager
def driving(*arguments: str, before: str = "") -> Iterator[subprocess.Popen[str]]:
    """A sweep under way; what is left of it at the end is killed. `before` is code for it."""
    command = [sys.executable, "-c", before + DRIVER, *arguments]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as driver:
        try:
            yield driver
        finally:
            driver.kill()


def hold(number: int) -> None:
    """Let `held_finetune` hold the trials from this one on, until `release`."""
    Path("hold").write_text(str(number))


def release() -> None:
    """Let the trials go on that `hold` holds."""
    Path("hold").unlink()


def wait_for(driver: subprocess.Popen[str], word: str) -> str:
    """Read what a driver prints up to a line with a word."""
    assert driver.stdout is not None
    read = []
    for line in driver.stdout:
        read.append(line)
        if word in line:
            return line
    raise AssertionError(f"{word!r} was never printed:\n{''.join(read)}")


def assert_whole(name: str, trials: int) -> None:
    """Check that study and MLflow say the same of a finished sweep, and that nothing is left over.

    Every trial once, each in a final state, with the same state, reason and curve in both.
    """
    directory = SweepDirectory.of(name)
    states = read_states(directory.study, name)
    assert [state.number for state in states] == list(range(trials))
    store = Store.open()
    parent = store.sweep_run(name)
    assert parent is not None
    assert parent.status == "FINISHED"
    runs = store.trial_runs(name)
    assert [run.tags["trial"] for run in runs] == [str(number) for number in range(trials)]
    for state, run in zip(states, runs, strict=True):
        assert state.outcome in ("completed", "pruned", "failed")
        assert run.tags["outcome"] == state.outcome
        assert run.tags.get("outcome.reason", "") == state.reason
        assert run.status == ("FAILED" if state.outcome == "failed" else "FINISHED")
        curve = {p.step // 10: p.value for p in store.history(run.run_id, "valid/cer")}
        assert {epoch: curve.get(epoch) for epoch in state.curve} == dict(state.curve)
        assert len(store.history(run.run_id, "epoch")) == len(curve)
    assert marked(directory.root) == []


def statuses(name: str = "tiny") -> dict[str, str]:
    """Every run of a sweep by name."""
    store = Store.open()
    parent = store.sweep_run(name)
    assert parent is not None
    runs = [parent, *store.trial_runs(name)]
    return {run.tags.get("trial.key", run.name): run.status for run in runs}


def children(pid: int) -> dict[int, str]:
    """The processes below a process, by id, with their titles."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    below, found = [pid], {}
    while below:
        parent = below.pop()
        for row in rows:
            if int(row[1]) == parent:
                below.append(int(row[0]))
                found[int(row[0])] = row[2] if len(row) > 2 else ""
    return found


def artifact(name: str, trial: int, path: str, directory: Path) -> str:
    """The text of an artifact of a trial."""
    store = Store.open()
    run = store.trial_runs(name)[trial]
    return store.download(run.run_id, path, directory).read_text(encoding="utf-8")
