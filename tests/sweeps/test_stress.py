"""Forty random kills over two sweeps on one store, then every record is checked by a program.

`pytest -m slow tests/sweeps/test_stress.py`; STRESS_SEED repeats a run, STRESS_KILLS shortens it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from sweeps.directory import SweepDirectory
from sweeps.execute.orphans import marked
from sweeps.search.study import read_states
from tests.sweeps.conftest import SWEEP
from tests.sweeps.driving import DRIVER, ENVIRONMENT, assert_whole, children

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
