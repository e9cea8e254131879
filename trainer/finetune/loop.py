"""The training loop: epochs of updates, from wherever it was interrupted.

Losses and gradient norms are read from the device once per ``log_interval`` updates, not at each
step, so a GPU never waits for the host in between.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from conf.errors import WorkError
from conf.load import Config
from conf.progress import Progress
from trainer.data.batch import Batch, BatchSampler, LeftOut
from trainer.data.loader import Loader
from trainer.finetune.engine import EpochSummary
from trainer.model import stages
from trainer.model.build import Nano
from trainer.model.losses import Objective
from trainer.model.memory import exhaustion_named

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopConf:
    """How updates are made from batches: keys of ``train_conf`` and ``finetune_conf``.

    Attributes:
        length_normalized_loss: Batches of one update count by their tokens (cross entropy) and
            utterances (CTC), so that the update is that of one large batch; without it each batch
            counts the same, as in stock.
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
        )


@dataclass(frozen=True)
class Listeners:
    """Who is told what between two updates.

    Attributes:
        on_log: Gets the step and its metrics.
        on_left_out: Gets utterances that could not be read when their batch came.
        on_save: Called every ``save_checkpoint_interval`` updates.
        before_update: Called before each forward pass whose update changes the weights.
        on_validate: Called every ``validate_interval`` updates, with null never.
    """

    on_log: Callable[[int, dict[str, float]], None]
    on_left_out: Callable[[Sequence[LeftOut]], None] = lambda _: None
    on_save: Callable[[], None] = lambda: None
    on_validate: Callable[[], None] = lambda: None
    before_update: Callable[[], None] = lambda: None


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

    def state_dict(self, weights: Mapping[str, torch.Tensor], *, copy: bool) -> dict[str, Any]:
        """All that another process needs to go on after the last update.

        Args:
            weights: The trained ones as they are now (`stages.trainable_state`).
            copy: Copy the optimizer's tensors to the machine's memory, too: the next update changes
                them, or else waits until they are written.
        """
        self._read_losses()
        moments = self._optimizer.state_dict()
        return {
            "step": self.step,
            "epoch": self._epoch,
            "batches_done": self._batches_done,
            "losses": list(self._losses),
            "since_log": list(self._since_log),
            "skipped": self._skipped,
            "weights": dict(weights),
            "optimizer": tree_map_only(torch.Tensor, _copied, moments) if copy else moments,
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
        """The batches of each update, on the device."""
        batches = self._loader.batches(plan, self._epoch)
        while loaded := list(itertools.islice(batches, self._conf.accum_grad)):
            for item in loaded:
                if item.left_out:
                    self._listeners.on_left_out(item.left_out)
            yield [item.batch.to(self.nano.device) for item in loaded if item.batch is not None]

    def _update(self, group: Sequence[Batch]) -> bool:
        """One optimizer step; False if it was left out."""
        self._listeners.before_update()
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
        tokens = sum(batch.num_target_tokens for batch in group)
        utterances = sum(len(batch.keys) for batch in group)
        losses = []
        for batch in group:
            with exhaustion_named(partial(_too_large, batch, self.step + 1)):
                with torch.autocast(
                    self.nano.device.type, torch.bfloat16, enabled=self._conf.use_bf16
                ):
                    found = self._objective(batch, training=True)
                total = found.total
                if not self._conf.length_normalized_loss:
                    share = total / self._conf.accum_grad
                elif len(group) == 1:
                    share = total
                else:
                    share = found.share(
                        batch.num_target_tokens / tokens, len(batch.keys) / utterances
                    )
                share.backward()  # type: ignore[no-untyped-call]
            losses.append(total.detach())
        return losses

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
        for keys, loss in zip(self.keys, self.losses, strict=True):
            if not math.isfinite(value := loss.item()):
                return f"loss is {value} at update {self.step}, in the batch of {', '.join(keys)}"
        if not math.isfinite(value := self.norm.item()):
            names = ", ".join(itertools.chain(*self.keys))
            return f"gradient norm is {value} at update {self.step}, in the batch of {names}"
        return None


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("cpu", copy=True)


def _too_large(batch: Batch, step: int) -> str:
    utterances, positions = batch.input_ids_BL.shape
    return (
        f"at update {step}: a batch of {utterances} utterances, up to "
        f"{int(batch.num_frames_B.max())} frames and {positions} LLM positions; a smaller "
        "dataset_conf.batch_size with a larger train_conf.accum_grad, or "
        "audio_encoder_conf.activation_checkpoint, needs less"
    )
