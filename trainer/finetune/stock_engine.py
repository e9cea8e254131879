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
import random
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch

from conf import keys
from conf.effects import effect_of
from conf.errors import UserError, WorkError
from conf.load import Config
from trainer.data.manifest import Audio, Utterance, chat_line, read_headers
from trainer.finetune.engine import EpochSummary
from trainer.funasr_parts import load
from trainer.model.build import Nano, resolved_values, weights_path

if TYPE_CHECKING:
    from trainer.data.sets import Data

_LOG = logging.getLogger(__name__)

_DATA_MODULES = (
    "funasr.datasets.fun_asr_datasets.datasets",
    "funasr.datasets.fun_asr_datasets.multicontext_prompt",
    "funasr.datasets.dataloader_entry",
    "funasr.datasets.audio_datasets.samplers",
)
HELD: Mapping[str, Any] = {"dataset_conf.data_split_num": 1}
"""What the engine gives stock whatever the configuration says: it reads a single .jsonl whole in
each of its splits, so an epoch would go through it as many times."""

_INTERVAL, _SAVED = "train_conf.validate_interval", "train_conf.save_checkpoint_interval"

_SWITCHED_OFF: Mapping[str, Any] = {
    "ctc_weight": 0.0,
    "specaug": None,
    "llm_conf.lora_conf.freeze_lora": False,
    "finetune_conf.lora_dtype": "llm",
    "finetune_conf.decay_norm_and_bias": True,
    "finetune_conf.frozen_dropout": True,
    "finetune_conf.zero_padding": False,
    "finetune_conf.max_skipped_steps": 0,
}
"""Where our additions to training do nothing: with other values stock ignores them. What else
stands in finetune_conf is about evaluation and the run, which are ours with either engine."""

_PARTS: Mapping[str, str] = {
    "specaug_conf.": "specaug",
    "llm_conf.lora_conf.": "llm_conf.use_lora",
    "finetune_conf.lora_dtype": "llm_conf.use_lora",
    "detach_ctc_decoder": "ctc_weight",
    "ctc_": "ctc_weight",
}
"""Keys that say how an addition does its work, by what switches it on."""

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


class StockEngine:
    """FunASR's unmodified trainer in the place of ours: it trains, we evaluate and track.

    It reads our manifests in chat form (context such as hot words is not carried over), writes its
    own checkpoints under ``output_dir/stock``, and cannot go on where it was interrupted: it starts
    anew. A loss that is not finite it leaves out, whatever ``max_skipped_steps`` says.

    Args:
        config: Effective configuration; the log names what of it stock will ignore.
        nano: Model with its tokenizers. From the start of training on its modules are stock's.
        data: Sets with their audio headers.
        on_log: Gets the step and its metrics every ``log_interval`` updates.
    """

    def __init__(
        self,
        config: Config,
        nano: Nano,
        data: Data,
        on_log: Callable[[int, dict[str, float]], None],
    ) -> None:
        self.step = 0
        self.nano = nano
        self._config = config
        self._data = data
        self._on_log = on_log
        self._directory = Path(config["output_dir"]) / "stock"
        self._learning_rate = 0.0
        self._losses: list[torch.Tensor] = []
        self._logged = 0
        self._num_utterances = 0
        self._started_s = self._trained_s = 0.0
        if ignored := ignored_keys(config):
            _LOG.warning("stock FunASR's trainer ignores %s", ", ".join(ignored))
        for key, value in HELD.items():
            if config.get(key) not in (None, value):
                _LOG.warning("%s: got %s, stock reads one manifest: %s", key, config[key], value)

    def train(self, on_epoch: Callable[[int, EpochSummary], None], start_epoch: int = 1) -> None:
        """Trains all epochs, and calls ``on_epoch`` after each, its model ready to be evaluated.

        Args:
            on_epoch: Gets the epoch's number; what it raises ends the training.
            start_epoch: Where another engine would go on; stock begins at the first one.

        Raises:
            WorkError: Stock failed.
        """
        if start_epoch > 1 or self._directory.exists():
            _LOG.warning("stock FunASR's trainer starts anew; %s is emptied", self._directory)
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)
        interrupted: list[Exception] = []

        def after_epoch(epoch: int, model: Any) -> None:
            try:
                with _random_state_kept():
                    on_epoch(epoch, self._summary())
            except Exception as error:
                interrupted.append(error)
                raise
            model.train()  # as stock left it, and saves it next
            self._losses.clear()
            self._logged = self._num_utterances = 0
            self._started_s = time.perf_counter()

        hooks = Hooks(
            built=self._built,
            batch=self._count,
            loss=self._note_loss,
            update=self._after_update,
            epoch=after_epoch,
        )
        try:
            train(self._arguments(), hooks=hooks)
        except (UserError, WorkError):
            raise
        except Exception as error:
            if interrupted == [error]:
                raise
            reason = " ".join(str(error).split()) or "no reason given"
            raise WorkError(
                f"stock FunASR's trainer, update {self.step + 1}: {type(error).__name__}: {reason}"
            ) from error

    def _arguments(self) -> dict[str, Any]:
        """Stock's arguments, with our manifests written as it reads them."""
        sets = {
            "train": (self._data.train, self._data.train_audios),
            "valid": (self._data.evaluation["valid"], None),
        }
        lists = {}
        for split, (utterances, audios) in sets.items():
            lists[f"{split}_data_set_list"] = str(
                write_manifest(
                    self._directory / f"{split}.jsonl",
                    utterances,
                    read_headers(utterances) if audios is None else audios,
                    lambda text: len(self.nano.codec.target_ids(text)) - 1,
                )
            )
        config = self._config.replace(
            {**HELD, **lists, "output_dir": str(self._directory)}, "stock"
        )
        values = arguments(
            config,
            num_threads=config["finetune_conf.num_threads"],
            device=str(self.nano.device),
        )
        coverage = self.nano.coverage
        if coverage is not None and coverage.filled:  # stock reads one whole checkpoint
            values["init_param"] = str(self._directory / "init.pt")
            torch.save({"state_dict": self.nano.model.state_dict()}, values["init_param"])
        return {**values, "seed": config["finetune_conf.seed"]}

    def _built(self, model: Any) -> None:
        # The modules themselves, so that evaluation follows each update and needs no memory.
        for name, module in model.named_children():
            setattr(self.nano.model, name, module)
        self._started_s = time.perf_counter()

    def _count(self, batch: Mapping[str, Any]) -> None:
        self._num_utterances += len(batch["item"])

    def _note_loss(self, loss: torch.Tensor) -> None:
        self._losses.append(loss)
        self._trained_s = time.perf_counter()

    def _after_update(self, update: Update) -> None:
        self.step, self._learning_rate = update.number, update.learning_rate
        if self.step % self._config["train_conf.log_interval"]:
            return
        loss = torch.stack(self._losses[self._logged :]).mean().item()
        self._logged = len(self._losses)
        _LOG.info("update %d: loss %.4f, lr %.3g", self.step, loss, self._learning_rate)
        self._on_log(self.step, {"train/loss": loss, "train/lr": self._learning_rate})

    def _summary(self) -> EpochSummary:
        loss = torch.stack(self._losses).mean().item() if self._losses else float("nan")
        duration_s = max(self._trained_s - self._started_s, 1e-9)
        return EpochSummary(loss, self._learning_rate, self._num_utterances / duration_s)


