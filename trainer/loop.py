"""The training loop: one epoch of updates.

Losses are read from the device once per ``log_interval`` updates, not at each step, so a GPU never
waits for the host in between.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from conf.errors import WorkError
from trainer.batch import Batch, BatchSampler, collate, make_example
from trainer.losses import Objective
from trainer.manifest import Utterance
from trainer.model import Nano
from trainer.stages import set_training_mode

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochSummary:
    """What one epoch of training did."""

    loss: float
    learning_rate: float
    utterances_per_s: float


class Trainer:
    """Updates a model epoch by epoch; ``step`` counts the optimizer's updates.

    Args:
        nano: Model in its stage.
        objective: Its losses.
        optimizer: Over the trainable parameters.
        scheduler: Stepped once per update.
        utterances: The training set.
        sampler: Over the same utterances.
        accum_grad: Batches per update.
        grad_clip: Largest norm of an update's gradient; 0 leaves it alone.
        use_bf16: Autocast the whole model to bfloat16.
        log_interval: Updates between two calls of ``on_log``.
        frozen_dropout: Leave the dropout of frozen parts on, as stock does.
        on_log: Gets the step and its metrics.
    """

    def __init__(
        self,
        nano: Nano,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        utterances: Sequence[Utterance],
        sampler: BatchSampler,
        *,
        accum_grad: int,
        grad_clip: float,
        use_bf16: bool,
        log_interval: int,
        frozen_dropout: bool = False,
        on_log: Callable[[int, dict[str, float]], None],
    ) -> None:
        self.step = 0
        self._nano = nano
        self._objective = objective
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._utterances = utterances
        self._sampler = sampler
        self._accum_grad = accum_grad
        self._grad_clip = grad_clip if grad_clip > 0 else math.inf
        self._use_bf16 = use_bf16
        self._log_interval = log_interval
        self._frozen_dropout = frozen_dropout
        self._on_log = on_log
        self._unread: list[tuple[int, tuple[str, ...], torch.Tensor]] = []

    def train_epoch(self, epoch: int) -> EpochSummary:
        """Goes through the training set once.

        Raises:
            WorkError: A loss is not finite; names the update and its utterances.
        """
        set_training_mode(self._nano.model, self._frozen_dropout)
        started_s = time.perf_counter()
        losses: list[float] = []
        plan = self._sampler.epoch(epoch)
        for number, indices in enumerate(plan, start=1):
            self._backward(self._batch(indices))
            if number % self._accum_grad == 0 or number == len(plan):
                self._update()
                if self.step % self._log_interval == 0:
                    losses += self._read_losses()
        losses += self._read_losses()
        duration_s = time.perf_counter() - started_s
        return EpochSummary(
            loss=sum(losses) / max(1, len(losses)),
            learning_rate=self._learning_rate(),
            utterances_per_s=len(self._sampler) / duration_s,
        )

    def _batch(self, indices: Sequence[int]) -> Batch:
        examples = [
            make_example(self._utterances[index], self._nano.extractor, self._nano.codec)
            for index in indices
        ]
        return collate(examples).to(self._nano.device)

    def _backward(self, batch: Batch) -> None:
        with torch.autocast(self._nano.device.type, torch.bfloat16, enabled=self._use_bf16):
            loss = self._objective(batch, training=True).total
        (loss / self._accum_grad).backward()  # type: ignore[no-untyped-call]
        self._unread.append((self.step + 1, batch.keys, loss.detach()))

    def _update(self) -> None:
        parameters = [
            parameter for group in self._optimizer.param_groups for parameter in group["params"]
        ]
        torch.nn.utils.clip_grad_norm_(parameters, self._grad_clip)
        self._optimizer.step()
        self._scheduler.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def _learning_rate(self) -> float:
        return float(self._scheduler.get_last_lr()[0])

    def _read_losses(self) -> list[float]:
        """Brings the losses since the last call to the host, checks and logs them."""
        if not self._unread:
            return []
        values = torch.stack([loss for _, _, loss in self._unread]).tolist()
        for (step, keys, _), value in zip(self._unread, values, strict=True):
            if not math.isfinite(value):
                raise WorkError(
                    f"loss is {value} at update {step}, in the batch of "
                    f"{', '.join(keys)}; a lower optim_conf.lr may help"
                )
        self._unread.clear()
        mean = sum(values) / len(values)
        learning_rate = self._learning_rate()
        _LOG.info("update %d: loss %.4f, lr %.3g", self.step, mean, learning_rate)
        self._on_log(self.step, {"train/loss": mean, "train/lr": learning_rate})
        return values
