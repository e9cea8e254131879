"""What a trial's start takes, up to its first update, next to how stock FunASR builds the model.

    python -m trainer demo --released-size models/released
    python -m tests.benchmarks.start models/released                # s3, three times: 3 minutes
    python -m tests.benchmarks.start models/released --stage 8k --update

Each side has a process of its own and one thread, in turn with the other. A line is a step: its CPU
seconds, user and system, as the median of the repetitions, and the most memory that the process has
had until its end, mapped files included. Of our side what is not measured is the scoring of the
untouched base, once per sweep, before the first update; with `--update` that update is the last
step. Stock's side is `AutoModel(model=DIR)`, which has no data and no optimizer yet.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

GOAL_CPU_S, GOAL_GB = 8.0, 4.0
_SIDES = ("stock", "ours")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


class Steps:
    """CPU time of what lies between two marks, and the peak at each."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []
        self._before_s = 0.0  # the interpreter's own start counts

    def mark(self, step: str) -> None:
        """End a step; one of the same name goes on."""
        now_s = time.process_time()
        peak_gb = int(_status("VmHWM")) / 1e6
        if not self.found or self.found[-1]["step"] != step:
            self.found.append({"step": step, "cpu_s": 0.0, "peak_gb": 0.0})
        self.found[-1]["cpu_s"] += now_s - self._before_s
        self.found[-1]["peak_gb"] = peak_gb
        self._before_s = now_s

    def around(self, before: str, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that is a step; what ran since the last mark is the step `before`."""

        @functools.wraps(function)
        def call(*arguments: Any, **more: Any) -> Any:
            self.mark(before)
            try:
                return function(*arguments, **more)
            finally:
                self.mark(step)

        return call


def _status(name: str) -> str:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return found[1]


class _ReachedError(Exception):
    """The first update is there."""


def ours(request: dict[str, Any]) -> list[dict[str, Any]]:
    """`finetune`, as a trial calls it, up to its first update."""
    steps = Steps()
    from conf.load import load_config, stage_config_path

    settings = {
        "train_data_set_list": request["train"],
        "valid_data_set_list": request["train"],
        "output_dir": request["directory"],
        "device": "cpu",
        "dataset_conf.batch_type": "example",
        "dataset_conf.batch_size": 2,
        "dataset_conf.num_workers": 0,
        "train_conf.accum_grad": 1,
        "finetune_conf.num_threads": 1,
    }
    config = load_config(
        stage_config_path(request["stage"]),
        init_param=Path(request["model"]) / "model.pt",
        layers=[("benchmark", settings)],
    )
    steps.mark("Python, configuration")
    import torch  # noqa: F401

    steps.mark("import of torch")
    from trainer import funasr_parts
    from trainer.data.array_store import ArrayStore
    from trainer.finetune import loop, run
    from trainer.model import build

    funasr_parts.load("funasr.register")
    steps.mark("import of FunASR's parts")
    rest = "the rest"
    for module, name, before, step in (
        (build, "text_codec", rest, "tokenizers"),
        (build, "load_weights", "model without memory", "weights"),
        (ArrayStore, "content_sha256", "weights", "SHA-256 of the weights, once for all trials"),
    ):
        setattr(module, name, steps.around(before, step, getattr(module, name)))
    update = loop.Trainer._update

    def reached(self: loop.Trainer, group: Any) -> bool:
        steps.mark("data, optimizer, first batch")
        if request["update"]:
            update(self, group)
            steps.mark("first update")
        raise _ReachedError

    loop.Trainer._update = reached  # type: ignore[method-assign]
    run._Run._score_epoch = lambda *_: {}  # type: ignore[method-assign,assign,return-value]
    from trainer.tracking.event_log import NullTracker

    with contextlib.suppress(_ReachedError):
        run.finetune(config, NullTracker())
    return steps.found


def stock(request: dict[str, Any]) -> list[dict[str, Any]]:
    """`AutoModel`, as FunASR's users and its training build the model."""
    steps = Steps()
    import torch

    steps.mark("import of torch")
    torch.set_num_threads(1)
    from funasr import AutoModel

    steps.mark("import of FunASR")
    AutoModel(model=request["listed"], device="cpu", ncpu=1, disable_update=True)
    steps.mark("tokenizers, model, weights")
    return steps.found


def measure(side: str, request: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of one side, in a fresh process."""
    with tempfile.TemporaryDirectory() as directory:
        asked = {**request, "directory": f"{directory}/run"}
        command = [sys.executable, "-m", "tests.benchmarks.start", "--child", side]
        done = subprocess.run(
            [*command, json.dumps(asked)],
            cwd=ROOT,
            env={**os.environ, **_ONE_THREAD},
            stdout=subprocess.PIPE,
            text=True,
        )
    if done.returncode:
        raise SystemExit(done.returncode)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def _with_vocabulary_listed(model: Path, directory: Path) -> Path:
    """The same model for stock, which finds its CTC vocabulary by `configuration.json` alone."""
    from conf.files import write_json
    from trainer.demo.released_size import LLM_FOLDER
    from trainer.demo.tiny_base import configuration

    directory.mkdir()
    for path in model.absolute().iterdir():
        (directory / path.name).symlink_to(path)
    (directory / "configuration.json").unlink()
    listed = configuration(LLM_FOLDER, ctc_vocabulary=True)
    write_json(directory / "configuration.json", listed)
    return directory


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.start",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="DIR")
    parser.add_argument("--stage", default="s3")
    parser.add_argument("--update", action="store_true", help="make the first update, too")
    parser.add_argument("--repetitions", type=int, default=3, metavar="N")
    parser.add_argument("--only", choices=_SIDES, metavar="SIDE")
    options = parser.parse_args(arguments)
    sides = [options.only] if options.only else _SIDES
    with tempfile.TemporaryDirectory() as directory:
        from tests.conftest import write_cut
        from trainer.demo.corpus import ensure

        train = write_cut(
            ensure(ROOT / "data" / "demo"), "train", 8, Path(directory, "train.jsonl")
        )
        request = {
            "model": str(Path(options.model).absolute()),
            "listed": str(_with_vocabulary_listed(Path(options.model), Path(directory, "model"))),
            "stage": options.stage,
            "update": options.update,
            "train": str(train),
        }
        runs = [
            {side: measure(side, request) for side in sides} for _ in range(options.repetitions)
        ]
    for side in sides:
        print(f"\n{side}")
        total_s = 0.0
        for steps in zip(*(run[side] for run in runs), strict=True):
            cpu_s = statistics.median(step["cpu_s"] for step in steps)
            total_s += cpu_s
            peak_gb = max(step["peak_gb"] for step in steps)
            print(f"  {steps[0]['step']:44s} {cpu_s:6.2f} s CPU, {peak_gb:5.2f} GB until its end")
        print(f"  {'in all':44s} {total_s:6.2f} s CPU")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):  # FunASR prints
            steps = {"ours": ours, "stock": stock}[sys.argv[2]](json.loads(sys.argv[3]))
        print(json.dumps(steps))
        sys.exit()
    sys.exit(main(sys.argv[1:]))
