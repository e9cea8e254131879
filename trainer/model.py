"""FunASR's FunASRNano from a configuration and a model directory, its weights all accounted for.

FunASR itself only prints when a checkpoint lacks weights, and goes on with random ones; here a
missing component stops the run.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from conf.errors import DataError
from conf.load import Config
from trainer.features import FeatureExtractor
from trainer.funasr_parts import load, registered
from trainer.store import open_store
from trainer.text import TextCodec

_LOG = logging.getLogger(__name__)

COMPONENTS = ("audio_encoder", "audio_adaptor", "llm", "ctc_decoder", "ctc")


@dataclass(frozen=True)
class Coverage:
    """How much of each component's weights the checkpoint held."""

    sha256: str
    loaded: Mapping[str, int]
    expected: Mapping[str, int]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{name} {self.loaded[name]}/{self.expected[name]}" for name in self.expected]
        return f"weights {self.sha256[:12]}: " + ", ".join(parts)


@dataclass(frozen=True)
class Nano:
    """A FunASRNano with its frontend and tokenizers, and where it runs."""

    model: Any
    extractor: FeatureExtractor
    codec: TextCodec
    device: torch.device
    coverage: Coverage | None


def choose_device(wanted: str | None = None) -> torch.device:
    """The device to run on: what the configuration's ``device`` wants where that is there.

    Args:
        wanted: ``cpu``, ``cuda`` or ``cuda:N``; None takes a GPU where there is one.
    """
    if wanted is not None and (wanted == "cpu" or torch.cuda.is_available()):
        return torch.device(wanted)
    if wanted is not None:
        _LOG.warning("device: got %r, which is not here; running on the CPU", wanted)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def build(config: Config, *, weights: bool = True) -> Nano:
    """Builds the model of a configuration and loads the weights that it names.

    Args:
        config: Effective configuration; ``config.model_dir`` holds tokenizers and the LLM's
            configuration, ``init_param`` names the weights (default: the directory's model.pt).
        weights: False leaves the weights as initialised, for making a model from nothing.

    Raises:
        DataError: The directory lacks a file, or the checkpoint lacks weights.
    """
    values = resolved_values(config)
    extractor = FeatureExtractor(values["frontend"], values["frontend_conf"], open_store(config))
    dataset_conf = values["dataset_conf"]
    codec = TextCodec(
        values["tokenizer"],
        values["tokenizer_conf"],
        dataset_conf["ctc_tokenizer"],
        dataset_conf["ctc_tokenizer_conf"],
    )
    arguments = {**values, **values.pop("model_conf"), "input_size": extractor.num_features}
    model = registered("model_classes", values["model"])(**arguments)
    coverage = load_weights(model, weights_path(config)) if weights else None
    device = choose_device(config.get("device"))
    return Nano(model.to(device).eval(), extractor, codec, device, coverage)


def weights_path(config: Config) -> Path:
    """The checkpoint that a configuration starts from.

    Raises:
        DataError: It names none, or there is no such file.
    """
    if init_param := config.get("init_param"):
        path = Path(init_param)
    elif config.model_dir is not None:
        path = config.model_dir / "model.pt"
    else:
        raise DataError(
            "init_param: got nothing, expected the weights to start from "
            "(--init_param MODEL.pt or --model DIR)"
        )
    if not path.is_file():
        raise DataError(f"{path}: init_param: got no such file, expected the model's weights")
    return path


def resolved_values(config: Config) -> dict[str, Any]:
    """The configuration's values with the model directory's files as absolute paths.

    ``configuration.json`` says which keys are paths, as in FunASR's own loading. The released
    directory does not list the CTC vocabulary; it lies beside the weights.
    """
    values: dict[str, Any] = copy.deepcopy(config.values)
    directory = config.model_dir
    if directory is None:
        return values
    description = directory / "configuration.json"
    if description.is_file():
        metas = json.loads(description.read_text(encoding="utf-8")).get("file_path_metas", {})
        metas = {name: meta for name, meta in metas.items() if name not in ("init_param", "config")}
        _insert_paths(metas, values, directory)
    vocabulary = directory / "multilingual.tiktoken"
    ctc_tokenizer_conf = values["dataset_conf"]["ctc_tokenizer_conf"]
    if vocabulary.is_file() and not ctc_tokenizer_conf.get("vocab_path"):
        ctc_tokenizer_conf["vocab_path"] = str(vocabulary)
    for section in ("llm_conf", "tokenizer_conf"):
        path = Path(values[section]["init_param_path"])
        if not path.is_absolute() and (directory / path).is_dir():
            values[section]["init_param_path"] = str(directory / path)
        elif not path.is_dir():
            raise DataError(
                f"{directory}: {section}.init_param_path: got {str(path)!r}, expected a directory "
                "with the LLM's config.json and tokenizer beside the weights"
            )
    return values


def load_weights(model: torch.nn.Module, path: Path) -> Coverage:
    """Loads a checkpoint and checks that every weight of the model but new LoRA ones is in it.

    Raises:
        DataError: The file is no checkpoint, or weights are missing or of another shape.
    """
    normalize = load("funasr.models.fun_asr_nano.checkpoint_utils").normalize_checkpoint_state
    try:
        state = normalize(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises many types for a file that is no checkpoint
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: got {reason}, expected a torch checkpoint") from error
    own = model.state_dict()
    expected = {name for name in own if ".lora_" not in name}
    loaded = {name for name in expected if name in state and state[name].shape == own[name].shape}
    coverage = Coverage(
        sha256=file_sha256(path),
        loaded=_per_component(loaded),
        expected=_per_component(expected),
        unused=tuple(sorted(set(state) - set(own))),
    )
    problems = [
        f"{path}: {component}: got {coverage.loaded[component]} of {number} weights of the right "
        f"shape, expected all ({_example(expected - loaded, component)})"
        for component, number in coverage.expected.items()
        if coverage.loaded[component] < number
    ]
    if problems:
        raise DataError(problems)
    model.load_state_dict({name: state[name] for name in own if name in state}, strict=False)
    return coverage


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _insert_paths(metas: Mapping[str, Any], values: dict[str, Any], directory: Path) -> None:
    for name, meta in metas.items():
        if isinstance(meta, Mapping):
            _insert_paths(meta, values.setdefault(name, {}), directory)
        elif isinstance(meta, str) and (directory / meta).exists():
            values[name] = str(directory / meta)


def _component(name: str) -> str:
    return name.split(".", 1)[0]


def _per_component(names: set[str]) -> dict[str, int]:
    counts = Counter(map(_component, names))
    return {component: counts[component] for component in COMPONENTS}


def _example(missing: set[str], component: str) -> str:
    return "missing " + min(name for name in missing if _component(name) == component)
