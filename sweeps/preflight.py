"""The checks before a sweep: everything it will read is there and readable, and the machine has
what a trial asks for. Nothing heavy is imported, nothing is created.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from conf.checks import CHECKS, Part
from conf.document.numbers import size
from conf.errors import ConfigError, DataError, UserError, WorkError
from conf.load import Config, stage_config_path
from conf.model_dir import find_copy
from conf.progress import Progress, sized
from conf.reading import Document
from sweeps.directory import SweepDirectory
from sweeps.execute.environment import for_commands
from sweeps.execute.orphans import MARK
from sweeps.spec.sweep_file import DEMO, DEMO_CORPUS, Places, SweepFile, load_sweep, stage_configs
from trainer.checks.run_checks import ChecksFailed, failed, one_line, run_checks
from trainer.data.manifest import read_data_list, read_headers
from trainer.tracking.mlflow_store import EXPERIMENT

if TYPE_CHECKING:
    from trainer.checks.model_checks import Need

_CONFIG_ALONE: tuple[Part, ...] = ("config",)
_CONNECT_S = 5.0
_DATABASES = ("postgresql", "mysql", "mssql", "databricks", "databricks-uc")
_MODEL_FILES = ("config.yaml", "model.pt")


def check_places(sweep: SweepFile, places: Places, *, starts: bool = True) -> tuple[str, ...]:
    """Check the base's directory and the resources.

    Args:
        sweep: The sweep.
        places: Where its keys stand.
        starts: False, for a dry run, lets weights and devices be missing.

    Returns:
        What is missing and may be.

    Raises:
        UserError: All that is wrong, each with the sweep file's line.
    """
    problems: list[str] = []
    lacking: list[str] = []
    base = Path(sweep.base)
    missing = [name for name in _MODEL_FILES if not (base / name).is_file()]
    if not base.is_dir():
        try:
            find_copy(sweep.base, f"{places.where('base')}: base")
        except ConfigError as error:
            problems += error.problems
    elif missing:
        (lacking if missing == ["model.pt"] else problems).append(
            f"{places.where('base')}: base: got {sweep.base!r} (no {' and no '.join(missing)}), "
            f"expected a model directory with {' and '.join(_MODEL_FILES)}"
        )
    for kind, asked, there in (
        ("cpu", sweep.resources.cpu, os.cpu_count() or 1),
        ("gpu", sweep.resources.gpu, num_gpus()),
    ):
        if asked > there:
            key = f"resources.{kind}"
            lacking.append(
                f"{places.where(key)}: {key}: got {asked:g}, expected at most {there} here"
            )
    if problems or (lacking and starts):
        raise UserError([*problems, *lacking])
    return tuple(lacking)


def check_configs(sweep: SweepFile, configs: Mapping[str, Config], *, starts: bool = True) -> None:
    """Run the checks before training on every stage's default config; searched keys may differ.

    Args:
        sweep: The sweep.
        configs: By stage.
        starts: False, for a dry run, lets weights be missing.

    Raises:
        ChecksFailed: One line per failed check, with its stage.
        ConfigError: `skip_checks` names a check that there is not.
    """
    problems = []
    skipped = (*sweep.skip_checks, *(() if starts else ("init-param",)))
    for stage, config in configs.items():
        searched = sweep.ranges(stage)
        results = run_checks(config, skip=skipped, parts=_CONFIG_ALONE, searched=searched)
        problems += [f"stage {stage}: {one_line(result)}" for result in failed(results)]
    if problems:
        raise ChecksFailed("\n".join(problems))


def check_weights(sweep: SweepFile) -> None:
    """Check that the base's weights are those of the model that its config.yaml describes.

    They are loaded as every trial loads them, in a process of its own, since the driver keeps
    neither PyTorch nor a model in memory.

    Args:
        sweep: Its weights have to be there.

    Raises:
        DataError: The model cannot be built from its directory.
        WorkError: The process ended in another way.
    """
    command = [sys.executable, "-m", "trainer", "check", "--model", sweep.base, "--json"]
    command += ["--config", str(stage_config_path(sweep.stages[0])), "++device=cpu"]
    others = (id for id in CHECKS if id != "coverage")
    command += [word for id in others for word in ("--skip-check", id)]
    with Progress().step("checking the weights"):
        done = subprocess.run(
            command,
            env={**for_commands(os.environ), MARK: str(SweepDirectory.of(sweep.name).root)},
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        [coverage] = (one for one in json.loads(done.stdout) if one["id"] == "coverage")
    except ValueError as error:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise WorkError(f"checking the weights of {sweep.base}: {last}") from error
    if coverage["status"] == "failed":
        raise DataError(coverage["found"])


def check_data(sweep: SweepFile, places: Places) -> None:
    """Read every manifest and every audio header that trials will read.

    Raises:
        DataError: All that is wrong, with manifest and line.
    """
    problems: list[str] = []
    for split, path in sweep.data.splits().items():
        where = places.where(f"data.{split}")
        if not Path(path).is_file():
            problems.append(
                f"{where}: data.{split}: got {path!r} (no such file), expected a manifest"
            )
            continue
        try:
            read_headers(read_data_list(path))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)


def check_store(environment: Mapping[str, str]) -> None:
    """Check what can be known of the MLflow store without its client, which takes seconds to load.

    Raises:
        UserError: A server that does not answer, a database that cannot be written, an experiment
            that was deleted.
    """
    uri = environment.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            socket.create_connection((parts.hostname or "", port), timeout=_CONNECT_S).close()
        except OSError as error:
            raise UserError(
                f"MLflow store {uri}: got no answer ({error.strerror or error}), expected a server"
            ) from error
    elif uri.startswith("sqlite:///"):
        _check_database(Path(uri.removeprefix("sqlite:///")), uri, environment)
    elif parts.scheme.partition("+")[0] not in _DATABASES:
        raise UserError(
            f"MLflow store {uri}: got {parts.scheme or 'a directory'}, expected "
            "sqlite:///FILE, another database or a server"
        )


def _check_database(path: Path, uri: str, environment: Mapping[str, str]) -> None:
    place = path if path.exists() else path.parent
    if not os.access(place, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise UserError(
            f"MLflow store {uri}: got {str(place)!r} that cannot be written, expected one that can"
        )
    number = environment.get("MLFLOW_EXPERIMENT_ID")
    name = number or environment.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    column = "experiment_id" if number else "name"
    query = f"SELECT lifecycle_stage FROM experiments WHERE {column} = ?"
    found: tuple[str] | None = None
    try:
        if path.exists():
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
                found = database.execute(query, (name,)).fetchone()
    except sqlite3.OperationalError:  # locked, or not yet one of MLflow's: its client will say
        return
    except sqlite3.DatabaseError as error:
        raise UserError(f"MLflow store {uri}: got {error}, expected a database") from error
    if number and found is None:
        raise UserError(f"MLFLOW_EXPERIMENT_ID: got {number}, expected an experiment of {uri}")
    if found is not None and found[0] != "active":
        raise UserError(f"MLflow experiment {name}: got a deleted one, expected a name in use")


def start(sweep: SweepFile) -> str:
    """Which weights the trials are going to load, and how large they are."""
    return f"sweep {sweep.name}: trials start from {sized(Path(sweep.base) / 'model.pt')}"


def makes_demo_corpus(sweep: SweepFile) -> bool:
    """Whether the data is the demonstration's, which is made on first use."""
    return sweep.data == DEMO


