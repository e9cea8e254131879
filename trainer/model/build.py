"""FunASR's FunASRNano from a configuration and a model directory, its weights all accounted for."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from conf.errors import DataError
from conf.load import Config
from conf.model_dir import FILE_KEYS, file_paths
from conf.progress import Progress
from conf.reading import flatten
from trainer.data.array_store import open_store
from trainer.data.features import FeatureExtractor
from trainer.data.text import TextCodec
from trainer.funasr_parts import registered
from trainer.model import lora
from trainer.model.activation_checkpointing import checkpoint_activations
from trainer.model.compiled import compile_layers
from trainer.model.fused import fuse
from trainer.model.weights import COMPONENTS, Coverage, load_weights
from trainer.model.without_memory import WithoutMemory

__all__ = [
    "COMPONENTS",
    "Coverage",
    "Nano",
    "apply_backends",
    "build",
    "choose_device",
    "load_weights",
    "model_files",
    "resolved_values",
    "weights_path",
]

_LOG = logging.getLogger(__name__)


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


def apply_backends(config: Config) -> None:
    """Sets how GPUs calculate, for the whole process, as stock's ``bin/train_ds.py`` does.

    ``enable_tf32`` here holds for cuDNN's convolutions too, which stock leaves at PyTorch's
    default. cuDNN's attention is off: its backward pass in bf16 has given NaN on H100 (pull request
    264 of pocket-tts).
    """
    torch.backends.cuda.enable_cudnn_sdp(False)
    cudnn = torch.backends.cudnn
    cudnn.enabled = config.get("cudnn_enabled", cudnn.enabled)
    cudnn.benchmark = config.get("cudnn_benchmark", cudnn.benchmark)
    cudnn.deterministic = config.get("cudnn_deterministic", True)
    tf32 = config.get("enable_tf32", True)
    torch.backends.cuda.matmul.allow_tf32 = tf32
    cudnn.allow_tf32 = tf32


def build(config: Config, *, weights: bool = True) -> Nano:
    """Builds the model of a configuration and loads the weights that it names.

    Args:
        config: Effective configuration; ``config.model_dir`` holds tokenizers and the LLM's
            configuration, ``init_param`` names the weights (default: the directory's model.pt).
        weights: False leaves the weights as initialised, for making a model from nothing.

    Raises:
        DataError: The directory lacks a file, or the checkpoint lacks weights.
    """
    apply_backends(config)
    values = resolved_values(config)
    extractor = FeatureExtractor(values["frontend"], values["frontend_conf"], open_store(config))
    codec = text_codec(values)
    arguments = {**values, **values.pop("model_conf"), "input_size": extractor.num_features}
    # Ours take the place of the constructor's own, see trainer/model/activation_checkpointing.py.
    checkpointed = {
        part: bool(values[f"{part}_conf"].pop("activation_checkpoint", False))
        for part in ("audio_encoder", "llm")
    }
    with Progress().step("building the model"):
        try:
            with WithoutMemory() if weights else nullcontext():
                model = registered("model_classes", values["model"])(**arguments)
        except (MemoryError, torch.OutOfMemoryError):
            raise  # of the machine, not of the model
        except Exception as error:  # FunASR and transformers raise many types
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise DataError(
                f"{config.model_dir}: FunASR cannot build this model ({reason}); expected the "
                "config.yaml and the LLM's config.json that belong to the weights"
            ) from error
        lora.set_precision(model, config["finetune_conf.lora_dtype"])
        if config["finetune_conf.fused"]:
            fuse(model)
        if config["finetune_conf.compile_layers"]:
            compile_layers(model)
        checkpoint_activations(model, **checkpointed)
        base = config.model_dir / "model.pt" if config.model_dir else None
        coverage = load_weights(model, weights_path(config), base) if weights else None
        device = choose_device(config.get("device"))
        model.to(device).eval()
    return Nano(model, extractor, codec, device, coverage)


def weights_path(config: Config) -> Path:
    """The file of weights that a configuration starts from.

    Raises:
        DataError: It names none, or there is no such file.
    """
    path = config.weights
    if path is None:
        raise DataError(
            "init_param: got nothing, expected the weights to start from "
            "(--init_param MODEL.pt or --model DIR)"
        )
    if not path.is_file():
        raise DataError(f"{path}: init_param: got no such file, expected the model's weights")
    return path


def text_codec(values: Mapping[str, Any]) -> TextCodec:
    """The tokenizers of a model, from its `resolved_values`."""
    dataset_conf = values["dataset_conf"]
    return TextCodec(
        values["tokenizer"],
        values["tokenizer_conf"],
        dataset_conf["ctc_tokenizer"],
        dataset_conf["ctc_tokenizer_conf"],
    )


def resolved_values(config: Config) -> dict[str, Any]:
    """The configuration's values with the model directory's files as absolute paths.

    ``configuration.json`` says which keys are paths, as in FunASR's own loading. The released
    directory does not list the CTC vocabulary; it lies beside the weights.

    Raises:
        DataError: The directory names other things than its own files, or lacks the LLM's.
    """
    values: dict[str, Any] = copy.deepcopy(config.values)
    directory = config.model_dir
    if directory is None:
        return values
    metas = file_paths(directory)
    metas = {name: meta for name, meta in metas.items() if name not in ("init_param", "config")}
    _insert_paths(metas, values, directory)
    vocabulary = directory / "multilingual.tiktoken"
    ctc_tokenizer_conf = values["dataset_conf"]["ctc_tokenizer_conf"]
    if not ctc_tokenizer_conf.get("vocab_path"):
        if not vocabulary.is_file():
            raise DataError(f"{vocabulary}: got no such file, expected the CTC vocabulary")
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


def model_files(config: Config) -> dict[str, str]:
    """Keys that name files of the model directory, with their paths relative to it."""
    directory = config.model_dir
    assert directory is not None
    return {
        key: str(Path(value).relative_to(directory))
        for key, value in flatten(resolved_values(config)).items()
        if FILE_KEYS.fullmatch(key) and value and Path(value).is_relative_to(directory)
    }


def _insert_paths(metas: Mapping[str, Any], values: dict[str, Any], directory: Path) -> None:
    for name, meta in metas.items():
        if isinstance(meta, Mapping):
            _insert_paths(meta, values.setdefault(name, {}), directory)
        elif isinstance(meta, str) and (directory / meta).exists():
            values[name] = str(directory / meta)
