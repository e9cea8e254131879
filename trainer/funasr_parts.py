"""The parts of FunASR that Fun-ASR-Nano needs, without importing all of FunASR.

``import funasr`` imports every model it has (25 s); these few modules take 2 s beside torch. So
that their imports find their package without running its ``__init__``, a bare module of that name
stands in for it, unless the whole package was imported before. The CTC tokenizer's package is
treated likewise: its ``__init__`` imports numba for Whisper's word timings.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.metadata
import importlib.util
import io
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

_PACKAGES = ("funasr", "funasr.models.sense_voice.whisper_lib")
_REGISTERING_MODULES = (
    "funasr.models.fun_asr_nano.model",
    "funasr.models.sense_voice.model",
    "funasr.models.llm_asr.adaptor",
    "funasr.models.lora.layers",
    "funasr.models.specaug.specaug",
    "funasr.frontends.wav_frontend",
    "funasr.tokenizer.hf_tokenizer",
    "funasr.tokenizer.whisper_tokenizer",
)


def registered(table: str, name: str) -> Any:
    """A class of FunASR's registry, such as ``registered("model_classes", "FunASRNano")``.

    Raises:
        KeyError: FunASR registers no class of that name there.
    """
    return getattr(load("funasr.register").tables, table)[name]


def make_model(name: str, arguments: Mapping[str, Any]) -> Any:
    """A model of FunASR's.

    Its LLM is the first that needs transformers' models, which import ``scipy.optimize`` for one
    function of detection losses.
    """
    model_class = registered("model_classes", name)
    with _no_collection(), _imported_when_called("scipy.optimize", "linear_sum_assignment"):
        return model_class(**arguments)


def load(module: str) -> Any:
    """Imports one module of FunASR, and with the first one all that register classes."""
    _prepare()
    return importlib.import_module(module)


def version() -> str:
    return importlib.metadata.version("funasr")


def _prepare() -> None:
    if "funasr" in sys.modules:
        return
    if importlib.util.find_spec("funasr") is None:
        raise ModuleNotFoundError("funasr is not installed; see docs/first_day.md, step 0")
    for name in _PACKAGES:
        sys.modules[name] = _without_init(name)
    # FunASR prints a notice when ffmpeg is missing; audio here never goes through ffmpeg.
    with contextlib.redirect_stdout(io.StringIO()), _no_collection():
        for module in _REGISTERING_MODULES:
            importlib.import_module(module)


def _without_init(name: str) -> types.ModuleType:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    package = types.ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations or ())
    package.__spec__ = spec
    package.__file__ = spec.origin
    return package


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from looking through what imports make, all of which stays."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _imported_when_called(module: str, function: str) -> Iterator[None]:
    """Let who imports a function of a module within the block get one that imports it later.

    Any other name imports the module at once.
    """
    if module in sys.modules:
        yield
        return
    stand_in = types.ModuleType(module)

    def imported(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(module) is stand_in:
            del sys.modules[module]
        return getattr(importlib.import_module(module), name)

    def call(*args: Any, **kwargs: Any) -> Any:
        return imported(function)(*args, **kwargs)

    vars(stand_in).update({function: call, "__getattr__": imported})
    sys.modules[module] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(module) is stand_in:
            del sys.modules[module]
