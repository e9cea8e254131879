"""Stock FunASR's own training of one of our configurations, in one process.

What runs is FunASR's ``bin/train_ds.py`` from its first line to its last: its model, frontend,
dataset, sampler, optimizer, scheduler and loop. It needs a GPU only because it overwrites the
trainer's device with a number; here that assignment does nothing. The proof of effects, the
equality with our loop, the benchmark and ``finetune_conf.engine: stock`` all stand on this.

    run = train(arguments(config), max_updates=3)
    run.transcribe(Path("call.wav"))
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from conf.load import Config
from trainer.funasr_parts import load
from trainer.manifest import Audio, Utterance
from trainer.model import resolved_values, weights_path

_DATA_MODULES = (
    "funasr.datasets.fun_asr_datasets.datasets",
    "funasr.datasets.fun_asr_datasets.multicontext_prompt",
    "funasr.datasets.dataloader_entry",
    "funasr.datasets.audio_datasets.samplers",
)
_CLUSTERING = "funasr.models.campplus.cluster_backend"
"""Speaker clustering: FunASR does without it if it is missing, and it takes 5 s to import."""


@dataclass(frozen=True)
class Update:
    """State right after one of stock's updates, before the next batch.

    Attributes:
        number: From 1.
        loss: Of the update's last batch.
        learning_rate: What the update was made with.
        batch: That batch as FunASR's collator made it.
    """

    number: int
    loss: float
    learning_rate: float
    batch: Mapping[str, Any]
    model: Any
    optimizer: torch.optim.Optimizer


@dataclass(frozen=True)
class Hooks:
    """What is called while stock trains; what a hook raises ends the training.

    Attributes:
        built: Once, with the model before its first batch.
        batch: Before each forward pass, with the batch that is about to be written into by it.
        loss: After each backward pass, with the batch's loss, still on the device.
        gradients: Before each update, with the model; gradients as the optimizer gets them.
        update: After each update.
        epoch: After each epoch and stock's own validation, with its number from 1.
    """

    built: Callable[[Any], None] | None = None
    batch: Callable[[Mapping[str, Any]], None] | None = None
    loss: Callable[[torch.Tensor], None] | None = None
    gradients: Callable[[Any], None] | None = None
    update: Callable[[Update], None] | None = None
    epoch: Callable[[int, Any], None] | None = None


@dataclass(frozen=True)
class StockRun:
    """What stock trained: its model, and its own arguments with frontend and tokenizer."""

    model: Any
    arguments: Mapping[str, Any]

    def transcribe(self, source: Path) -> Mapping[str, Any]:
        """What stock inference makes of one recording, as ``generate`` calls it: ``text`` etc."""
        self.model.eval()
        # With a place to write to it would leave result files open there.
        arguments = {name: v for name, v in self.arguments.items() if name != "output_dir"}
        with torch.no_grad(), _quiet():
            results, _ = self.model.inference([str(source)], key=["utterance"], **arguments)
        result: Mapping[str, Any] = results[0]
        return result


class _Enough(BaseException):
    """Ends stock's loop; FunASR catches ``Exception`` in places."""


def arguments(config: Config, *, num_threads: int = 1, device: str = "cpu") -> dict[str, Any]:
    """A configuration as FunASR's training command gets it; its paths are absolute.

    Stock never sees ``finetune_conf``. Its data lists must be in chat form (see
    :func:`write_manifest`).
    """
    values = resolved_values(config)
    values.pop("finetune_conf", None)
    values["init_param"] = str(weights_path(config))
    # AutoModel takes 4 threads and asks for a newer version unless told otherwise.
    return {**values, "device": device, "ncpu": num_threads, "disable_update": True}


