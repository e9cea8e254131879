"""The training loop: epochs of updates, from wherever it was interrupted.

Losses and gradient norms are read from the device once per ``log_interval`` updates, not at each
step, so a GPU never waits for the host in between. Where memory allows, the batches of one update
are computed as one: half as many kernels, each on twice as much.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from conf.errors import WorkError
from conf.load import Config
from conf.progress import Progress
from trainer.data.batch import Batch, BatchSampler, LeftOut, joined
from trainer.data.loader import Loader
from trainer.finetune.engine import EpochSummary
from trainer.model import stages
from trainer.model.build import Nano
from trainer.model.fused import is_fused
from trainer.model.losses import Losses, Objective
from trainer.model.memory import exhaustion_named

_LOG = logging.getLogger(__name__)

SMALL = 50_000_000
"""Parameters up to which batches of one update are joined on a CPU: it computes a larger model no
faster in larger batches, and they would take memory that nobody has forecast."""


@dataclass(frozen=True)
class LoopConf:
    """How updates are made from batches: keys of ``train_conf`` and ``finetune_conf``.

    Attributes:
        length_normalized_loss: Batches of one update count by their tokens (cross entropy) and
            utterances (CTC), so that the update is that of one large batch; without it each batch
            counts the same, as in stock.
        zero_padding: An utterance's loss does not depend on its batch, so batches can be joined.
        max_skipped_steps: Updates left out for a loss or gradient that is not finite; with any,
            the host waits for each update.
    """

    max_epoch: int
    accum_grad: int
    grad_clip: float
    grad_clip_type: float
    use_bf16: bool
    log_interval: int
    save_interval: int
    validate_interval: int | None
    max_skipped_steps: int
    frozen_dropout: bool
    length_normalized_loss: bool
    zero_padding: bool

    @classmethod
    def of(cls, config: Config) -> LoopConf:
        train, ours = config["train_conf"], config["finetune_conf"]
        return cls(
            max_epoch=train["max_epoch"],
            accum_grad=train.get("accum_grad", 1),
            grad_clip=train.get("grad_clip", 10.0),
            grad_clip_type=train.get("grad_clip_type", 2.0),
            use_bf16=train.get("use_bf16", False),
            log_interval=train.get("log_interval", 50),
            save_interval=train.get("save_checkpoint_interval", 5000),
            validate_interval=train.get("validate_interval", 5000),
            max_skipped_steps=ours["max_skipped_steps"],
            frozen_dropout=ours["frozen_dropout"],
            length_normalized_loss=config["model_conf"].get("length_normalized_loss", False),
            zero_padding=ours["zero_padding"],
        )


@dataclass(frozen=True)
class Listeners:
    """Who is told what between two updates.

    Attributes:
        on_log: Gets the step and its metrics.
        on_left_out: Gets utterances that could not be read when their batch came.
        on_save: Called every ``save_checkpoint_interval`` updates.
        on_validate: Called every ``validate_interval`` updates, with null never.
    """

    on_log: Callable[[int, dict[str, float]], None]
    on_left_out: Callable[[Sequence[LeftOut]], None] = lambda _: None
    on_save: Callable[[], None] = lambda: None
    on_validate: Callable[[], None] = lambda: None


class Trainer:
    """Updates a model epoch by epoch; ``step`` counts the optimizer's updates.

    Args:
        nano: Model in its stage.
        objective: Its losses.
        optimizer: Over the trainable parameters.
        scheduler: Stepped once per update.
        loader: Makes batches of utterances.
        sampler: Says which go together.
        conf: How updates are made.
        listeners: Who is told.
    """

    def __init__(
        self,
        nano: Nano,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        loader: Loader,
        sampler: BatchSampler,
        conf: LoopConf,
        listeners: Listeners,
    ) -> None:
        self.step = 0
        self.nano = nano
        self._objective = objective
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._loader = loader
        self._sampler = sampler
        self._conf = conf
        self._listeners = listeners
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._grad_clip = conf.grad_clip if conf.grad_clip > 0 else math.inf
        self._epoch = 1
        self._batches_done = 0
        self._losses: list[float] = []
        self._since_log: list[float] = []
        self._skipped = 0
        self._unread: list[_Unread] = []
        # Utterances times frames of a joined batch above which none is tried any more.
        parameters = sum(parameter.numel() for parameter in nano.model.parameters())
        gains = nano.device.type == "cuda" or parameters <= SMALL
        joins = gains and conf.zero_padding and is_fused(nano.model)
        self._joined_limit = math.inf if joins else 0.0

    def train(self, on_epoch: Callable[[int, EpochSummary], None]) -> None:
        """Trains all epochs that are left.

        Raises:
            WorkError: A loss or gradient is not finite, naming the update and its utterances; the
                device's memory is exhausted, naming the batch's shape; a loader worker died.
        """
        while self._epoch <= self._conf.max_epoch:
            summary = self._train_epoch()
            epoch, self._epoch, self._batches_done = self._epoch, self._epoch + 1, 0
            on_epoch(epoch, summary)

    def state_dict(self) -> dict[str, Any]:
        """All that another process needs to go on after the last update."""
        self._read_losses()
        return {
            "step": self.step,
            "epoch": self._epoch,
            "batches_done": self._batches_done,
            "losses": list(self._losses),
            "since_log": list(self._since_log),
            "skipped": self._skipped,
            "weights": stages.trainable_state(self.nano.model),
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the place where :meth:`state_dict` was called."""
        self.step, self._epoch = state["step"], state["epoch"]
        self._batches_done, self._skipped = state["batches_done"], state["skipped"]
        self._losses, self._since_log = list(state["losses"]), list(state["since_log"])
        stages.load_trainable_state(self.nano.model, state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])

    def _train_epoch(self) -> EpochSummary:
        stages.set_training_mode(self.nano.model, frozen_dropout=self._conf.frozen_dropout)
        started_s = time.perf_counter()
        num_utterances = 0
        plan = self._sampler.epoch(self._epoch)[self._batches_done :]
        # The loader forks its workers on the way.
        with Progress(forks=True).of(f"epoch {self._epoch}", len(plan), "batches") as advance:
            for group in self._groups(plan):
                self._batches_done += self._conf.accum_grad
                num_utterances += sum(len(batch.keys) for batch in group)
                if group and self._update(group):
                    self._between_updates()
                advance(self._conf.accum_grad)
        self._read_losses()
        losses, self._losses = self._losses, []
        return EpochSummary(
            loss=sum(losses) / max(1, len(losses)),
            learning_rate=self._learning_rate(),
            utterances_per_s=num_utterances / (time.perf_counter() - started_s),
        )

    def _groups(self, plan: Sequence[Sequence[int]]) -> Iterator[list[Batch]]:
        """The batches of each update, on the host."""
        batches = self._loader.batches(plan, self._epoch)
        while loaded := list(itertools.islice(batches, self._conf.accum_grad)):
            for item in loaded:
                if item.left_out:
                    self._listeners.on_left_out(item.left_out)
            yield [
                self._objective.prepared(item.batch) for item in loaded if item.batch is not None
            ]

    def _update(self, group: Sequence[Batch]) -> bool:
        """One optimizer step; False if it was left out."""
        losses = self._backward(group)
        norm = torch.nn.utils.clip_grad_norm_(
            self._parameters, self._grad_clip, self._conf.grad_clip_type
        )
        keys = tuple(batch.keys for batch in group)
        self._unread.append(_Unread(self.step + 1, keys, losses, norm))
        if self._conf.max_skipped_steps and self._has_to_be_left_out(self._unread[-1]):
            self._optimizer.zero_grad(set_to_none=True)
            return False
        self._optimizer.step()
        self._scheduler.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return True

    def _backward(self, group: Sequence[Batch]) -> list[torch.Tensor]:
        """Makes the gradient of an update; returns the loss of each of its batches."""
        if len(group) > 1 and (_size(whole := joined(group)) < self._joined_limit):
            try:
                return self._backward_of(whole, group, group)
            except torch.OutOfMemoryError:
                _LOG.info("%d utterances at once do not fit: batch after batch", len(whole.keys))
            self._joined_limit = _size(whole)
            self._optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
        losses = []
        for batch in group:
            with exhaustion_named(functools.partial(_too_large, batch, self.step + 1)):
                losses += self._backward_of(batch, [batch], group)
        return losses

    def _backward_of(
        self, batch: Batch, parts: Sequence[Batch], group: Sequence[Batch]
    ) -> list[torch.Tensor]:
        """Adds some batches' part of an update's gradient, from one batch that is all of them."""
        with torch.autocast(self.nano.device.type, torch.bfloat16, enabled=self._conf.use_bf16):
            found = self._objective.of_each(batch.to(self.nano.device), parts)
        shares = [self._share(*each, group) for each in zip(found, parts, strict=True)]
        functools.reduce(operator.add, shares).backward()  # type: ignore[no-untyped-call]
        return [losses.total.detach() for losses in found]

    def _share(self, losses: Losses, batch: Batch, group: Sequence[Batch]) -> torch.Tensor:
        """What a batch adds to its update's loss."""
        if not self._conf.length_normalized_loss:
            return losses.total / self._conf.accum_grad
        if len(group) == 1:
            return losses.total
        return losses.share(
            batch.num_target_tokens / sum(each.num_target_tokens for each in group),
            len(batch.keys) / sum(len(each.keys) for each in group),
        )

    def _between_updates(self) -> None:
        if self.step % self._conf.log_interval == 0:
            self._log()
        interval = self._conf.validate_interval
        if interval is not None and self.step % interval == 0:
            self._listeners.on_validate()
            stages.set_training_mode(self.nano.model, frozen_dropout=self._conf.frozen_dropout)
        if self.step % self._conf.save_interval == 0:
            self._listeners.on_save()

    def _has_to_be_left_out(self, last: _Unread) -> bool:
        reason = last.problem()
        if reason is None:
            return False
        self._unread.pop()
        self._skipped += 1
        if self._skipped > self._conf.max_skipped_steps:
            raise WorkError(
                f"{reason}; {self._skipped - 1} such updates were left out before "
                f"(finetune_conf.max_skipped_steps {self._conf.max_skipped_steps})"
            )
        _LOG.warning("left out an update: %s", reason)
        self._listeners.on_log(self.step, {"train/skipped": float(self._skipped)})
        return True

    def _learning_rate(self) -> float:
        return float(self._scheduler.get_last_lr()[0])

    def _read_losses(self) -> None:
        """Brings losses and norms since the last call to the host, and checks them."""
        if not self._unread:
            return
        values = torch.stack([loss for item in self._unread for loss in item.losses]).tolist()
        norms = torch.stack([item.norm for item in self._unread]).tolist()
        if not all(map(math.isfinite, [*values, *norms])):
            reason = next(filter(None, (item.problem() for item in self._unread)))
            raise WorkError(f"{reason}; a lower optim_conf.lr may help")
        self._unread.clear()
        self._losses += values
        self._since_log += values

    def _log(self) -> None:
        self._read_losses()
        mean = sum(self._since_log) / len(self._since_log)
        self._since_log.clear()
        learning_rate = self._learning_rate()
        _LOG.info("update %d: loss %.4f, lr %.3g", self.step, mean, learning_rate)
        self._listeners.on_log(self.step, {"train/loss": mean, "train/lr": learning_rate})


