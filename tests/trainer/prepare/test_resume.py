"""A preparation that is interrupted, however roughly, goes on and comes to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HANG_S, ROOT, until
from tests.trainer.prepare.given import corpus, write_lines, write_wav
from tests.trainer.prepare.prepared import kept, run

COUNT = 1000


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough lines for many batches; some are sides and parts of calls, some are wrong."""
    directory = tmp_path_factory.mktemp("interrupted")
    made = corpus(directory, 50, speaker=lambda n: f"s{n // 5}")
    call = str(write_wav(directory / "call.wav", 20.0, channels=2, seed=1))
    lines = []
    for number in range(COUNT):
        line = {**made[number % 50], "key": f"k{number}"}
        if number % 3 == 0:
            begin = number % 190 / 10
            line |= {"source": call, "side": "AB"[number % 2], "start_s": begin, "call": "c"}
            line |= {"end_s": begin + 1, "speaker": f"side {number % 2}"}
        elif number % 7 == 0:
            line["source"] = "gone.wav"
        lines.append(line)
    return write_lines(directory / "m.jsonl", *lines)


@pytest.fixture(scope="module")
def whole(given: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a preparation that nobody disturbed."""
    directory = tmp_path_factory.mktemp("whole")
    run(directory, given, keep=("duplicate content",))
    found = files(directory)
    assert len(found) > 300  # with the audio that was cut out
    return found


def files(directory: Path) -> dict[str, bytes]:
    """All files below a directory, wherever it is: the chat form names absolute paths."""
    return {
        str(path.relative_to(directory)): path.read_bytes().replace(bytes(directory), b"HERE")
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


HELD = """
import signal, sys
from conf.errors import run_command
from trainer import __main__ as trainer
from trainer.prepare import first_pass, passes

place, count = sys.argv[1], int(sys.argv[2])
keep, check = passes._keep, first_pass.check_lines

def keep_and_hold(path, records):
    kept = keep(path, records)
    if path.parent.name == place and int(path.stem) + 1 == count:
        print("held", flush=True)
        signal.pause()
    return kept

def hold(*arguments, **named):
    signal.pause()

if count:
    passes._keep = keep_and_hold
else:
    # By this name it is sent to the workers.
    hold.__module__, hold.__qualname__ = check.__module__, check.__qualname__
    first_pass.check_lines = hold
    print("held", flush=True)
_, _, _, *arguments = sys.argv
sys.argv[0] = trainer.__file__  # by which the command names itself
sys.exit(run_command(trainer.main, arguments))
"""
"""A preparation that stands still, in its first process after a batch, or in its workers."""


def start(given: Path, output_dir: Path, held: tuple[str, int]) -> subprocess.Popen[str]:
    """Start one that holds when so many batches of a pass are done; before the first in workers."""
    command = [sys.executable, "-c", HELD, held[0], str(held[1]), *arguments(given, output_dir)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert "held\n" in process.stdout
    return process


def finish(given: Path, output_dir: Path) -> None:
    command = [sys.executable, "-m", "trainer", *arguments(given, output_dir)]
    subprocess.run(command, cwd=ROOT, timeout=HANG_S, check=True)


def arguments(given: Path, output_dir: Path) -> list[str]:
    flags = ["--no_report", "--keep", "duplicate_content", "--workers", "2"]
    return ["prepare", "--input", str(given), *flags, "--output_dir", str(output_dir)]


def workers_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("held", [("headers", 3), ("content", 5)])
def test_killed_and_run_again(
    given: Path, whole: dict[str, bytes], tmp_path: Path, held: tuple[str, int]
) -> None:
    process = start(given, tmp_path, held)
    workers = workers_of(process.pid)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    for worker in workers:  # they do not outlive it
        until(lambda path=Path(f"/proc/{worker}/cmdline"): not path.exists())
    assert not (tmp_path / "train.jsonl").exists()
    finish(given, tmp_path)
    assert files(tmp_path) == whole


def test_ctrl_c_says_how_to_go_on(given: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    process = start(given, tmp_path, ("content", 2))
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=HANG_S)
    assert process.returncode == 130
    assert said.splitlines() == [
        "the same command goes on where this one stopped",
        "trainer: interrupted",
    ]
    finish(given, tmp_path)
    assert files(tmp_path) == whole


def test_a_worker_that_is_killed_ends_the_command_with_a_reason(
    given: Path, tmp_path: Path
) -> None:
    process = start(given, tmp_path, ("headers", 0))
    until(lambda: len(workers_of(process.pid)) == 2)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    _, said = process.communicate(timeout=HANG_S)
    assert process.returncode == 1
    assert "a worker process was killed" in said
    assert "the same command goes on" in said


def test_another_command_does_not_go_on_from_there(tmp_path: Path) -> None:
    made = corpus(tmp_path, 20)
    given = write_lines(tmp_path / "m.jsonl", *made)
    around = tmp_path / "out/.prepare"
    (around / "headers").mkdir(parents=True)
    (around / "about.json").write_text("another")
    (around / "headers/00000000.jsonl").write_bytes(b"end 0")
    run(tmp_path / "out", given)
    assert len(kept(tmp_path / "out")) == 20


def test_an_earlier_preparation_is_replaced_whole(tmp_path: Path) -> None:
    made = corpus(tmp_path, 20)
    write_wav(tmp_path / "call.wav", channels=2, seed=77)
    side = {"key": "side", "source": str(tmp_path / "call.wav"), "target": "好", "side": "A"}
    given = write_lines(tmp_path / "m.jsonl", *made, side)
    run(tmp_path / "out", given, test_share=0.2)
    assert kept(tmp_path / "out")["side"]["source"].endswith("/side.wav")
    run(tmp_path / "out", given, test_share=0.0, split_by="key")
    assert not (tmp_path / "out/test.jsonl").exists()
    assert not (tmp_path / "out/chat/test.jsonl").exists()
    assert len(list((tmp_path / "out/wav").rglob("*.wav"))) == 1