def train(
    arguments: Mapping[str, Any],
    *,
    max_updates: int | None = None,
    hooks: Hooks = Hooks(),  # noqa: B008 - it cannot change
) -> StockRun:
    """Runs FunASR's training.

    Args:
        arguments: From :func:`arguments`.
        max_updates: Stop after so many updates; what comes at the end of an epoch (validation,
            checkpoints) then does not happen.
        hooks: Called on the way.
    """
    command = training_module()
    device = arguments["device"]
    built: list[StockRun] = []

    class HookedTrainer(command.Trainer):  # type: ignore[name-defined,misc]
        # Stock puts a GPU's number here, whatever it was told.
        device = property(lambda self: device, lambda self, value: None)
        updates = 0

        def warp_model(self, model: Any, **kwargs: Any) -> Any:
            built.append(StockRun(model, kwargs))
            model = super().warp_model(model, **kwargs)
            if hooks.built is not None:
                hooks.built(model)
            return model

        def warp_optim_scheduler(self, model: Any, **kwargs: Any) -> Any:
            _, optimizer, _ = warped = super().warp_optim_scheduler(model, **kwargs)
            optimizer.register_step_pre_hook(lambda *_: self._before_update(model, optimizer))
            return warped

        def _before_update(self, model: Any, optimizer: torch.optim.Optimizer) -> None:
            self.learning_rate = float(optimizer.param_groups[0]["lr"])
            self.updates += 1  # here: stock leaves out an update whose gradient is not finite
            if hooks.gradients is not None:
                hooks.gradients(model)

        def forward_step(self, model: Any, batch: Any, loss_dict: Any) -> None:
            self.batch = batch
            if hooks.batch is not None and torch.is_grad_enabled():
                hooks.batch(batch)
            super().forward_step(model, batch, loss_dict=loss_dict)

        def backward_step(self, model: Any, scaler: Any, loss_dict: Any) -> None:
            super().backward_step(model, scaler, loss_dict=loss_dict)
            if hooks.loss is not None:
                hooks.loss(loss_dict["loss"].detach())

        def update_step(
            self, model: Any, optim: Any, scheduler: Any, scaler: Any, loss_dict: Any
        ) -> None:
            before = self.updates
            super().update_step(model, optim, scheduler, scaler, loss_dict=loss_dict)
            if self.updates == before:
                return
            if hooks.update is not None:
                loss = loss_dict["loss"].item()
                hooks.update(
                    Update(self.updates, loss, self.learning_rate, self.batch, model, optim)
                )
            if self.updates == max_updates:
                raise _Enough

        def validate_epoch(self, model: Any = None, epoch: Any = None, **kwargs: Any) -> None:
            super().validate_epoch(model=model, epoch=epoch, **kwargs)
            # Within an epoch it is called with the batch's number.
            if hooks.epoch is not None and kwargs.get("step_in_epoch") is None:
                hooks.epoch(epoch, model)

    with _quiet(), replaced(command, "Trainer", HookedTrainer), contextlib.suppress(_Enough):
        # Beneath Hydra, which would parse this process's command line.
        command.main_hydra.__wrapped__(arguments)
    return built[-1]


def training_module() -> Any:
    """FunASR's ``bin/train_ds.py`` with all that it finds through the registry."""
    for module in _DATA_MODULES:
        load(module)
    if not hasattr(sys.modules["funasr"], "AutoModel"):
        sys.modules.setdefault(_CLUSTERING, None)  # type: ignore[arg-type]
        auto_model = load("funasr.auto.auto_model").AutoModel
        if sys.modules[_CLUSTERING] is None:
            del sys.modules[_CLUSTERING]
        sys.modules["funasr"].AutoModel = auto_model  # type: ignore[attr-defined]
    return load("funasr.bin.train_ds")


def write_manifest(
    path: Path,
    utterances: Iterable[Utterance],
    audios: Iterable[Audio],
    text_length: Callable[[str], int],
) -> Path:
    """Writes utterances in the chat form, the only one that stock's dataset reads.

    Args:
        path: The manifest to write.
        utterances: What to write.
        audios: Their headers, in the same order.
        text_length: LLM tokens of a transcript; stock leaves out a line without any.
    """
    with path.open("w", encoding="utf-8") as file:
        for utterance, audio in zip(utterances, audios, strict=True):
            content = f"语音转写：<|startofspeech|>!{utterance.source.resolve()}<|endofspeech|>"
            line = {
                "key": utterance.key,
                "messages": [
                    {"role": "system", "content": "You are a helpful assistant."},
                    {"role": "user", "content": content},
                    {"role": "assistant", "content": utterance.target},
                ],
                "speech_length": audio.num_frames,
                "text_length": text_length(utterance.target),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return path


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """FunASR prints its tables, warns, and installs a log handler if there is none; not here."""
    handler = logging.NullHandler()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeHandler(handler)


@contextlib.contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Another value for a module's name while the block runs."""
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)
