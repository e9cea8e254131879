"""Ray Tune as the executor: it places trials on processes and retries those that die.

What to run, what was found and when a trial ends are the ledger's business; Tune is started afresh
each time and its own files are thrown away.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from conf.errors import UserError
from sweeps.ledger import Ledger
from sweeps.searcher import StudySearcher
from sweeps.space import SweepFile
from sweeps.state import SweepDirectory, TrialState
from sweeps.trial import Finetune, run_trial

_MAX_WORKER_DEATHS = 2  # of one trial; then it has failed
_OBJECT_STORE_BYTES = 200_000_000  # trials pass numbers, no arrays
_ROOT = Path(__file__).parent.parent

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # data paths are relative to the working directory
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours ends the sweep in order
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # the study is the record
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "true",
}
_NOT_FOR_WORKERS = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")


class Verdicts(FIFOScheduler):
    """Passes every result to the searcher, whose study says whether the trial goes on."""

    def __init__(self, searcher: StudySearcher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._searcher = searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Book a result; a trial that is pruned, or has told its outcome, is stopped."""
        goes_on = self._searcher.record(trial.trial_id, result)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)


@contextmanager
def cluster(sweep: SweepFile, concurrency: int) -> Iterator[None]:
    """Start a Ray of our own on this machine; ends with its processes gone.

    Raises:
        UserError: Ray finds fewer GPUs than one trial asks for.
    """
    resources = sweep.resources
    with _environment():
        ray.init(
            address="local",  # a cluster left running by someone else is not joined
            num_cpus=math.ceil(concurrency * resources.cpu),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    # After the run Tune looks for result files, which nobody needs, and warns of each.
    logging.getLogger("ray.tune.analysis").setLevel(logging.ERROR)
    try:
        gpus = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
        if gpus < resources.gpu:
            raise UserError(f"resources.gpu: got {resources.gpu:g}, expected at most {gpus:g} here")
        yield
    finally:
        ray.shutdown()


def run_trials(
    directory: SweepDirectory,
    sweep: SweepFile,
    ledger: Ledger,
    concurrency: int,
    on_change: Callable[[TrialState], None],
    finetune: Finetune | None = None,
) -> None:
    """Run trials until the study has all it wants; call it inside `cluster`.

    Args:
        directory: The sweep's directory, which workers read and write.
        sweep: The sweep.
        ledger: Its study.
        concurrency: Trials under way at once.
        on_change: Called in this thread with every new state of a trial.
        finetune: Training function of the workers; default: the real one.
    """
    gpu = sweep.resources.gpu
    searcher = StudySearcher(ledger, concurrency, on_change)
    root, working_directory = directory.root, os.getcwd()

    def work(config: dict[str, Any]) -> None:
        os.chdir(working_directory)
        run_trial(root, config["trial"], tune.report, finetune)

    directory.drop_ray_files()
    tuner = tune.Tuner(
        tune.with_resources(work, {"cpu": sweep.resources.cpu, "gpu": gpu}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=Verdicts(searcher),
            num_samples=-1,  # the searcher says when it is enough
            # A GPU's memory is freed for certain only when the process ends.
            reuse_actors=gpu == 0,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(directory.ray),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=_MAX_WORKER_DEATHS),
        ),
    )
    tuner.fit()


@contextmanager
def _environment() -> Iterator[None]:
    """What Ray's processes, and so the workers, inherit; the driver's own is as before."""
    before = dict(os.environ)
    paths = [str(_ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in _NOT_FOR_WORKERS:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        _restore(before)


def _restore(environment: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(environment):
        if name not in _ENVIRONMENT:  # Tune reads these in the driver, later
            del os.environ[name]
    os.environ.update(environment)
