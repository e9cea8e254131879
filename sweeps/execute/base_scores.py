"""The base's own scores: a child process that decodes every set once, beside Ray's start."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from sweeps.directory import SweepDirectory
from sweeps.execute.environment import for_workers
from sweeps.execute.orphans import MARK
from sweeps.spec.sweep_file import SweepFile

_ROOT = Path(__file__).parents[2]
_NICE = 19
_SPLITS = ("valid", "wideband", "test")
_DECODING = ("finetune_conf.max_new_tokens", "finetune_conf.eval_batch_size")


class BaseScores:
    """Scores of the model that trials start from; scores that are there already stay.

    Args:
        directory: The sweep's directory.
        sweep: The sweep.
    """

    def __init__(self, directory: SweepDirectory, sweep: SweepFile) -> None:
        self._directory = directory
        self._sweep = sweep
        self._process: subprocess.Popen[bytes] | None = None
        self._metrics: dict[str, float] = {}

    def __enter__(self) -> BaseScores:
        if not self.metrics():
            self._directory.base.mkdir(exist_ok=True)
            with (self._directory.base / "evaluate.log").open("wb") as log:
                self._process = subprocess.Popen(
                    evaluate_command(self._sweep, self._directory.base),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    env=_environment(self._directory.root),
                    start_new_session=True,  # Ctrl-C is the driver's to handle
                )
            # The first trials come first; Ray gives their workers 15.
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICE)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def metrics(self) -> dict[str, float]:
        """The scores as metrics such as `valid/cer`; empty until they are there."""
        over = self._process is None or self._process.poll() is not None
        if not self._metrics and over:
            self._metrics = self._directory.base_metrics()
        return self._metrics

    def wait(self) -> None:
        """Wait for the scores."""
        if self._process is not None:
            self._process.wait()


def evaluate_command(sweep: SweepFile, output_dir: Path) -> list[str]:
    """The command that scores the base, decoding as the trials do."""
    sets = [f"{split}={path}" for split, path in sweep.data.splits().items() if split in _SPLITS]
    decoding = [f"{key}={sweep.set[key]}" for key in _DECODING if key in sweep.set]
    command = [sys.executable, "-m", "trainer", "evaluate", "--model", sweep.base, "--data", *sets]
    return [*command, "--output_dir", str(output_dir), *(f"++{item}" for item in decoding)]


def _environment(root: Path) -> dict[str, str]:
    environment = for_workers(os.environ)
    paths = [str(_ROOT), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    environment.setdefault("OMP_NUM_THREADS", "1")
    environment[MARK] = str(root)
    return environment
