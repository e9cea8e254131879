"""Processes that a sweep started are found again by what they inherited, and ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sweeps.execute.orphans import MARK, children, end_marked, marked
from tests.conftest import ROOT, until

pytestmark = pytest.mark.quick


@contextmanager
def sleeping(**environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that would outlive its driver."""
    with subprocess.Popen(["sleep", "1000"], env={**os.environ, **environment}) as process:
        try:
            yield process
        finally:
            process.kill()


def test_what_a_driver_left_is_ended_and_nothing_else(tmp_path: Path) -> None:
    ours, other = tmp_path / "calls", tmp_path / "calls2"
    with sleeping(**{MARK: str(ours)}) as left, sleeping(**{MARK: str(other)}) as foreign:
        until(lambda: marked(ours) == [left.pid])
        until(lambda: marked(other) == [foreign.pid])
        assert end_marked(ours) == 1
        assert marked(ours) == []
        assert left.wait() < 0
        assert foreign.poll() is None
    assert end_marked(ours) == 0


def test_the_driver_itself_is_never_among_them(tmp_path: Path) -> None:
    """One that is started from a marked process inherits the mark."""
    code = (
        "import sys; from pathlib import Path; from sweeps.execute.orphans import marked\n"
        "print(marked(Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, MARK: str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_children_are_those_of_this_process_that_are_alive() -> None:
    with sleeping() as process:
        until(lambda: children(["sleep"]) == {process.pid: "sleep"})
        assert children(["raylet"]) == {}
        process.kill()
        until(lambda: children(["sleep"]) == {})  # dead, though nobody has asked how it ended
        assert children(["sleep"], dead=True) == {process.pid: "sleep"}
        process.wait()
        assert children(["sleep"], dead=True) == {}
