"""Stock FunASR's own training of one of our configurations, in one process on the CPU.

What runs is FunASR's ``bin/train_ds.py`` from its first line to its last: its model, frontend,
dataset, sampler, optimizer, scheduler and loop. It needs a GPU only because it overwrites the
trainer's device with a number; here that assignment does nothing. The proof of effects, the
comparison with our loop and the benchmark stand on this.

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


def arguments(config: Config, *, num_threads: int = 1) -> dict[str, Any]:
    """A configuration as FunASR's training command gets it; its paths are absolute.

    Stock never sees ``finetune_conf``. Its data lists must be in chat form (see
    :func:`write_manifest`).
    """
    values = resolved_values(config)
    values.pop("finetune_conf", None)
    values["init_param"] = str(weights_path(config))
    # AutoModel takes 4 threads and asks for a newer version unless told otherwise.
    return {**values, "device": "cpu", "ncpu": num_threads, "disable_update": True}


def train(
    arguments: Mapping[str, Any],
    *,
    max_updates: int | None = None,
    on_update: Callable[[Update], None] | None = None,
) -> StockRun:
    """Runs FunASR's training.

    Args:
        arguments: From :func:`arguments`.
        max_updates: Stop after so many updates; what comes at the end of an epoch (validation,
            checkpoints) then does not happen.
        on_update: Called after each update; what it raises ends the training.
    """
    command = training_module()
    built: list[StockRun] = []

    class CpuTrainer(command.Trainer):  # type: ignore[name-defined,misc]
        device = property(lambda self: "cpu", lambda self, value: None)

        def warp_model(self, model: Any, **kwargs: Any) -> Any:
            built.append(StockRun(model, kwargs))
            return super().warp_model(model, **kwargs)

        def forward_step(self, model: Any, batch: Any, loss_dict: Any) -> None:
            self.batch = batch
            super().forward_step(model, batch, loss_dict=loss_dict)

        def update_step(
            self, model: Any, optim: Any, scheduler: Any, scaler: Any, loss_dict: Any
        ) -> None:
            learning_rate = float(optim.param_groups[0]["lr"])
            super().update_step(model, optim, scheduler, scaler, loss_dict=loss_dict)
            if (loss_dict["batch_idx"] + 1) % self.accum_grad:
                return
            self.updates = getattr(self, "updates", 0) + 1
            if on_update is not None:
                loss = loss_dict["loss"].item()
                on_update(Update(self.updates, loss, learning_rate, self.batch, model, optim))
            if self.updates == max_updates:
                raise _Enough

    with _quiet(), replaced(command, "Trainer", CpuTrainer), contextlib.suppress(_Enough):
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
