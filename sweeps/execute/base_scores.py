"""The base's own scores: a child process that decodes every set once, beside Ray's start.

Its texts are those of every trial before training, which waits for them where their settings are
the same (`trainer.evaluation.shared_outputs`).
"""

from __future__ import annotations

import os
import subprocess
import sys

from sweeps.directory import SweepDirectory
from sweeps.execute.environment import for_commands
from sweeps.execute.orphans import MARK
from sweeps.spec.sweep_file import SweepFile

_SPLITS = ("valid", "wideband", "test")
"""Those first that trials wait for."""
_DECODING = (
    *("finetune_conf.max_new_tokens", "finetune_conf.eval_batch_size"),
    "frontend_conf.dither",
)
_AS_STAGES = {"frontend_conf.dither": 0.0}
"""The released configuration sets none, which would be FunASR's 1.0: other texts in each call."""


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
            self._process = self._start()
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
        """Wait for the scores.

        A start of Ray that fails is cleared of all its sweep's processes, this one among them:
        killed, it is started again.
        """
        if self._process is not None and self._process.wait() < 0:
            self._process = self._start()
            self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        self._directory.base.mkdir(exist_ok=True)
        with (self._directory.base / "evaluate.log").open("wb") as log:
            return subprocess.Popen(
                evaluate_command(self._sweep, self._directory),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**for_commands(os.environ), MARK: str(self._directory.root)},
                start_new_session=True,  # Ctrl-C is the driver's to handle
            )


def evaluate_command(sweep: SweepFile, directory: SweepDirectory) -> list[str]:
    """The command that scores the base, decoding as the trials do."""
    paths = sweep.data.splits()
    sets = [f"{split}={paths[split]}" for split in _SPLITS if split in paths]
    decoding = _AS_STAGES | {key: sweep.set[key] for key in _DECODING if key in sweep.set}
    command = [sys.executable, "-m", "trainer", "evaluate", "--model", sweep.base, "--data", *sets]
    command += ["--output_dir", str(directory.base), "--shared", str(directory.shared)]
    return [*command, *(f"++{key}={value}" for key, value in decoding.items())]
