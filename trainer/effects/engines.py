"""Runs of the two engines, stock FunASR's training and ours, under the same watch."""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy
import torch

from conf.load import Config, flatten
from conf.reading import put
from trainer.data.manifest import read_data_list
from trainer.effects.trace import Reads, traced, wrap
from trainer.effects.values import Engine
from trainer.effects.watch import Changed, Watcher, note_files, watching
from trainer.finetune import stock_engine
from trainer.finetune.run import finetune
from trainer.funasr_parts import load

_UNWATCHED_METRIC = "train/utterances_per_s"
_WATCHED_TAGS = ("stage", "trainable", "checkpoint", "device", "init.sha256", "data.sha256")


def observe(
    engine: Engine, config: Config, changes: Mapping[str, Any], *, keep_output: bool = False
) -> Watcher:
    """What a run does, from its first parameter to its last file."""
    watcher = Watcher()
    _run(engine, config, changes, watcher, keep_output=keep_output)
    return watcher


def compare(
    engine: Engine,
    config: Config,
    changes: Mapping[str, Any],
    expected: Watcher,
    *,
    keep_output: bool = False,
) -> str | None:
    """The kind of the first thing that a run with changed values does differently.

    Args:
        engine: Whose run.
        config: The stage on the scene.
        changes: Values by dotted key, of any type: no schema stands before them.
        expected: Of the run without the change that is looked for.
        keep_output: Leave what is in the output directory.

    Returns:
        None if it does the same.
    """
    watcher = Watcher(expected)
    try:
        _run(engine, config, changes, watcher, keep_output=keep_output)
    except Changed as change:
        return change.kind
    return watcher.finish()


def trace(engine: Engine, config: Config) -> Reads:
    """Which keys a run reads."""
    reads = Reads()
    _run(engine, config, {}, Watcher(), reads)
    if engine == "stock":
        _trace_distribution(config, reads)
    return reads


def _run(
    engine: Engine,
    config: Config,
    changes: Mapping[str, Any],
    watcher: Watcher,
    reads: Reads | None = None,
    *,
    keep_output: bool = False,
) -> None:
    output_dir = Path(config["output_dir"])
    if not keep_output:
        for directory in (output_dir, changes.get("output_dir", output_dir)):
            shutil.rmtree(directory, ignore_errors=True)
    _seed()
    run = _run_stock if engine == "stock" else _run_ours
    with watching(watcher):
        try:
            run(config, changes, watcher, reads)
        except Exception as error:  # a value that is refused is a value that is read
            if reads is not None:
                raise
            watcher.note("error", type(error).__name__)
        note_files(watcher, output_dir)


def _run_stock(
    config: Config, changes: Mapping[str, Any], watcher: Watcher, reads: Reads | None
) -> None:
    # Our own block is offered as well: stock is to show that it does not read it.
    arguments = {**stock_engine.arguments(config), "finetune_conf": config["finetune_conf"]}
    arguments = changed(arguments, changes)
    source = read_data_list(config["valid_data_set_list"])[0].source
    if reads is None:
        run = stock_engine.train(arguments)
        watcher.without_gradient = "inference"
        watcher.note("inference", run.transcribe(source))
        return
    # Stock's copy of the configuration for its output directory would go through every key.
    # And it copies train_conf, only to read it.
    command = stock_engine.training_module()
    with (
        stock_engine.replaced(command, "prepare_model_dir", lambda **_: None),
        mock.patch.object(command, "dict", lambda values: values, create=True),
        traced(reads),
    ):
        stock_engine.train(wrap(arguments, reads)).transcribe(source)


def _run_ours(
    config: Config, changes: Mapping[str, Any], watcher: Watcher, reads: Reads | None
) -> None:
    values = changed(config.values, changes)
    stage = values["finetune_conf"]["stage"]
    if reads is not None:
        values = wrap(values, reads)
    with nullcontext() if reads is None else traced(reads):
        finetune(dataclasses.replace(config, values=values, stage=stage), _Tracker(watcher))


def _trace_distribution(config: Config, reads: Reads) -> None:
    """Follows stock to where it would distribute a model over GPUs, with nothing to distribute."""
    command = stock_engine.training_module()
    module = load("funasr.train_utils.trainer_ds")

    class Distributed(command.Trainer):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            self.use_deepspeed, self.use_ddp = False, True

    class Model:
        def cuda(self, _: int) -> Model:
            return self

    values = {
        name: value for name, value in stock_engine.arguments(config).items() if name != "model"
    }
    arguments = wrap(values, reads)
    with stock_engine.replaced(module, "DDP", lambda model, **_: model), traced(reads):
        Distributed().warp_model(Model(), **arguments)


def changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested values with some of them replaced or added."""
    copied = {
        name: changed(value, {}) if isinstance(value, dict) else value
        for name, value in values.items()
    }
    for key, value in changes.items():
        put(copied, key, value)
    return copied


def present(config: Config, engine: Engine) -> dict[str, Any]:
    """The values that a run of an engine gets, by dotted key."""
    return flatten(stock_engine.arguments(config) if engine == "stock" else config.values)


class _Tracker:
    """A tracker that is watched: metrics and tags, but not the copy of the configuration."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Every key is logged, whoever reads it."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        watched = {name: value for name, value in tags.items() if name in _WATCHED_TAGS}
        if watched:
            self._watcher.note("logs", watched)

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        watched = {name: value for name, value in metrics.items() if name != _UNWATCHED_METRIC}
        self._watcher.note("logs", [step, watched])

    def log_artifact(self, path: Path, name: str | None = None) -> None:
        """Files are looked at when the run is over."""


def _seed() -> None:
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)
