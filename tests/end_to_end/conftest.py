"""A user's directory: a copy of the project's tracked files, and commands run in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PROJECT = ("MLproject", "analysis", "conf", "sweeps", "trainer")


class Workspace:
    """A directory with the project in it, as after `git clone`.

    Args:
        directory: Where it lies.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in PROJECT:
            source, target = ROOT / name, directory / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target)

    def run(
        self, *command: str, timeout_s: float = 900, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command there or elsewhere, its output captured."""
        return subprocess.run(
            command,
            cwd=cwd or self.directory,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def python(
        self, *arguments: str, timeout_s: float = 900, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs `python ARGUMENTS` there or elsewhere and expects success."""
        finished = self.run(sys.executable, *arguments, timeout_s=timeout_s, cwd=cwd)
        assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
        return finished


def clean_environment() -> dict[str, str]:
    """This process's environment without anything of MLflow's, with its interpreter first."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "RAY"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["OMP_NUM_THREADS"] = "1"
    environment.pop("PYTHONPATH", None)
    return environment


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("workspace"))
