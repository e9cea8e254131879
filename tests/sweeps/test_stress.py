"""Random kills of sweeps on one store, and then every record is checked by a program.

Forty while two sweeps train, and forty in the moments before and after: the first start, MLflow's
store being made, Ray's start, the tables, the report, an export.

`pytest -m slow tests/sweeps/test_stress.py`; STRESS_SEED repeats a run, STRESS_KILLS shortens it.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from analysis.export.best_trial import MODEL_FILES
from conf.errors import DataError
from sweeps.directory import SweepDirectory
from sweeps.execute.orphans import marked
from sweeps.search.study import read_states
from tests.conftest import HANG_S, until
from tests.sweeps.conftest import SWEEP
from tests.sweeps.driving import DRIVER, ENVIRONMENT, assert_whole, children, drive
from trainer.tracking.mlflow_store import Store

SEED = int(os.environ.get("STRESS_SEED", time.time_ns() % 10_000))
KILLS = int(os.environ.get("STRESS_KILLS", "40"))
KINDS = {"worker": 0.3, "driver": 0.3, "everything": 0.2, "server": 0.2}
"""What is killed, and its share of the kills."""
TIMEOUT_S = 1500


class Sweep:
    """A sweep that is started again whenever its driver has ended."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.trials = 8
        self.file = Path(f"{name}.yaml")
        self.file.write_text(SWEEP.replace("name: tiny", f"name: {name}"))
        self.log = Path(f"{name}.log").open("a")  # noqa: SIM115
        self.driver: subprocess.Popen[bytes] | None = None
        self.codes: list[int] = []

    def keep_going(self) -> None:
        """Start a driver if none runs; a sweep that has finished gets more to do."""
        if self.driver is not None and (code := self.driver.poll()) is not None:
            self.codes.append(code)
            self.driver = None
            if code == 0:
                self.trials += 4
        if self.driver is None:
            self.driver = self._start()

    def finish(self) -> None:
        """Let it run to its end."""
        if self.driver is not None and self.driver.wait(TIMEOUT_S) == 0:
            return
        for _ in range(2):  # the last kill may have hit Ray, whose death ends the driver
            self.driver = self._start()
            if self.driver.wait(TIMEOUT_S) == 0:
                return
        raise AssertionError(Path(self.log.name).read_text()[-4000:])

    def kill(self, kind: str, chance: random.Random) -> bool:
        """Kill something of it; False if there is no such thing now."""
        assert self.driver is not None
        below = children(self.driver.pid)
        if kind == "driver":
            victims = [self.driver.pid]
        elif kind == "everything":
            victims = [self.driver.pid, *below, *marked(SweepDirectory.of(self.name).root)]
        else:
            words = ("ray::ImplicitFunc",) if kind == "worker" else ("raylet/raylet", "gcs_server")
            found = [pid for pid, title in below.items() if any(word in title for word in words)]
            victims = [chance.choice(found)] if found else []
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(victims)

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", DRIVER, str(self.file), "brief_finetune"]
        command += [f"trials={self.trials}"]
        return subprocess.Popen(
            command, env=ENVIRONMENT, stdout=self.log, stderr=self.log, start_new_session=True
        )


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_two_sweeps_survive_forty_kills(place: Path) -> None:
    chance = random.Random(SEED)
    sweeps = [Sweep("one"), Sweep("two")]
    kinds = [kind for kind, share in KINDS.items() for _ in range(round(share * KILLS))]
    chance.shuffle(kinds)
    began = time.monotonic()
    try:
        for kind in kinds:
            time.sleep(chance.uniform(0.0, 6.0))
            while True:  # there may be no worker, or no Ray, at this moment
                for sweep in sweeps:
                    sweep.keep_going()
                if chance.choice(sweeps).kill(kind, chance):
                    break
                time.sleep(0.2)
        killed_s = time.monotonic() - began
        for sweep in sweeps:
            sweep.keep_going()
        for sweep in sweeps:
            sweep.finish()
    finally:
        for sweep in sweeps:
            if sweep.driver is not None:
                sweep.driver.kill()
                sweep.driver.wait()
            sweep.log.close()
    outcomes = {}
    for sweep in sweeps:
        assert_whole(sweep.name, sweep.trials)
        states = read_states(SweepDirectory.of(sweep.name).study, sweep.name)
        outcomes[sweep.name] = {
            outcome: sum(state.outcome == outcome for state in states)
            for outcome in ("completed", "pruned", "failed")
        }
        for state in states:
            if state.outcome == "failed":
                assert "died (3 times)" in state.reason
    print(
        f"\nseed {SEED}: {Counter(kinds)} in {killed_s:.0f} s, all over after "
        f"{time.monotonic() - began:.0f} s; {outcomes}; codes {[s.codes for s in sweeps]}"
    )


EXPORTER = """
import sys
from conf.errors import run_command

def package(run_dir, model, stock):  # in place of a child that loads torch
    model.mkdir()
    stock.mkdir()
    for name in ("config.yaml", "configuration.json", "model.pt", "README.md"):
        (model / name).write_text(name)

def main(argv):
    from analysis import __main__
    from analysis.export import best_trial
    best_trial._package = package
    return __main__.main(argv)

sys.exit(run_command(main, sys.argv[1:]))
"""
RUN = (DRIVER, "sweep.yaml", "finetune", "trials=4")
EXPORT = (EXPORTER, "export", "--sweep", "tiny", "--output_dir", "exported")
EXPORT += ("--no_verify", "--no_register")


