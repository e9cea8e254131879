"""The parts of FunASR that Fun-ASR-Nano needs, without importing all of FunASR.

``import funasr`` imports every model it has (25 s); these few modules take 2 s beside torch. So
that their imports find their package without running its ``__init__``, a bare module of that name
stands in for it, unless the whole package was imported before.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import sys
import types
from typing import Any

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


def load(module: str) -> Any:
    """Imports one module of FunASR, and with the first one all that register classes."""
    _prepare()
    return importlib.import_module(module)


def version() -> str:
    return importlib.metadata.version("funasr")


def _prepare() -> None:
    if "funasr" in sys.modules:
        return
    spec = importlib.util.find_spec("funasr")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("funasr is not installed; see docs/first_day.md, step 0")
    package = types.ModuleType("funasr")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    package.__file__ = spec.origin
    sys.modules["funasr"] = package
    # FunASR prints a notice when ffmpeg is missing; audio here never goes through ffmpeg.
    with contextlib.redirect_stdout(io.StringIO()):
        for module in _REGISTERING_MODULES:
            importlib.import_module(module)
