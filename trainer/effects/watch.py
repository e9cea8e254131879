"""What a run does, as a sequence of observations that another run is compared with.

The hooks sit where stock and our trainer meet: FunASR's model and frontend, PyTorch's backward,
optimizers and data loader. So both are watched by the same code.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import pdb
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from trainer.data.array_store import ArrayStore, default_directory
from trainer.data.loader import Loader
from trainer.finetune.resume import ResumeFolder
from trainer.funasr_parts import registered
from trainer.model import activation_checkpointing

WEAK = ("settings", "logs")
"""Kinds that leave what is trained as it was; a change in another kind says more."""

COURSE = "course"
"""Kind of a change in what is done when, and how often."""

BATCHES = "batches"

_LOGGED = re.compile(r"^(train|val), (.*?), \[\(")
_IGNORED_FILES = (
    *("config.yaml", "deltas.json", "deltas.md", "tensorboard", "1best_recog"),
    # They name the configuration and hold times; what else is in them is logged, too.
    *("result.json", "resume"),
)


class Changed(BaseException):
    """A run has done something else than the one it is compared with.

    No Exception: FunASR catches those in places, and the rest of the run need not be waited for.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass
class Watcher:
    """Notes what a run does, or compares it with what an earlier run did.

    Attributes:
        expected: Observations of the earlier run; None only notes.
        seen: Kind and digest of each observation, weak ones apart from the others.
        features: Digests of the features of each utterance. Their order is that of the batches.
        without_gradient: The kind of what the model is given while it does not learn.
    """

    expected: Watcher | None = None
    seen: list[tuple[str, str]] = field(default_factory=list)
    weak: list[tuple[str, str]] = field(default_factory=list)
    features: set[str] = field(default_factory=set)
    without_gradient: str = "evaluation"

    def note(self, kind: str, value: Any) -> None:
        """Notes a value.

        Raises:
            Changed: The earlier run did something else here.
        """
        entry = (kind, _digest(value))
        if kind in WEAK:
            self.weak.append(entry)
            return
        number = len(self.seen)
        self.seen.append(entry)
        if self.expected is None:
            return
        before = self.expected.seen[number : number + 1]
        if before != [entry]:
            raise Changed(self._kind(kind, before))

    def note_features(self, features: Any) -> None:
        """Notes the features of one utterance."""
        self.features.add(_digest(features))

    def finish(self) -> str | None:
        """The kind of a change that only the whole run shows; None if there is none."""
        assert self.expected is not None
        if len(self.seen) < len(self.expected.seen):
            return COURSE
        changed = [
            now[0] if now[0] == before[0] else COURSE
            for now, before in zip(self.weak, self.expected.weak, strict=False)
            if now != before
        ]
        if not changed and len(self.weak) != len(self.expected.weak):
            return "logs"
        return changed[0] if changed else None

    def _kind(self, kind: str, before: Sequence[tuple[str, str]]) -> str:
        assert self.expected is not None
        if kind == "error":
            return kind
        if not before or before[0][0] != kind:
            return COURSE
        new_features = self.features - self.expected.features
        return "features" if new_features and kind in (BATCHES, "evaluation") else kind


@contextlib.contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Puts the hooks in place while the block runs, and everything back after it."""
    threads, backends = torch.get_num_threads(), _backends()
    model_class = registered("model_classes", "FunASRNano")
    frontend_class = registered("frontend_classes", "WavFrontend")
    with contextlib.ExitStack() as stack:
        # Each run starts with an empty cache, as on a new machine.
        home = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(mock.patch.dict(os.environ, XDG_CACHE_HOME=home))
        stack.callback(torch.set_num_threads, threads)
        for (owner, attribute), before in backends.items():
            stack.callback(setattr, owner, attribute, before)
        for target, name, value in (
            (model_class, "__init__", _watched_init(model_class.__init__, watcher)),
            (frontend_class, "forward", _watched_frontend(frontend_class.forward, watcher)),
            (torch.Tensor, "backward", _watched_backward(torch.Tensor.backward, watcher)),
            (torch.utils.data, "DataLoader", _watched_loader(watcher)),
            (pdb, "set_trace", lambda: watcher.note("settings", "debugger")),
            (Loader, "__init__", _watched_workers(Loader.__init__, watcher)),
            (ResumeFolder, "save", _watched_point(ResumeFolder.save, watcher)),
            (ArrayStore, "__init__", _watched_store(ArrayStore.__init__, watcher)),
            (torch, "compile", _watched_compile(watcher)),
            # It changes no number: what is computed again has to be seen itself.
            (
                activation_checkpointing,
                "checkpoint",
                _watched_checkpoint(activation_checkpointing.checkpoint, watcher),
            ),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        # Each run of stock's would leave a thread behind that writes its curves.
        stack.enter_context(_without("tensorboardX"))
        for hook in (
            register_optimizer_step_pre_hook(_before_step(watcher)),
            register_optimizer_step_post_hook(_after_step(watcher)),
        ):
            stack.callback(hook.remove)
        stack.enter_context(_stock_log(watcher))
        yield
        watcher.note("settings", {"threads": torch.get_num_threads()})
        watcher.note("settings", {name: value for (_, name), value in _backends().items()})


def _backends() -> dict[tuple[Any, str], bool]:
    """How GPUs would calculate, by where it is set."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    places = [(cudnn, name) for name in ("enabled", "benchmark", "deterministic")]
    return {place: getattr(*place) for place in [*places, (matmul, "allow_tf32")]}


