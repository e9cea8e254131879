"""Find the directory of the weights: config.yaml, tokenizers, model.pt. Nothing is downloaded."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conf.errors import ConfigError
from conf.layers import Layer, merge, who_said
from conf.reading import flatten, read_yaml


def find_model_dir(model: Path | str | None, layers: Sequence[Layer]) -> Path | None:
    """The directory of the weights.

    Args:
        model: A directory, or a hub's name of which there is a local copy; comes first.
        layers: Where `init_param` or `model` may stand. A directory named by `model` comes before
            that of `init_param`; a hub's name comes after it. A checkpoint of this trainer
            belongs to the model directory of the run that wrote it.

    Raises:
        ConfigError: If what is named is not there.
    """
    settings, where = merge(layers), who_said(layers)
    named, init_param = settings.get("model"), settings.get("init_param")
    if init_param is not None and not Path(str(init_param)).is_file():
        raise ConfigError(
            f"{where('init_param')}: init_param: got {init_param}, expected a file of weights"
            " such as MODEL/model.pt"
        )
    if model is not None:
        return _directory(str(model), "--model")
    if init_param is not None and not (isinstance(named, str) and Path(named).is_dir()):
        return _beside(Path(init_param), f"{where('init_param')}: init_param")
    if is_place(named):
        return _directory(str(named), f"{where('model')}: model")
    return None


def is_place(model: Any) -> bool:
    """Whether `model` is a directory or a hub's name, not the name of a model class."""
    return isinstance(model, str) and ("/" in model or Path(model).is_dir())


def _directory(name: str, label: str) -> Path:
    candidates = [Path(name)]
    if cache := os.environ.get("MODELSCOPE_CACHE"):
        candidates.append(Path(cache, "models", name))
    for candidate in candidates:
        if candidate.is_dir():
            return _complete(candidate, label)
    raise ConfigError(
        f"{label}: got {name}, expected a local directory: nothing is downloaded here,"
        " so fetch that model once with its hub's own client and give the place as --model DIR"
    )


def _beside(init_param: Path, label: str) -> Path:
    run = init_param.parent.parent / "config.yaml"
    if init_param.suffix == ".safetensors" and run.is_file():
        document = read_yaml(run)
        layer = Layer(str(run), flatten(document.values), document)
        if (found := find_model_dir(None, [layer])) is not None:
            return found
    hint = " (--model DIR names one for weights that lie elsewhere)"
    return _complete(init_param.parent, label, hint)


def _complete(directory: Path, label: str, hint: str = "") -> Path:
    if not (directory / "config.yaml").is_file():
        raise ConfigError(
            f"{label}: got {directory}, expected a model directory: it holds no config.yaml{hint}"
        )
    return directory
