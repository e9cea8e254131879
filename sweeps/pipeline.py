"""Sweeps in a row, each from the best of the one before: `python -m sweeps pipeline FILE`.

outputs/pipelines/NAME/
    pipeline.json     the SHA-256 of the weights that each step started from
    1-s1.yaml         the step as a sweep of its own: `python -m sweeps run` goes on with it, too
    1-s1/             the best of it, exported: model/ is the next step's base
    provenance.json   the chain from the base to the best of the last step
    lock              who runs it

Every step is an ordinary sweep, so whatever ends the pipeline, the same command goes on: a sweep
goes on by itself, and a step is over when its model directory holds `provenance.json`, which is
written last.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from analysis.export.provenance import PROVENANCE, SPLITS, Link, Provenance, read, seal
from conf import progress
from conf.document import numbers
from conf.errors import ConfigError, DataError
from conf.files import file_sha256, locked_directory, write_json, write_text
from sweeps import preflight
from sweeps.console.view import say
from sweeps.directory import SweepDirectory, sweep_text
from sweeps.execute.process import Signals, own_console
from sweeps.pipeline_file import Pipeline, Step, load_pipeline
from sweeps.run import run_sweep
from trainer.data.manifest import read_data_list

if TYPE_CHECKING:
    from sweeps.trial import Finetune
    from trainer.tracking.mlflow_store import Store

PIPELINES = Path("outputs/pipelines")

Package = Callable[[str, "Store", Path], object]
"""Makes the best of a sweep a directory that holds `model/`; default: `export` of
`analysis.export.best_trial`."""


def run_pipeline(
    path: Path,
    *,
    name: str | None = None,
    overrides: Sequence[str] = (),
    dry_run: bool = False,
    finetune: Finetune | None = None,
    package: Package | None = None,
) -> int:
    """Run, resume or just show a pipeline.

    Args:
        path: The pipeline file.
        name: Takes the place of the file's `name`.
        overrides: `key=value` over the file.
        dry_run: Check and show the plan, start nothing.
        finetune: Training function of the workers; default: the real one.
        package: Makes model directories; default: the real one.

    Returns:
        The exit code: 0, or 130/143 after SIGINT/SIGTERM.

    Raises:
        UserError: Nothing has been created.
        WorkError: A step cannot go on, or none of its trials completed.
    """
    pipeline = load_pipeline(path, name=name, overrides=overrides)
    if not dry_run:
        preflight.check_store(os.environ)
    place = PipelineDirectory(PIPELINES / pipeline.name)
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        console = stack.enter_context(own_console())
        if not dry_run:
            stack.enter_context(place.locked())
        base = progress.sized(Path(pipeline.base) / "model.pt")
        say(console, f"pipeline {pipeline.name}: starts from {base}")
        run = _Run(pipeline, place, console, finetune, package)
        console.print(plan(pipeline, run.chain))
        if dry_run:
            _forecast(console, pipeline)
            trials = sum(step.sweep.trials for step in pipeline.steps)
            say(console, f"{len(pipeline.steps)} steps, {trials} trials; nothing was started.")
            return 0
        try:
            code = run.steps()
        except KeyboardInterrupt:
            code = signals.exit_code
        if code:
            say(
                console,
                "pipeline: interrupted; the same command goes on "
                f"(python -m sweeps pipeline {path} ...)",
            )
            return code
        console.print(results(run.chain))
        for line in no_gain(run.chain):
            say(console, line)
        last = pipeline.steps[-1].sweep.name
        say(console, f"next: python -m analysis export --sweep {last} --output_dir exported")
        say(console, f"files: {place.root}")
    return 0


@dataclass(frozen=True)
class PipelineDirectory:
    """The places of one pipeline; nothing is made before `locked`."""

    root: Path

    def sweep_file(self, step: Step) -> Path:
        """A step as a sweep file."""
        return self.root / f"{step.number}-{step.name}.yaml"

    def export(self, step: Step) -> Path:
        """The export of a step's best trial."""
        return self.root / f"{step.number}-{step.name}"

    def model(self, step: Step) -> Path:
        """The model directory of a step's best trial."""
        return self.export(step) / "model"

    @property
    def chain(self) -> Path:
        """The chain to the best of the last step."""
        return self.root / PROVENANCE

    def started(self) -> dict[str, str]:
        """SHA-256 of the weights that each step's sweep has started from, by the sweep's name."""
        path = self.root / "pipeline.json"
        if not path.exists():
            return {}
        started: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["started_from"]
        return started

    def start(self, sweep: str, base_sha256: str) -> None:
        """Note the weights that a sweep starts from, before it does."""
        started = {**self.started(), sweep: base_sha256}
        write_json(self.root / "pipeline.json", {"started_from": started})

    def drop_scratch(self) -> None:
        """Delete what packaging left when it was killed."""
        for path in self.root.glob(".*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the pipeline for this process; nothing is left where nothing was begun.

        Raises:
            UserError: Another process runs it, which the message names; or it cannot be written.
        """
        with locked_directory(self.root, "this pipeline is being run by", "pipeline.json"):
            self.drop_scratch()
            yield


class _Run:
    """A pipeline under way; `chain` is what has been finished of it."""

    def __init__(
        self,
        pipeline: Pipeline,
        place: PipelineDirectory,
        console: Console,
        finetune: Finetune | None,
        package: Package | None,
    ) -> None:
        self._pipeline = pipeline
        self._place = place
        self._console = console
        self._finetune = finetune
        self._package = package or _export
        self._tags: dict[str, str] = {}
        self._opened: Store | None = None
        base = Path(pipeline.base)
        self.chain = Provenance(
            pipeline=pipeline.name,
            steps=len(pipeline.steps),
            base=base.name,
            base_sha256=file_sha256(base / "model.pt"),
        )
        self._restore()

    def steps(self) -> int:
        """Run what is left to run; returns 0, or the exit code of an interrupted sweep."""
        if len(self.chain.links) < len(self._pipeline.steps):
            self._under_mlflow_run()
        for step in self._pipeline.steps:
            if step.number <= len(self.chain.links):
                say(self._console, f"step {step.number} {step.name}: finished")
                continue
            if code := self._sweep(step):
                return code
            self._conclude(step)
        return 0

    def _restore(self) -> None:
        """Find the finished steps, and refuse what does not fit to what was begun."""
        for step in self._pipeline.steps:
            base = self._base(step)
            self._refuse_other_weights(step, base)
            sweep = step.sweep.model_copy(update={"base": str(base.path)})
            try:
                SweepDirectory.of(sweep.name).refuse_changes(sweep)
            except ConfigError as error:
                raise ConfigError(f"step {step.name}: {x}" for x in error.problems) from None
            finished = self._finished(step)
            if finished is None:
                return
            self.chain = finished

    def _refuse_other_weights(self, step: Step, base: _Base) -> None:
        """A sweep that has begun goes on from the weights that it began with."""
        noted = self._place.started().get(step.sweep.name)
        if noted is not None and noted != base.sha256:
            raise ConfigError(
                f"{base.path}: got weights {base.sha256[:12]}, expected {noted[:12]}, from which "
                f"sweep {step.sweep.name} started; give the pipeline another --name"
            )

    def _finished(self, step: Step) -> Provenance | None:
        """The chain to this step, if it is over."""
        last = step.number == len(self._pipeline.steps)
        path = self._place.chain if last else self._place.model(step) / PROVENANCE
        if not path.exists():
            return None
        chain = read(path)
        link = chain.links[-1]
        weights = None if last else file_sha256(self._place.model(step) / "model.pt")
        fits = chain.links[:-1] == self.chain.links and chain.base_sha256 == self.chain.base_sha256
        if not fits or link.model_sha256 != weights:
            raise DataError(
                f"{path}: got a chain to weights {str(link.model_sha256)[:12]}, expected one to "
                f"{str(weights)[:12]} from what the steps before hold now; remove {path.parent} "
                "to have it made again"
            )
        return chain

    def _sweep(self, step: Step) -> int:
        """Run or resume a step's sweep."""
        base = self._base(step)
        self._refuse_other_weights(step, base)
        sweep = step.sweep.model_copy(update={"base": str(base.path)})
        self._place.start(sweep.name, base.sha256)
        head = f"# Step {step.number} of {len(self._pipeline.steps)} of {self._pipeline.path}.\n"
        file = self._place.sweep_file(step)
        write_text(file, head + sweep_text(sweep))
        of = f"step {step.number} of {len(self._pipeline.steps)}"
        say(self._console, f"\n{of}, {step.name}: sweep {sweep.name} from {base.said}")
        tags = {
            **self._tags,
            "pipeline": self._pipeline.name,
            "pipeline.step": str(step.number),
            "pipeline.steps": str(len(self._pipeline.steps)),
            "base.sha256": self.chain.base_sha256,
            "parent.sha256": base.sha256,
        }
        if self.chain.links and not step.own_base:
            before = self.chain.links[-1]
            tags |= {"parent.sweep": before.sweep, "parent.trial": str(before.trial)}
        return run_sweep(file, finetune=self._finetune, tags=tags)

    def _conclude(self, step: Step) -> None:
        """Make a finished sweep's best trial the next step's base, and say where it comes from."""
        began = time.monotonic()
        store = self._store()
        base = self._base(step)
        chain = self.chain.plus(_link(step, base, store))
        if step.number < len(self._pipeline.steps):
            say(self._console, f"step {step.number} {step.name}: packaging and verifying its best")
            goal, model = self._place.export(step), self._place.model(step)
            self._package(step.sweep.name, store, goal)
            chain = seal(model, chain)
            path = model / PROVENANCE
            say(self._console, f"{model}: ready after {numbers.clock(time.monotonic() - began)}")
        else:
            path = self._place.chain
        link = chain.links[-1]
        if link.model_sha256:
            store.set_tags(link.sweep_run_id, {"model.sha256": link.model_sha256})
        store.log_text(link.sweep_run_id, chain.to_json(), PROVENANCE)
        write_text(path, chain.to_json())
        self.chain = chain

    def _base(self, step: Step) -> _Base:
        """The weights that a step starts from; those of the steps before must be there."""
        if step.own_base:
            path = Path(step.sweep.base)
            return _Base(path, file_sha256(path / "model.pt"), str(path))
        if step.number == 1:
            return _Base(Path(self._pipeline.base), self.chain.base_sha256, self._pipeline.base)
        before, link = self._pipeline.steps[step.number - 2], self.chain.links[-1]
        said = f"the best of {link.sweep} (trial {link.trial}, {link.stage})"
        return _Base(self._place.model(before), str(link.model_sha256), said)

    def _under_mlflow_run(self) -> None:
        """Under `mlflow run` its run is the pipeline's, and the sweeps' runs lie under it."""
        inherited = os.environ.get("MLFLOW_RUN_ID")
        if not inherited:
            return
        store = self._store()
        store.set_tags(inherited, {"kind": "pipeline", "pipeline": self._pipeline.name})
        # A sweep would take the inherited run for its own.
        del os.environ["MLFLOW_RUN_ID"]
        os.environ["MLFLOW_EXPERIMENT_ID"] = store.experiment_id
        self._tags = {"mlflow.parentRunId": inherited}
        self._opened = None

    def _store(self) -> Store:
        if self._opened is None:
            from sweeps.mlflow_projector import open_store

            self._opened = open_store(dict(os.environ))
        return self._opened


@dataclass(frozen=True)
class _Base:
    path: Path
    sha256: str
    said: str


def _export(sweep: str, store: Store, goal: Path) -> object:
    from analysis.export.best_trial import export

    return export(sweep, store, goal)


def _link(step: Step, base: _Base, store: Store) -> Link:
    """What a finished sweep adds to the chain.

    Raises:
        DataError: Its best trial started from other weights than the step's base.
    """
    from analysis.export.best_trial import best_trial
    from analysis.facts.comparison import objective_of
    from analysis.facts.records import DEFAULT_OBJECTIVE as VALID
    from analysis.facts.records import load_sweep

    record = load_sweep(step.sweep.name, store)
    trial, value = best_trial(record)
    tags = store.run(trial.run_id).tags
    started_from = tags.get("init.sha256", base.sha256)
    if started_from != base.sha256:
        raise DataError(
            f"sweep {record.name}, trial {trial.trial}: init.sha256: got {started_from[:12]}, "
            f"expected {base.sha256[:12]}, the weights of {base.path}"
        )
    checkpoint = tags.get("checkpoint")
    weights = trial.directory and trial.directory / "checkpoints" / f"{checkpoint}.safetensors"
    return Link(
        step=step.number,
        name=step.name,
        stage=trial.stage,
        sweep=record.name,
        sweep_id=store.run(record.run_id).tags.get("sweep.id", ""),
        sweep_run_id=record.run_id,
        trial=trial.trial,
        trial_run_id=trial.run_id,
        objective=record.objective,
        value=value,
        checkpoint=checkpoint,
        checkpoint_sha256=file_sha256(weights) if weights and weights.is_file() else None,
        config_sha256=tags.get("config.sha256"),
        data_sha256=tags.get("data.sha256"),
        parent=str(base.path),
        parent_sha256=base.sha256,
        model_sha256=None,
        before=_cers(record.base.get),
        after=_cers(
            lambda name: objective_of(trial, name) if name == VALID else trial.metric(name)
        ),
    )


def _cers(metric: Callable[[str], float | None]) -> dict[str, float]:
    found = {split: metric(f"{split}/cer") for split in SPLITS}
    return {split: value for split, value in found.items() if value is not None}


# Showing


def plan(pipeline: Pipeline, chain: Provenance) -> Table:
    """What a pipeline is going to do."""
    table = Table(title=f"pipeline {pipeline.name}", box=None, pad_edge=False, title_justify="left")
    for head in ("step", "stages", "starts from", "trials", "epochs", "searched", "data", ""):
        table.add_column(head)
    sizes: dict[str, int] = {}
    for step in pipeline.steps:
        sweep = step.sweep
        data = []
        for split, path in sweep.data.splits().items():
            sizes.setdefault(path, len(read_data_list(path)))
            data.append(f"{split} {sizes[path]:,}")
        first = step.number == 1 or step.own_base
        table.add_row(
            f"{step.number} {step.name}",
            ", ".join(sweep.stages),
            sweep.base if first else f"best of {pipeline.steps[step.number - 2].name}",
            str(sweep.trials),
            _epochs(step),
            ", ".join(_searched(step)),
            ", ".join(data),
            "finished" if step.number <= len(chain.links) else "",
        )
    return table


def _forecast(console: Console, pipeline: Pipeline) -> None:
    from sweeps.console.cost_forecast import forecast

    for step in pipeline.steps:
        concurrency = preflight.effective_concurrency(step.sweep)
        plan = list(islice(cycle(step.configs.values()), step.sweep.trials))
        name = f"step {step.number} {step.name}"
        with progress.Progress().step(f"{name}: forecasting memory and time"):
            lines = list(forecast(step.sweep, step.configs, concurrency, plan))
        for line in lines:
            say(console, f"{name}: {line}")


def _searched(step: Step) -> Sequence[str]:
    found = (key for stage in step.sweep.stages for key in step.sweep.ranges(stage))
    return [key.rpartition(".")[2] for key in dict.fromkeys(found)]


def _epochs(step: Step) -> str:
    """The default configs' epochs and those that are searched."""
    values: set[Any] = {config["train_conf.max_epoch"] for config in step.configs.values()}
    for stage in step.sweep.stages:
        if found := step.sweep.ranges(stage).get("train_conf.max_epoch"):
            values |= set(found[1].ends)
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}-{high}"