@dataclass(frozen=True)
class Moment:
    """An event of `sys.audit` in a command's process: the first with a word in its arguments.

    There, or a few events `later`, the process waits for what is sent to it. So it is hit at the
    same place however fast the machine is.
    """

    command: tuple[str, ...]
    event: str
    word: str


MOMENTS = {  # in the order of a sweep's life
    "the first imports": Moment(RUN, "import", "sweeps.run"),
    "MLflow's store is made": Moment(RUN, "sqlite3.connect", ":memory:"),
    "MLflow's store is written": Moment(RUN, "sqlite3.connect", "mlflow.db"),
    "Ray's first server": Moment(RUN, "subprocess.Popen", "gcs_server"),
    "Ray's last server": Moment(RUN, "subprocess.Popen", "raylet/raylet"),
    "the trials are over": Moment(RUN, "import", "analysis.report.page"),
    "the tables": Moment(RUN, "os.rename", "comparison.md"),
    "MLflow's documents": Moment(RUN, "os.rename", "best_config.yaml"),
    "the report": Moment(RUN, "os.rename", "report.html"),
    "the export begins": Moment(EXPORT, "import", "analysis.export.best_trial"),
    "the export's files": Moment(EXPORT, "open", "model.pt"),
    "the export is there": Moment(EXPORT, "os.rename", ".exported.partial/new'"),
}
WAYS = ("SIGKILL", "SIGKILL to everything", "SIGTERM", "SIGINT")
LATER = (0, 0, 10, 100, 1000)
"""Events after the moment."""
PAUSE = """
import os, sys

def pause(event, word, later, line):
    driver, seen = os.getpid(), -1
    os.set_inheritable(line, False)

    def hook(name, arguments):
        nonlocal seen
        if os.getpid() != driver or (seen < 0 and name != event):
            return
        if seen >= 0 or word in str(arguments[:2]):
            seen += 1
            if seen == later:
                os.write(line, b"here")
                os.read(line, 1)

    sys.addaudithook(hook)

"""


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("life", range(-(-KILLS // len(MOMENTS))))
def test_a_sweep_survives_kills_in_its_first_and_last_moments(place: Path, life: int) -> None:
    chance = random.Random(SEED + life)
    moments = list(MOMENTS.items())[: KILLS - life * len(MOMENTS)]
    for command in (RUN, EXPORT):
        for name, moment in moments:
            if moment.command == command:
                way, later = chance.choice(WAYS), chance.choice(LATER)
                ended = _kill(moment, way, later)
                print(f"seed {SEED + life}: {way} at {name} + {later}: {ended}", flush=True)
        again = drive(*command[1:], code=command[0])
        assert again.returncode == 0, again.stdout + again.stderr
    assert_whole("tiny", 4)
    exported = {path.name for path in Path("exported").rglob("*") if path.is_file()}
    assert exported == {"best_config.yaml", "export.json", *MODEL_FILES, "README.md"}
    assert [path for path in Path().rglob("*") if path.name.endswith(".partial")] == []


def _kill(moment: Moment, way: str, later: int) -> str:
    """Start its command, kill it there and look at what it leaves; returns how it ended."""
    root = SweepDirectory.of("tiny").root
    output = Path("output.txt")
    ours, theirs = socket.socketpair()
    code, *arguments = moment.command
    line = theirs.fileno()
    pause = f"{PAUSE}pause({moment.event!r}, {moment.word!r}, {later}, {line})\n"
    with output.open("w") as file, ours:
        driver = subprocess.Popen(
            [sys.executable, "-c", pause + code, *arguments],
            env=ENVIRONMENT,
            stdout=file,
            stderr=file,
            pass_fds=[line],
            start_new_session=True,
        )
        try:
            theirs.close()
            if not ours.recv(4):  # it came to its end before
                assert driver.wait(HANG_S) == 0, output.read_text()
                return "was over before"
            if way == "SIGKILL to everything":
                for pid in (driver.pid, *children(driver.pid), *marked(root)):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            else:
                driver.send_signal(signal.Signals[way])
            ours.close()
            ended = driver.wait(HANG_S)
        finally:
            driver.kill()
            driver.wait()
    said = output.read_text()
    if way in ("SIGTERM", "SIGINT"):
        assert ended == 128 + signal.Signals[way], said
        assert said.count("interrupted") == 1, said
        assert "Traceback" not in said, said
        until(lambda: marked(root) == [])  # Ray's servers die with the driver, a moment after it
        assert [run for run in _runs() if run.endswith("RUNNING")] == []
    else:
        assert ended == -signal.SIGKILL, said
    return f"exit {ended}"


def _runs() -> Iterator[str]:
    """The runs of the sweep in MLflow and how they stand; none while there is no store."""
    with suppress(DataError):
        store = Store.open(create=False)
        parent = store.sweep_run("tiny")
        for run in [*([] if parent is None else [parent]), *store.trial_runs("tiny")]:
            yield f"{run.name}: {run.status}"