def num_gpus() -> int:
    """Count the GPUs that trials may use, without importing what would take seconds."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return 0
    listing = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False).stdout
    return sum(line.startswith("GPU ") for line in listing.splitlines())


def card_bytes() -> int | None:
    """Memory of the smallest GPU that trials may use; None where no driver says it."""
    tool = shutil.which("nvidia-smi")
    if tool is None or not num_gpus():
        return None
    command = [tool, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        command.append(f"--id={visible.replace(' ', '')}")
    listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    mebibytes = [int(line) for line in listing.split() if line.isdigit()]
    return min(mebibytes) * 2**20 if mebibytes else None


def trials_on_a_card(sweep: SweepFile) -> int:
    """How many trials share a GPU: Ray gives each its part of one, and no part of two."""
    gpu = sweep.resources.gpu
    return min(sweep.concurrency, int(1 / gpu)) if 0 < gpu < 1 else 1


def effective_concurrency(sweep: SweepFile) -> int:
    """How many trials can really run at once; more than the CPUs is the user's choice."""
    gpu = sweep.resources.gpu
    if gpu == 0:
        return sweep.concurrency
    there = num_gpus() * trials_on_a_card(sweep) if gpu < 1 else int(num_gpus() / gpu)
    return max(1, min(sweep.concurrency, there))