def note_files(watcher: Watcher, directory: Path) -> None:
    """Notes names and contents of what a run has written."""
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory)
        if path.is_file() and name.parts[0] not in _IGNORED_FILES:
            kind = "texts" if name.parts[0] == "hypotheses" else "checkpoints"
            watcher.note(kind, [name.as_posix(), _content(path)])


def _content(path: Path) -> Any:
    if path.suffix != ".safetensors":
        return path.read_bytes()
    with safe_open(path, framework="pt") as file:  # its metadata lie in any order
        metadata = dict(sorted((file.metadata() or {}).items()))
    return {**metadata, **load_file(path)}


def _digest(value: Any) -> str:
    digest = hashlib.blake2b(digest_size=12)
    _feed(value, digest.update)
    return digest.hexdigest()


def _feed(value: Any, update: Callable[[Any], None]) -> None:
    if isinstance(value, torch.Tensor):
        update(f"{tuple(value.shape)}{value.dtype}".encode())
        # As bytes: numpy knows no bfloat16.
        update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            update(f"{name}=".encode())
            _feed(item, update)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for item in value:
            _feed(item, update)
    else:
        update(value if isinstance(value, bytes) else f"{value!r};".encode())


def _watched_init(original: Callable[..., None], watcher: Watcher) -> Callable[..., None]:
    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        shapes = [(name, tuple(p.shape), str(p.dtype)) for name, p in self.named_parameters()]
        watcher.note("parameters", shapes)
        checkpointing = [getattr(m, "gradient_checkpointing", None) for m in self.llm.modules()]
        watcher.note("settings", {"checkpointing": checkpointing})
        for module, kind in ((self.audio_encoder, BATCHES), (self.llm.model, "LLM input")):
            module.register_forward_pre_hook(_note_inputs(watcher, kind), with_kwargs=True)

    return init


def _note_inputs(watcher: Watcher, kind: str) -> Callable[..., None]:
    names = ("inputs_embeds", "attention_mask")

    def hook(_: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        current = kind if torch.is_grad_enabled() else watcher.without_gradient
        watcher.note(current, [*args, *(kwargs.get(name) for name in names)])

    return hook


def _watched_frontend(original: Callable[..., Any], watcher: Watcher) -> Callable[..., Any]:
    @functools.wraps(original)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        watcher.note_features(result)
        return result

    return forward


def _watched_backward(original: Callable[..., Any], watcher: Watcher) -> Callable[..., Any]:
    @functools.wraps(original)
    def backward(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        watcher.note("loss", self)
        return original(self, *args, **kwargs)

    return backward


def _watched_store(original: Callable[..., None], watcher: Watcher) -> Callable[..., None]:
    @functools.wraps(original)
    def init(self: ArrayStore, directory: Path, max_bytes: int) -> None:
        original(self, directory, max_bytes)
        where = "user's" if directory == default_directory() else directory
        watcher.note("settings", {"cache": max_bytes, "in": str(where)})

    return init


def _watched_checkpoint(original: Callable[..., Any], watcher: Watcher) -> Callable[..., Any]:
    def checkpoint(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        watcher.note("settings", "computed again")
        return original(function, *args, **kwargs)

    return checkpoint


def _watched_compile(watcher: Watcher) -> Callable[..., Any]:
    """Compiles nothing: that would take a minute."""

    def compile(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        watcher.note("settings", "compiled")
        return function

    return compile


def _watched_point(original: Callable[..., None], watcher: Watcher) -> Callable[..., None]:
    def save(self: ResumeFolder, step: int, state: dict[str, Any]) -> None:
        watcher.note("checkpoints", ["resume", step])
        original(self, step, state)

    return save


def _watched_workers(original: Callable[..., None], watcher: Watcher) -> Callable[..., None]:
    """Loads in this process, whatever was asked for."""

    def init(self: Loader, utterances: Any, load: Any, num_workers: int, **kwargs: Any) -> None:
        watcher.note("settings", {"workers": num_workers})
        original(self, utterances, load, 0, **kwargs)

    return init


def _watched_loader(watcher: Watcher) -> type:
    class StocksLoader(torch.utils.data.DataLoader[Any]):
        """Loads in this process, whatever was asked for."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            watcher.note("settings", {"workers": kwargs.pop("num_workers", 0)})
            for name in ("persistent_workers", "prefetch_factor"):
                kwargs.pop(name, None)
            super().__init__(*args, **kwargs)

    return StocksLoader


def _before_step(watcher: Watcher) -> Callable[..., None]:
    def hook(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            settings = {name: value for name, value in group.items() if name != "params"}
            rate = settings.pop("lr")
            watcher.note("learning rate", rate)
            settings.pop("initial_lr", None)
            watcher.note("optimizer", {"parameters": len(group["params"]), **settings})
            watcher.note("gradients", [parameter.grad for parameter in group["params"]])

    return hook


def _after_step(watcher: Watcher) -> Callable[..., None]:
    def hook(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            watcher.note("weights", group["params"])

    return hook


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """Lets the import of a module fail."""
    before = sys.modules.get(module)
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]
        if before is not None:
            sys.modules[module] = before


@contextlib.contextmanager
def _stock_log(watcher: Watcher) -> Iterator[None]:
    """Notes the lines that stock's loop logs, without their times."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if match := _LOGGED.match(record.getMessage()):
                watcher.note("logs", match.group(0))

    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers[:] = [Handler()]
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
