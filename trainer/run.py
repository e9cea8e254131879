"""``finetune``: one fine-tune from a configuration to scored, saved weights.

The same function serves the command line, ``mlflow run``, a trial of a sweep and the tests; it
knows neither MLflow nor Ray. What it learns on the way goes to a tracker, and after each epoch to
``on_eval``, which may raise to end it.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy
import torch

from conf.delta import classify, deltas_json, deltas_markdown
from conf.errors import ConfigError
from conf.load import Config
from trainer import stages
from trainer.batch import BatchSampler
from trainer.checkpoint import Checkpoint, CheckpointFolder, average, load_state
from trainer.evaluate import Scores, evaluate
from trainer.loop import Trainer
from trainer.losses import Objective
from trainer.manifest import Audio, Utterance, fingerprint, read_data_list, read_headers
from trainer.model import Nano, build
from trainer.optim import build_optimizer, build_scheduler
from trainer.score import NORMALISATION
from trainer.tracking import Tracker

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What ``on_eval`` gets after each epoch; epoch 0 is before the first update."""

    epoch: int
    step: int
    metrics: dict[str, float]
    finished: bool


@dataclass(frozen=True)
class FinetuneResult:
    """The checkpoint that would be exported, and its scores."""

    objective: float
    epoch: int
    checkpoint: str
    metrics: dict[str, float]
    output_dir: Path


@dataclass(frozen=True)
class Data:
    """The sets of a fine-tune; evaluation sets by their metric's name."""

    train: Sequence[Utterance]
    train_audios: Sequence[Audio]
    evaluation: Mapping[str, Sequence[Utterance]]
    sha256: str


def ignore_evaluation(_: Evaluation) -> None:
    """The ``on_eval`` of a fine-tune that nobody searches over."""


def finetune(
    config: Config,
    tracker: Tracker,
    on_eval: Callable[[Evaluation], None] = ignore_evaluation,
) -> FinetuneResult:
    """Trains, evaluates each epoch, and keeps the weights of the best validation CER.

    Args:
        config: Names data, initial weights and ``output_dir``.
        tracker: Gets params, tags, metrics (step = optimizer updates) and artifacts.
        on_eval: Called after each epoch's evaluation is logged; what it raises ends the run.

    Returns:
        The best epoch, or the average of the best ones where that is better.

    Raises:
        UserError: Configuration, data or weights are not as they should be.
        WorkError: Training failed, for example by a loss that is not finite.
    """
    torch.set_num_threads(config["finetune_conf.num_threads"])
    data = read_data(config)
    _seed(config["finetune_conf.seed"])
    nano = build(config)
    trainable = stages.apply(nano.model, config)
    run = _Run(config, tracker, nano, data)
    run.describe(trainable)
    run.evaluate_epoch(0)
    run.log()
    on_eval(run.evaluation(finished=False))
    _seed(config["finetune_conf.seed"])
    max_epoch = config["train_conf.max_epoch"]
    for epoch in range(1, max_epoch + 1):
        run.train_epoch(epoch)
        run.evaluate_epoch(epoch)
        run.log()
        if epoch == max_epoch:
            run.finish()
        on_eval(run.evaluation(finished=epoch == max_epoch))
    return run.result()


def read_data(config: Config) -> Data:
    """Reads every manifest of a configuration and the audio headers they name.

    Raises:
        UserError: A set is missing, or a manifest or an audio file is not readable.
    """
    missing = [
        f"{key}: got nothing, expected a manifest (--{key} FILE)"
        for key in ("train_data_set_list", "valid_data_set_list")
        if not config.get(key)
    ]
    if missing:
        raise ConfigError(missing)
    train = read_data_list(config["train_data_set_list"])
    evaluation = {
        split: read_data_list(path)
        for split, path in {
            "valid": config["valid_data_set_list"],
            "wideband": config["finetune_conf.wideband_data_set_list"],
            "test": config["finetune_conf.test_data_set_list"],
        }.items()
        if path
    }
    train_audios = read_headers(train)
    audios = {split: read_headers(utterances) for split, utterances in evaluation.items()}
    sha256 = fingerprint(
        [*train, *chain(*evaluation.values())], [*train_audios, *chain(*audios.values())]
    )
    return Data(train, train_audios, evaluation, sha256)