def check_cards(sweep: SweepFile, configs: Mapping[str, Config], places: Places) -> None:
    """Check that a GPU holds the trials that share it, while they train and while they evaluate.

    Raises:
        UserError: One line for each stage whose trials do not fit, with both figures.
    """
    card = card_bytes() if sweep.resources.gpu else None
    if card is None:
        return
    from trainer.checks.gpu_forecast import SPARE, memory

    problems = []
    for stage, config in configs.items():
        try:
            need = memory(config.replace(data_places(sweep), "sweep"))
        except WorkError:  # nothing to train on, which the trial says
            continue
        problem = card_problem(sweep, stage, need, (1 - SPARE) * card)
        if problem is not None:
            problems.append(f"{places.where('resources.gpu')}: resources.gpu: {problem}")
    if problems:
        raise UserError(problems)


def card_problem(sweep: SweepFile, stage: str, need: Need, holds: float) -> str | None:
    """Say why a GPU does not hold the trials that share it; None where it does.

    Args:
        sweep: The sweep.
        stage: Of the trials.
        need: Memory of one of them.
        holds: Bytes of a GPU that trials may take.
    """
    count = trials_on_a_card(sweep)
    if count * need.peak <= holds:
        return None
    trials = f"{count} trials" if count > 1 else "a trial"
    each = f" ({count} times {size(need.peak)})" if count > 1 else ""
    if fitting := int(holds / need.peak):
        helps = f"resources.gpu {1 / fitting:.4g} puts {fitting} on a GPU"
    elif need.training <= holds:
        helps = "a smaller finetune_conf.eval_batch_size needs less"
    else:
        helps = "a smaller dataset_conf.batch_size with a larger train_conf.accum_grad needs less"
    return (
        f"got {sweep.resources.gpu:g}: {trials} of stage {stage} on a GPU, which "
        f"{'take' if count > 1 else 'takes'} {size(count * need.peak)}{each} in "
        f"{'training' if need.training >= need.evaluation else 'evaluation'}, expected at most "
        f"{size(holds)} of its memory; {helps}"
    )


def data_places(sweep: SweepFile) -> dict[str, str | None]:
    """What a stage's config lacks for a forecast: the data, and where it runs."""
    return {
        "train_data_set_list": sweep.data.train,
        "valid_data_set_list": sweep.data.valid,
        "finetune_conf.test_data_set_list": sweep.data.test,
        "finetune_conf.wideband_data_set_list": sweep.data.wideband,
        "device": "cuda:0" if sweep.resources.gpu else "cpu",
    }


def check(
    path: Path | Document,
    *,
    name: str | None = None,
    overrides: Sequence[str] = (),
    starts: bool = True,
) -> tuple[SweepFile, dict[str, Config], tuple[str, ...]]:
    """Check everything that can be checked before a sweep; makes nothing but the demo corpus.

    Args:
        path: The sweep file.
        name: Takes the place of the file's `name`.
        overrides: `key=value` over the file.
        starts: False, for a dry run, lets weights and devices be missing.

    Returns:
        The sweep, every stage's default config, and what is missing and may be.
    """
    sweep, places = load_sweep(path, name=name, overrides=overrides)
    lacking = check_places(sweep, places, starts=starts)
    configs = stage_configs(sweep, places)
    check_configs(sweep, configs, starts=starts)
    if sweep.warm_start is not None:
        from sweeps.search.warm_start import check_warm_start

        check_warm_start(sweep, configs, places)
    if makes_demo_corpus(sweep):
        from trainer.demo.corpus import ensure

        ensure(DEMO_CORPUS)
    check_data(sweep, places)
    check_cards(sweep, configs, places)
    return sweep, configs, lacking