def results(chain: Provenance) -> Table:
    """CER before and after each step, both on the step's own sets."""
    table = Table(
        title=f"pipeline {chain.pipeline}", box=None, pad_edge=False, title_justify="left"
    )
    for head in ("step", "trial", *(f"{split}/cer %" for split in SPLITS), "started from"):
        table.add_column(head, justify="right" if head.endswith("%") else "left")
    for link in chain.links:
        origin = "base" if link.step == 1 else Path(link.parent).parent.name
        table.add_row(
            f"{link.step} {link.name}",
            f"{link.trial} {link.stage}",
            *(_change(link.before, link.after, split) for split in SPLITS),
            f"{origin} ({link.parent_sha256[:12]})",
        )
    return table


def no_gain(chain: Provenance) -> list[str]:
    """Say which steps left validation CER where it was, or raised it: the next one starts there."""
    return [
        f"step {link.step} {link.name}: no trial is better than what it started from, "
        f"valid/cer {numbers.rate(before)}"
        for link in chain.links
        if (before := link.before.get("valid")) is not None and link.after.get("valid", 0) >= before
    ]


def _change(before: Mapping[str, float], after: Mapping[str, float], split: str) -> str:
    both = [cers[split] for cers in (before, after) if split in cers]
    return " → ".join(numbers.percent(cer, 2) for cer in both)
