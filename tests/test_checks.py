"""What every change must pass beside its tests: lint, format, types, imports, speed of help."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT


def _run(*command: str) -> None:
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.parametrize("command", [("check",), ("format", "--check")], ids=["lint", "format"])
def test_ruff(command: tuple[str, ...]) -> None:
    _run(sys.executable, "-m", "ruff", *command, ".")


def test_types() -> None:
    _run(sys.executable, "-m", "mypy")


def test_imports_go_one_way() -> None:
    _run(sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()")


@pytest.mark.parametrize("package", ["trainer", "analysis", "sweeps"])
def test_help_answers_within_a_second(package: str) -> None:
    times_s = []
    for _ in range(3):
        started_s = time.perf_counter()
        _run(sys.executable, "-m", package, "--help")
        times_s.append(time.perf_counter() - started_s)
    assert min(times_s) < 1.0  # the best of three: another process may hold the core
