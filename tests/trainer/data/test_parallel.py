"""An ordered pool of workers: order, errors, deaths and Ctrl-C."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conf.errors import DataError, WorkError
from trainer.data.parallel import ordered

ROOT = Path(__file__).parents[3]
INTERRUPTED = """
import sys, time
from pathlib import Path
from trainer.data.parallel import ordered

def work(part):
    Path(sys.argv[1], str(part)).touch()
    time.sleep(0.2)

for _ in ordered(work, range(1000), 2, what="sleeping"):
    pass
"""


def _uneven(part: int) -> tuple[int, int]:
    time.sleep(0.02 if part % 3 == 0 else 0)
    return part, os.getpid()


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_parts(num_workers: int) -> None:
    results = list(ordered(_uneven, range(40), num_workers, what="test"))
    assert [part for part, _ in results] == list(range(40))
    assert ({pid for _, pid in results} == {os.getpid()}) == (num_workers == 1)


def test_workers_have_the_work_from_this_process() -> None:
    """It is neither sent nor imported: what only this process holds will do."""
    squares = {part: part**2 for part in range(20)}
    found = list(ordered(lambda part: squares[part], range(20), 2, what="test"))
    assert found == list(squares.values())


def test_parts_are_taken_a_few_ahead_of_the_results() -> None:
    taken: list[int] = []

    def parts() -> Iterator[int]:
        for part in range(1000):
            taken.append(part)
            yield part

    results = ordered(_uneven, parts(), 2, what="test")
    next(results)
    assert len(taken) < 20
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_of_the_work_comes_as_it_is_when_its_turn_comes(num_workers: int) -> None:
    def work(part: int) -> int:
        if part == 7:
            raise DataError(f"corpus.jsonl:{part}: source: got nothing")
        return part

    results = ordered(work, range(40), num_workers, what="test")
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(DataError, match="^corpus.jsonl:7: source: got nothing$"):
        next(results)


def test_a_worker_that_is_killed_is_said_within_seconds() -> None:
    def work(part: int) -> int:
        if part == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return part

    began_s = time.monotonic()
    with pytest.raises(
        WorkError, match="^out: a worker process was killed, .* same command goes on"
    ):
        list(ordered(work, range(40), 2, what="out"))
    assert time.monotonic() - began_s < 20


def test_a_worker_that_is_killed_while_it_sends_is_said_within_seconds() -> None:
    """The other one would keep the pipe open, and half a result would be waited for."""

    def work(part: int) -> str:
        if part == 0:  # a result that fills the pipe, and is not taken at once
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
            return "x" * 300_000_000
        return ""

    with pytest.raises(WorkError, match="a worker process was killed"):
        list(ordered(work, range(40), 2, what="out"))


@pytest.mark.parametrize(
    ("sent", "times"), [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGKILL, 1)]
)
def test_no_worker_outlives_an_interrupt_or_the_parents_death(
    sent: signal.Signals, times: int, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    if sent is signal.SIGINT:
        for _ in range(times):  # as a terminal does it
            os.killpg(process.pid, sent)
    else:
        process.kill()
    _, said = process.communicate(timeout=60)
    assert ("KeyboardInterrupt" in said) == (sent is signal.SIGINT)
    assert "Process ForkProcess" not in said  # the workers do not answer
    while any(Path(f"/proc/{child}/cmdline").exists() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(list(tmp_path.iterdir())) < 100