def ignored_keys(config: Config) -> list[str]:
    """Keys that our trainer acts on and stock does not, where that makes a difference.

    Of the keys whose proven effect is ``here``: the switches of our additions to training where
    they are on, and what says how an addition works where it is on and not at its default.
    """

    def acts_here_only(key: str) -> bool:
        return effect_of(key, config.stage) in ("here", None)

    switches = [
        key
        for key, off in _SWITCHED_OFF.items()
        if acts_here_only(key) and config.get(key, off) != off and _is_on(config, key)
    ]
    parts = [
        key.name
        for key in keys.all_keys().values()
        if key.name not in _SWITCHED_OFF
        and not key.name.startswith("finetune_conf.")
        and effect_of(key.name, config.stage) == "here"
        and config.get(key.name, key.default) != key.default
        and _is_on(config, key.name)
    ]
    return switches + parts


def _is_on(config: Config, key: str) -> bool:
    """Whether the addition is on that a key belongs to."""
    switch = next((switch for part, switch in _PARTS.items() if key.startswith(part)), None)
    return switch is None or switch == key or bool(config.get(switch))


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Evaluation draws what it likes; stock's training goes on as if there were none."""
    states = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng():
        yield
    random.setstate(states[0])
    numpy.random.set_state(states[1])


class _Enough(BaseException):
    """Ends stock's loop; FunASR catches ``Exception`` in places."""


def arguments(config: Config, *, num_threads: int = 1, device: str = "cpu") -> dict[str, Any]:
    """A configuration as FunASR's training command gets it; its paths are absolute.

    Stock never sees ``finetune_conf``. Its data lists must be in chat form (see
    :func:`write_manifest`).
    """
    values = resolved_values(config.replace(stock_interval(config), "stock"))
    values.pop("finetune_conf", None)
    values["init_param"] = str(weights_path(config))
    # AutoModel takes 4 threads and asks for a newer version unless told otherwise.
    return {**values, "device": device, "ncpu": num_threads, "disable_update": True}


def stock_interval(config: Config) -> dict[str, Any]:
    """Give the interval of validation in the place of null, which stock does not take.

    It is that of its checkpoints: stock ranks and deletes only those that it validated, so others
    would stay on the disk.
    """
    if config.get(_INTERVAL, 0) is not None:
        return {}
    return {_INTERVAL: config.get(_SAVED, keys.all_keys()[_SAVED].default)}


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
            line = chat_line(
                utterance.key,
                utterance.source.resolve(),
                utterance.target,
                num_frames=audio.num_frames,
                num_tokens=text_length(utterance.target),
            )
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