@dataclass(frozen=True)
class _Unread:
    """An update whose numbers still lie on the device.

    Attributes:
        keys: Utterances of each batch.
        losses: Of each batch.
        norm: Of the whole update's gradient, before it was clipped.
    """

    step: int
    keys: tuple[tuple[str, ...], ...]
    losses: Sequence[torch.Tensor]
    norm: torch.Tensor

    def problem(self) -> str | None:
        """What is not finite, with the update and its utterances."""
        *losses, norm = torch.stack([*self.losses, self.norm]).tolist()
        for keys, loss in zip(self.keys, losses, strict=True):
            if not math.isfinite(loss):
                return f"loss is {loss} at update {self.step}, in the batch of {', '.join(keys)}"
        if not math.isfinite(norm):
            names = ", ".join(itertools.chain(*self.keys))
            return f"gradient norm is {norm} at update {self.step}, in the batch of {names}"
        return None


def _size(batch: Batch) -> int:
    return batch.features_BTF.shape[:2].numel()


def _too_large(batch: Batch, step: int) -> str:
    utterances, positions = batch.input_ids_BL.shape
    return (
        f"at update {step}: a batch of {utterances} utterances, up to "
        f"{int(batch.num_frames_B.max())} frames and {positions} LLM positions; a smaller "
        "dataset_conf.batch_size with a larger train_conf.accum_grad, or "
        "audio_encoder_conf.activation_checkpoint, needs less"
    )
