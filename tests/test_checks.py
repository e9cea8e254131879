"""What every change must pass beside its tests: lint, format, types, imports, speed of help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from subprocess import DEVNULL

import pytest

from tests.conftest import ROOT, cpu_s


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
def test_help_answers_at_once(package: str, torch_s: float) -> None:
    """In CPU time beside that of torch, which it would have to load otherwise."""
    assert cpu_s(sys.executable, "-m", package, "--help", cwd=ROOT, stdout=DEVNULL) < torch_s / 5


SKIPS = (
    "def test_it(): pytest.skip('no browser')",
    "def test_it(): pytest.importorskip('no_such_module')",
    "@pytest.mark.skip\ndef test_it(): pass",
    "@pytest.mark.xfail\ndef test_it(): assert False",
    "pytest.importorskip('no_such_module')",
)
"""Files of tests that are skipped, each in another way."""


@pytest.mark.parametrize("required", ["", "1"])
def test_what_is_skipped_fails_where_all_is_required(tmp_path: Path, required: str) -> None:
    for number, text in enumerate(SKIPS):
        (tmp_path / f"test_{number}.py").write_text(f"import pytest\n{text}\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    options = ["-p", "tests.conftest", "-c", "pytest.ini", "--continue-on-collection-errors", "-rN"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "REQUIRE_ALL": required},
        capture_output=True,
        text=True,
    )
    assert done.returncode == (1 if required else 0), done.stdout
    assert done.stdout.count("skipped with REQUIRE_ALL=1: ") == (len(SKIPS) if required else 0)