class _Run:
    """State of one fine-tune between its steps."""

    def __init__(self, config: Config, tracker: Tracker, nano: Nano, data: Data) -> None:
        assert nano.coverage is not None
        self._config = config
        self._tracker = tracker
        self._nano = nano
        self._data = data
        self._directory = Path(config["output_dir"])
        self._objective = Objective(nano.model, config)
        self._folder = CheckpointFolder(
            self._directory / "checkpoints",
            config["train_conf.keep_nbest_models"],
            nano.coverage.sha256,
        )
        optimizer = build_optimizer(nano.model, config)
        self._sampler = BatchSampler(
            data.train,
            data.train_audios,
            [len(nano.codec.target_ids(item.target)) - 1 for item in data.train],
            config["dataset_conf"],
            config["finetune_conf.seed"],
        )
        if not len(self._sampler):
            raise ConfigError(
                f"dataset_conf: got limits that leave out all {len(data.train)} utterances "
                f"(first: {self._sampler.left_out[0].reason}), expected some to train on"
            )
        self._trainer = Trainer(
            nano,
            self._objective,
            optimizer,
            build_scheduler(optimizer, config),
            data.train,
            self._sampler,
            accum_grad=config["train_conf.accum_grad"],
            grad_clip=config["train_conf.grad_clip"],
            use_bf16=config["train_conf.use_bf16"],
            log_interval=config["train_conf.log_interval"],
            on_log=lambda step, metrics: tracker.log_metrics(metrics, step=step),
        )
        self._epoch = 0
        self._metrics: dict[str, float] = {}
        self._best: Checkpoint | None = None
        self._best_metrics: dict[str, float] = {}

    def describe(self, trainable: Mapping[str, int]) -> None:
        """Writes and logs what is about to be trained, before the first step."""
        config, coverage = self._config, self._nano.coverage
        batches = len(self._sampler.epoch(1))
        updates = -(-batches // config["train_conf.accum_grad"]) * config["train_conf.max_epoch"]
        learns = ", ".join(f"{name} {count:,}" for name, count in trainable.items() if count)
        _LOG.info("%s", coverage)
        _LOG.info("stage %s trains %s parameters", config.stage, learns)
        _LOG.info(
            "%d utterances in %d batches an epoch, %d updates in all, warm-up %s, seed %d, %s",
            len(self._sampler),
            batches,
            updates,
            config.get("scheduler_conf.warmup_steps"),
            config["finetune_conf.seed"],
            self._nano.device,
        )
        for left_out in self._sampler.left_out:
            _LOG.warning("left out %s: %s", left_out.utterance.place, left_out.reason)
        deltas = classify(config)
        for name, text in {
            "config.yaml": config.to_yaml(),
            "deltas.json": deltas_json(deltas),
            "deltas.md": deltas_markdown(deltas),
        }.items():
            self._write_artifact(name, text)
        changes = [delta.change for delta in deltas]
        self._tracker.log_params(config.flat())
        self._tracker.set_tags(
            {
                "stage": config.stage,
                "config.sha256": config.fingerprint(),
                "init.sha256": coverage.sha256 if coverage else "",
                "data.sha256": self._data.sha256,
                "scoring": NORMALISATION,
                "device": self._nano.device.type,
                "trainable": learns,
                "delta.critical": ", ".join(
                    delta.key
                    for delta in deltas
                    if delta.severity == "critical" and delta.change in ("MODIFIED", "NEW")
                ),
                "delta.modified": str(changes.count("MODIFIED")),
                "delta.new": str(changes.count("NEW")),
            }
        )
        self._tracker.log_metrics({"train/left_out": len(self._sampler.left_out)}, step=0)

    def train_epoch(self, epoch: int) -> None:
        summary = self._trainer.train_epoch(epoch)
        self._epoch = epoch
        self._metrics["train/loss"] = summary.loss
        self._metrics["train/lr"] = summary.learning_rate
        self._metrics["train/utterances_per_s"] = summary.utterances_per_s

    def evaluate_epoch(self, epoch: int) -> None:
        """Scores validation and wideband sets, and saves the epoch if it has trained."""
        scores = {split: self._score(split) for split in self._data.evaluation if split != "test"}
        for split, split_scores in scores.items():
            self._metrics |= split_scores.metrics(split)
        cer = scores["valid"].cer.rate
        if epoch > 0:
            saved = self._folder.save(stages.trainable_state(self._nano.model), epoch, cer)
            if self._best is None or cer < self._best.cer:
                self._keep_as_best(saved, scores)
        _LOG.info(
            "epoch %d: %s",
            epoch,
            ", ".join(
                f"{name} {100 * self._metrics[name]:.2f} %"
                for name in ("valid/cer", "valid/cer_ctc", "wideband/cer")
                if name in self._metrics
            ),
        )

    def finish(self) -> None:
        """Tries the average of the best epochs, then scores the test set with the winner.

        The winner's metrics are logged one step after the last update, so that the last value of
        each metric, which MLflow's tables show, belongs to the checkpoint that would be exported.
        """
        model = self._nano.model
        members = self._folder.ranked[: self._config["train_conf.avg_nbest_model"]]
        if len(members) > 1:
            stages.load_trainable_state(model, average(members))
            scores = {
                split: self._score(split) for split in self._data.evaluation if split != "test"
            }
            cer = scores["valid"].cer.rate
            if self._best is None or cer < self._best.cer:
                self._keep_as_best(self._folder.save_average(members, cer), scores)
        assert self._best is not None
        stages.load_trainable_state(model, load_state(self._best.path))
        self._metrics |= self._best_metrics
        if "test" in self._data.evaluation:
            scores_test = self._score("test")
            self._metrics |= scores_test.metrics("test")
            self._write_hypotheses("test", scores_test)
        metrics = {**self._metrics, "epoch": float(self._epoch)}
        self._tracker.log_metrics(metrics, step=self._trainer.step + 1)
        _LOG.info("objective %.2f %% from %s", 100 * self._best.cer, self._best.name)

    def log(self) -> None:
        """Tells the tracker this epoch's numbers, once."""
        metrics = {**self._metrics, "epoch": float(self._epoch)}
        self._tracker.log_metrics(metrics, step=self._trainer.step)

    def evaluation(self, *, finished: bool) -> Evaluation:
        return Evaluation(self._epoch, self._trainer.step, dict(self._metrics), finished)

    def result(self) -> FinetuneResult:
        assert self._best is not None
        return FinetuneResult(
            objective=self._best.cer,
            epoch=self._best.epoch,
            checkpoint=self._best.name,
            metrics=dict(self._metrics),
            output_dir=self._directory,
        )

    def _keep_as_best(self, checkpoint: Checkpoint, scores: Mapping[str, Scores]) -> None:
        self._best = checkpoint
        self._metrics["objective"] = checkpoint.cer
        self._best_metrics = {}
        self._tracker.set_tags({"checkpoint": checkpoint.name})
        for split, split_scores in scores.items():
            self._best_metrics |= split_scores.metrics(split)
            self._write_hypotheses(split, split_scores)

    def _score(self, split: str) -> Scores:
        return evaluate(
            self._nano,
            self._data.evaluation[split],
            max_new_tokens=self._config["finetune_conf.max_new_tokens"],
            batch_size=self._config["finetune_conf.eval_batch_size"],
            objective=self._objective if split == "valid" else None,
        )

    def _write_hypotheses(self, split: str, scores: Scores) -> None:
        path = self._directory / "hypotheses" / f"{split}.jsonl"
        scores.write_hypotheses(path)
        self._tracker.log_artifact(path, f"hypotheses/{split}.jsonl")

    def _write_artifact(self, name: str, text: str) -> None:
        path = self._directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{name}.partial")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
        self._tracker.log_artifact(path, name)


def _seed(seed: int) -> None:
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)
