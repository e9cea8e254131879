"""How fast `trainer prepare` is, and how much memory a million lines take.

python -m pytest -m slow -s tests/trainer/prepare/test_speed.py
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.trainer.prepare.given import write_wav

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NUM_FILES = 20_000
NUM_SHARED = 100
PER_S = 2000
"""Utterances of which only headers are read, on two cores: the goal."""
MB = 2**20


@dataclass(frozen=True)
class Run:
    """One preparation from its start to its end.

    Attributes:
        per_s: Lines a second.
        peak_bytes: Most memory of the process that gathers; workers take the same as ever.
    """

    per_s: float
    peak_bytes: int


def prepare(given: Path, output_dir: Path, count: int, *flags: str) -> Run:
    program = (
        "import sys, resource; from conf.errors import run_command; "
        "from trainer.__main__ import main; code = run_command(main, sys.argv[1:]); "
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
    )
    command = ["prepare", "--input", str(given), "--output_dir", str(output_dir)]
    started_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, *command, "--workers", "2", "--no_report", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    took_s = time.monotonic() - started_s
    assert done.returncode == 0, done.stderr
    peak = re.search(r"^peak (\d+)$", done.stdout, re.MULTILINE)
    assert peak is not None
    found = Run(count / took_s, 1024 * int(peak.group(1)))
    print(f"{count:,} lines {' '.join(flags)}: {found.per_s:,.0f} a second", end=", ")
    print(f"{found.peak_bytes / MB:.0f} MB, {took_s:.0f} s in all")
    return found


def test_recordings_of_their_own(tmp_path: Path) -> None:
    """Each line has a recording of its own, and only its header is read; then all of them are."""
    source = write_wav(tmp_path / "one.wav", 2.0)
    directory = tmp_path / "wav"
    directory.mkdir()
    given = tmp_path / "m.jsonl"
    with given.open("w", encoding="utf-8") as file:
        for number in range(NUM_FILES):
            path = shutil.copy(source, directory / f"{number}.wav")
            line = f'{{"key": "k{number}", "source": "{path}", "target": "第{number}句话"}}\n'
            file.write(line)
    headers = prepare(given, tmp_path / "headers", NUM_FILES, "--no_scan")
    prepare(given, tmp_path / "all", NUM_FILES, "--keep", "duplicate_content")
    assert headers.per_s >= PER_S


def test_a_million_lines_take_linear_time_and_little_memory(tmp_path: Path) -> None:
    for number in range(NUM_SHARED):
        write_wav(tmp_path / f"{number}.wav", 2.0, seed=number)
    runs = {}
    for count in (100_000, 1_000_000):
        given = tmp_path / f"{count}.jsonl"
        with given.open("w", encoding="utf-8") as file:
            for number in range(count):
                call, source = number // 20, number % NUM_SHARED
                file.write(
                    f'{{"key": "k{number}", "source": "{source}.wav", "target": "第{number}句话", '
                    f'"call": "c{call}", "speaker": "s{call // 10}"}}\n'
                )
        runs[count] = prepare(given, tmp_path / f"out-{count}", count, "--no_scan")
    small, large = runs.values()
    assert large.per_s >= max(PER_S, 0.8 * small.per_s)
    # Some numbers a line stay in memory; a line itself has some hundred bytes.
    assert (large.peak_bytes - small.peak_bytes) / 900_000 < 300
