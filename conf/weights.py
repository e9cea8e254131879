"""Find the directory of the weights: config.yaml, tokenizers, model.pt. Nothing is downloaded."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conf.errors import ConfigError
from conf.layers import Layer, merge, who_said


def find_model_dir(model: Path | str | None, layers: Sequence[Layer]) -> Path | None:
    """The directory of the weights.

    Args:
        model: A directory, or a hub's name of which there is a local copy; comes first.
        layers: Where `init_param` (a file of weights: its directory) or `model` may stand.

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
    if init_param is not None:
        return _complete(Path(init_param).parent, f"{where('init_param')}: init_param")
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


def _complete(directory: Path, label: str) -> Path:
    if not (directory / "config.yaml").is_file():
        raise ConfigError(
            f"{label}: got {directory}, expected a model directory: it holds no config.yaml"
        )
    return directory
