"""``finetune``: one fine-tune from a configuration to scored, saved weights.

The same function serves the command line, ``mlflow run``, a trial of a sweep and the tests; it
knows neither MLflow nor Ray. What it learns on the way goes to a tracker, and after each epoch to
``on_eval``, which may raise to end it.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch

from conf.document import numbers
from conf.errors import ConfigError, DataError
from conf.files import full_disk_said, write_json
from conf.load import Config
from trainer.channel.on_the_fly import on_the_fly
from trainer.data.batch import BatchSampler, text_lengths
from trainer.data.loader import Loader
from trainer.data.manifest import Utterance
from trainer.data.sets import Data, read_data
from trainer.evaluation.evaluate import Scores
from trainer.finetune import extend, run_directory
from trainer.finetune.engine import Engine, EpochSummary
from trainer.finetune.loop import Listeners, LoopConf, Trainer
from trainer.finetune.record import Record
from trainer.finetune.result import Evaluation, FinetuneResult, OnEval
from trainer.finetune.resume import ResumeFolder, random_state, set_random_state
from trainer.finetune.scoring import Scoring
from trainer.finetune.stock_engine import StockEngine
from trainer.finetune.writer import Writer
from trainer.model import stages
from trainer.model.build import Nano, build
from trainer.model.checkpoint import Checkpoint, CheckpointFolder, average, load_state
from trainer.model.frozen_outputs import example_source
from trainer.model.losses import Objective
from trainer.model.optim import build_optimizer, build_scheduler
from trainer.tracking.event_log import Tracker

_LOG = logging.getLogger(__name__)

ENDLESS_CER = 3.0
"""Above it most of what is written stands for nothing that was said: a text that does not end."""


def ignore_evaluation(_: Evaluation) -> None:
    """The ``on_eval`` of a fine-tune that nobody searches over."""


def finetune(
    config: Config,
    tracker: Tracker,
    on_eval: OnEval = ignore_evaluation,
    shared: Path | None = None,
) -> FinetuneResult:
    """Trains, evaluates each epoch, and keeps the weights of the best validation CER.

    In a directory where the same fine-tune was interrupted it goes on from the last resume point,
    and ``on_eval`` gets the evaluations so far again; where it had finished, nothing is trained.
    ``train_conf.resume: false`` starts anew.

    Args:
        config: Names data, initial weights and ``output_dir``.
        tracker: Gets params, tags, metrics (step = optimizer updates) and artifacts.
        on_eval: Called after each epoch's evaluation is logged; what it raises ends the run.
        shared: Directory of fine-tunes that may start from the same model, of which one decodes
            the sets before training for all; None decodes here.

    Returns:
        The best epoch, or the average of the best ones where that is better.

    Raises:
        UserError: Configuration, data or weights are not as they should be.
        WorkError: Training failed: a loss that is not finite, exhausted memory, a full disk.
    """
    torch.set_num_threads(config["finetune_conf.num_threads"])
    data = read_data(config)
    _seed(config["finetune_conf.seed"])
    nano = build(config)
    trainable = stages.apply(nano.model, config)
    then = "the last checkpoint is whole, the same command goes on"
    with full_disk_said(Path(config["output_dir"]), then), Writer() as writer:
        run = _Run(config, tracker, nano, data, shared, writer)
        run.describe(trainable)
        run.begin()
        record = run.record
        max_epoch = config["train_conf.max_epoch"]
        for evaluation in record.evaluations:
            if evaluation.epoch < max_epoch or evaluation.finished:
                on_eval(evaluation)

        def end_epoch(epoch: int, summary: EpochSummary) -> None:
            run.end_epoch(epoch, summary)
            if epoch < max_epoch:
                on_eval(record.evaluations[-1])

        if not record.finished:
            run.engine.train(end_epoch)
            run.finish()
            on_eval(record.evaluations[-1])
        return run.result()


def goes_on_beside(device: torch.device) -> bool:
    """Whether training goes on while the point to resume from is written.

    On a GPU it does, and copies of what is written wait in the machine's memory: of weights and
    moments together three times the trained weights. On the CPU that memory is training's own, so
    the next update waits until moments are written from where they lie.
    """
    return device.type != "cpu"


class _Run:
    """What a fine-tune knows between its epochs."""

    def __init__(
        self,
        config: Config,
        tracker: Tracker,
        nano: Nano,
        data: Data,
        shared: Path | None,
        writer: Writer,
    ) -> None:
        assert nano.coverage is not None
        self._config = config
        self._tracker = tracker
        self._writer = writer
        self._goes_on = goes_on_beside(nano.device)
        self.record = Record(config, tracker, lambda: self.engine.step)
        self._data = data
        self._directory = Path(config["output_dir"])
        self._coverage = nano.coverage
        self._objective = Objective(nano.model, config)
        self._initial_weights = stages.trainable_state(nano.model)
        self._initial_norms = stages.component_norms(self._initial_weights.items())
        self._folder = CheckpointFolder(
            self._directory / run_directory.CHECKPOINTS,
            config["train_conf.keep_nbest_models"],
            nano.coverage.sha256,
        )
        self._augment = on_the_fly(nano, config, data.train)
        lines = [self._augment.fingerprint] if self._augment else []
        self._identity = extend.identity(config, data.sha256, nano.coverage.sha256, *lines)
        self._resume = ResumeFolder(self._directory / run_directory.POINTS, self._identity)
        self._best: Checkpoint | None = None
        self._best_metrics: dict[str, float] = {}
        self._checkpoint_written: Future[None] | None = None
        self._said_endless = False
        self._scoring = Scoring(
            config, data, tracker, lambda: self.engine.nano, self._objective_of_engine, shared
        )
        self.engine = self._stock(nano) if self._is_stock else self._ours(nano)

    @property
    def _is_stock(self) -> bool:
        return bool(self._config["finetune_conf.engine"] == "stock")

    def _stock(self, nano: Nano) -> Engine:
        return StockEngine(self._config, nano, self._data, self._log_training)

    def _ours(self, nano: Nano) -> Engine:
        config, data = self._config, self._data
        sampler = BatchSampler(
            data.train,
            data.train_audios,
            text_lengths(data.train, nano.codec),
            config["dataset_conf"],
            config["finetune_conf.seed"],
            prompt_length=len(nano.codec.before_audio) + len(nano.codec.after_audio),
        )
        self.record.log_skipped(sampler.left_out)
        if not len(sampler):
            raise ConfigError(
                f"dataset_conf: got limits that leave out all {len(data.train)} utterances "
                f"(first: {sampler.left_out[0].reason}), expected some to train on"
            )
        optimizer = build_optimizer(nano.model, config)
        conf = LoopConf.of(config)
        batches = len(sampler.epoch(1))
        _LOG.info(
            "%d utterances in %d batches an epoch, %d updates in all, warm-up %s",
            len(sampler),
            batches,
            -(-batches // conf.accum_grad) * conf.max_epoch,
            config.get("scheduler_conf.warmup_steps"),
        )
        load = example_source(nano, config, self._objective, data.train)
        return Trainer(
            nano,
            self._objective,
            optimizer,
            build_scheduler(optimizer, config),
            Loader(
                *(data.train, load, config["dataset_conf"].get("num_workers", 0)),
                augment=self._augment,
            ),
            sampler,
            conf,
            Listeners(
                on_log=self._log_training,
                on_left_out=self.record.log_skipped,
                on_save=self._save_point_between,
                on_validate=self._validate_between,
                before_update=self._writer.look if self._goes_on else self._writer.wait,
            ),
        )

    def describe(self, trainable: Mapping[str, int]) -> None:
        """Say, write and log what is about to be trained, before the first step."""
        config = self._config
        learns = ", ".join(f"{name} {count:,}" for name, count in trainable.items() if count)
        _LOG.info("%s", self._coverage)
        _LOG.info(
            "stage %s trains %s parameters, seed %d, %s",
            config.stage,
            learns,
            config["finetune_conf.seed"],
            self.engine.nano.device,
        )
        self.record.describe(
            self._data,
            self._coverage.sha256,
            device=self.engine.nano.device.type,
            trainable=learns,
        )

    def begin(self) -> None:
        """Goes on from where it was left, or scores the model as it is before the first update."""
        if not self._config.get("train_conf.resume", True):
            self._result_path.unlink(missing_ok=True)
            self._resume.clear()
        epochs = self._config["train_conf.max_epoch"]
        result = run_directory.read_result(self._directory)
        if result and (result["identity"], result["epochs"]) == (self._identity, epochs):
            try:
                self._check_kept([result["run"]["best"]])
                self._restore_state(result["run"])
                _LOG.info("%s: this fine-tune has finished before", self._directory)
                return
            except DataError as error:
                _LOG.warning("%s; so this fine-tune does not count as finished", error)
        if isinstance(self.engine, Trainer) and (point := self._resume.load()) is not None:
            if point["trainer"]["epoch"] <= epochs + 1:
                self._restore(point)
                _LOG.info("going on after update %d", self.engine.step)
                return
            _LOG.warning(
                "the point of update %d is beyond epoch %d", point["trainer"]["step"], epochs
            )
        self._score_epoch(0)
        self.record.log_epoch(0)
        _seed(self._config["finetune_conf.seed"])

    def end_epoch(self, epoch: int, summary: EpochSummary) -> None:
        """Scores an epoch, and has its weights and the point to go on from written.

        What is logged of a file, and the point that names it, come after the file itself: whenever
        the process is killed, the newest point finds all that it needs.
        """
        self.record.metrics["train/loss"] = summary.loss
        self.record.metrics["train/lr"] = summary.learning_rate
        self.record.metrics["train/utterances_per_s"] = summary.utterances_per_s
        self.record.metrics |= self._moved()
        scores = self._score_epoch(epoch)
        self._writer.wait()  # of what is written there is one copy at a time
        weights = stages.trainable_state(self.engine.nano.model)
        cer = scores["valid"].cer.rate
        checkpoint = self._folder.add(epoch, cer)
        is_best = self._best is None or cer < self._best.cer
        if is_best:
            self._take_as_best(checkpoint, scores)
        self.record.log_epoch(epoch)
        self._checkpoint_written = self._writer.write(
            partial(self._folder.write, checkpoint, weights)
        )
        if is_best:
            self._writer.write(partial(self._write_best, checkpoint, scores))
        self._save_point(weights)

    def finish(self) -> None:
        """Tries the average of the best epochs, then scores test set and all with the winner.

        Meanwhile the last resume point is written, which stays: `trainer.finetune.extend` lets a
        longer fine-tune resume from it.
        """
        assert self._best is not None
        if self._checkpoint_written is not None:
            self._checkpoint_written.result()
        model = self.engine.nano.model
        members = self._folder.ranked[: self._config["train_conf.avg_nbest_model"]]
        scores = None
        if len(members) > 1:
            stages.load_trainable_state(model, average(members))
            scores = self._scoring.sets()
        self._writer.wait()  # the texts written now take the place of those that the point is of
        extend.keep_texts(self._directory)
        if scores is not None and (cer := scores["valid"].cer.rate) < self._best.cer:
            self._take_as_best(self._folder.save_average(members, cer), scores)
            self._write_best(self._best, scores)
        stages.load_trainable_state(model, load_state(self._best.path))
        self.record.metrics |= self._best_metrics
        whole = self._data.evaluation
        if len(self._data.valid_subset) < len(whole["valid"]):
            self._score_finally("valid", whole["valid"])
            self.record.metrics["objective"] = self.record.metrics["valid/cer"]
        if "test" in whole:
            self._score_finally("test", whole["test"])
        self.record.log_end()
        epochs = self._config["train_conf.max_epoch"]
        result = {"identity": self._identity, "epochs": epochs, "run": self._state()}
        write_json(self._result_path, result)
        _LOG.info(
            "objective %s from %s", numbers.rate(self.record.metrics["objective"]), self._best.name
        )

    def result(self) -> FinetuneResult:
        assert self._best is not None
        return FinetuneResult(
            objective=self.record.metrics["objective"],
            epoch=self._best.epoch,
            checkpoint=self._best.name,
            metrics=dict(self.record.metrics),
            output_dir=self._directory,
        )

    # Scoring

    def _score_epoch(self, epoch: int) -> dict[str, Scores]:
        scores = self._scoring.sets(untouched=epoch == 0)
        for split, split_scores in scores.items():
            self.record.metrics |= split_scores.metrics(split)
            if epoch == 0:
                self._scoring.keep_as_base(split, split_scores)
        _LOG.info(
            "epoch %d: %s",
            epoch,
            ", ".join(
                f"{name} {numbers.rate(self.record.metrics[name])}"
                for name in ("valid/cer", "valid/cer_ctc", "wideband/cer")
                if name in self.record.metrics
            ),
        )
        self._warn_if_endless(scores["valid"])
        return scores

    def _warn_if_endless(self, scores: Scores) -> None:
        if self._said_endless or not ENDLESS_CER < scores.cer.rate < math.inf:
            return
        self._said_endless = True
        capped = sum(scored.capped for scored in scores.utterances)
        _LOG.warning(
            "valid/cer %s, above %s: the model writes without end (%d of %d texts were cut at "
            "finetune_conf.max_new_tokens %d); after epoch 0 lower optim_conf.lr, at epoch 0 see "
            "whether weights and tokenizers belong together (python -m trainer check)",
            numbers.rate(scores.cer.rate),
            numbers.rate(ENDLESS_CER, 0),
            capped,
            len(scores.utterances),
            self._config["finetune_conf.max_new_tokens"],
        )

    def _objective_of_engine(self) -> Objective:
        """Losses of the model that is trained: stock's engine builds one of its own."""
        if self._is_stock:
            return Objective(self.engine.nano.model, self._config)
        return self._objective

    def _score_finally(self, split: str, utterances: Sequence[Utterance]) -> None:
        scores = self._scoring.of(split, utterances)
        self.record.metrics |= scores.metrics(split)
        self._scoring.write(split, scores)

    def _validate_between(self) -> None:
        scores = self._scoring.of("valid", self._data.valid_subset)
        self._tracker.log_metrics(scores.metrics("valid"), step=self.engine.step)
        _LOG.info("update %d: valid/cer %s", self.engine.step, numbers.rate(scores.cer.rate))

    def _moved(self) -> dict[str, float]:
        """How far each component is from its initial weights, relative to their norm."""
        now = dict(self.engine.nano.model.named_parameters())
        moved = stages.component_norms(
            (name, now[name].detach() - start.to(now[name].device))
            for name, start in self._initial_weights.items()
        )
        return {
            f"delta_norm/{component}": distance / norm
            for component, distance in moved.items()
            if (norm := self._initial_norms[component]) > 0
        }

    # Keeping

    def _take_as_best(self, checkpoint: Checkpoint, scores: Mapping[str, Scores]) -> None:
        self._best = checkpoint
        self.record.metrics["objective"] = checkpoint.cer
        self._best_metrics = {
            name: value
            for split, split_scores in scores.items()
            for name, value in split_scores.metrics(split).items()
        }

    def _write_best(self, checkpoint: Checkpoint, scores: Mapping[str, Scores]) -> None:
        """Logs the best checkpoint, which is written, and its texts."""
        self._tracker.set_tags({"checkpoint": checkpoint.name})
        for split, split_scores in scores.items():
            self._scoring.write(split, split_scores)

    def _save_point_between(self) -> None:
        self._writer.wait()
        self._save_point(stages.trainable_state(self.engine.nano.model))

    def _save_point(self, weights: Mapping[str, torch.Tensor]) -> None:
        if isinstance(self.engine, Trainer):  # stock's trainer keeps its own
            state = {
                "trainer": self.engine.state_dict(weights, copy=self._goes_on),
                "run": self._state(),
                "random": random_state(),
            }
            self._writer.write(partial(self._resume.save, self.engine.step, state))

    def _restore(self, point: Mapping[str, Any]) -> None:
        assert isinstance(self.engine, Trainer)
        self.engine.load_state_dict(point["trainer"])
        self._restore_state(point["run"])
        try:
            self._check_kept(point["run"]["kept"])
            self._scoring.read_base()
        except DataError as error:
            raise DataError(
                f"{error}; the point of update {self.engine.step} is of no use without it: delete "
                f"{self._resume.directory} to train anew from the first epoch"
            ) from error
        set_random_state(point["random"])

    def _check_kept(self, kept: Iterable[tuple[str, int, float]]) -> None:
        """Reads an earlier process's checkpoints now and not when the last epoch has been trained.

        One that is gone was worse than what came after the point, and comes and goes again.
        """
        for path in (self._folder.named(*item).path for item in kept):
            if path.exists():
                load_state(path)

    def _state(self) -> dict[str, Any]:
        best = self._best and [self._best.name, self._best.epoch, self._best.cer]
        return {
            **self.record.state(),
            "kept": [[item.name, item.epoch, item.cer] for item in self._folder.ranked],
            "best": best,
            "best_metrics": dict(self._best_metrics),
        }

    def _restore_state(self, state: Mapping[str, Any]) -> None:
        self.record.restore(state)
        self._folder.restore(state["kept"])
        self._best = self._folder.named(*state["best"]) if state["best"] else None
        self._best_metrics = dict(state["best_metrics"])
        self._log_again(state["evaluations"])

    def _log_again(self, evaluations: Iterable[Mapping[str, Any]]) -> None:
        """Logs what a damaged log has lost; of what it has, no number is logged twice."""
        interval = self._config["train_conf.log_interval"]
        for said in evaluations:
            metrics = {**said["metrics"], "epoch": float(said["epoch"])}
            if not said["finished"] and said["step"] % interval == 0:
                for name in ("train/loss", "train/lr"):  # there stood those of the last updates
                    metrics.pop(name, None)
            self._tracker.log_metrics(metrics, step=said["step"] + said["finished"])
        if self._best:
            self._tracker.set_tags({"checkpoint": self._best.name})
        for path in sorted((self._directory / run_directory.HYPOTHESES).glob("*.jsonl")):
            self._tracker.log_artifact(path, f"{run_directory.HYPOTHESES}/{path.name}")

    @property
    def _result_path(self) -> Path:
        return self._directory / run_directory.RESULT

    # Telling

    def _log_training(self, step: int, metrics: Mapping[str, float]) -> None:
        self._tracker.log_metrics(metrics, step=step)


def _seed(seed: int) -> None:
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)
