"""A sweep's directory: who may use it, and for which sweep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conf.errors import ConfigError
from sweeps.directory import SweepDirectory
from sweeps.spec.sweep_file import load_sweep
from tests.sweeps.conftest import ROOT

pytestmark = pytest.mark.quick

SECOND = """
import sys
from pathlib import Path
from conf.errors import run_command
from sweeps.directory import SweepDirectory

def main(argv):
    with SweepDirectory(Path(argv[0])).locked():
        return 0

sys.exit(run_command(main, sys.argv[1:]))
"""


def test_a_second_driver_is_refused_by_the_firsts_pid(tmp_path: Path) -> None:
    directory = SweepDirectory(tmp_path / "sweep")
    command = [sys.executable, "-c", SECOND, str(directory.root)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with directory.locked():
        assert directory.root.exists()
        second = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
    assert second.returncode == 2
    assert f"being run by pid {os.getpid()} since" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert not directory.root.exists()  # nothing came of it


def test_what_another_start_may_change(place: Path) -> None:
    directory = SweepDirectory.of("tiny")
    directory.create(load_sweep(Path("sweep.yaml"))[0])
    directory.refuse_changes(
        load_sweep(Path("sweep.yaml"), overrides=["trials=9", "concurrency=1"])[0]
    )
    with pytest.raises(ConfigError, match="set.optim_conf.lr: got 0.002, expected 0.001 as in"):
        directory.refuse_changes(
            load_sweep(Path("sweep.yaml"), overrides=["optim_conf.lr=2e-3"])[0]
        )


def test_base_scores_become_metrics(tmp_path: Path) -> None:
    directory = SweepDirectory(tmp_path)
    assert directory.base_metrics() == {}
    directory.base.mkdir()
    scores = {"valid": {"cer": 0.5, "cer_ctc": 0.4, "normalisation": "v1"}}
    (directory.base / "scores.json").write_text(json.dumps(scores))
    assert directory.base_metrics() == {"valid/cer": 0.5, "valid/cer_ctc": 0.4}
