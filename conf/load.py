"""Load a configuration: lay its layers over each other and check the whole.

    the released model's training keys (pretrained.yaml), architecture from the weights' directory
      <- the configuration's file <- a sweep's `set:` and sampled values <- the command line

Nothing here needs a GPU, the weights or a heavy import; all mistakes are told at once, each with
file, line, key, what was got and what was expected.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from conf import keys
from conf.errors import ConfigError, DataError
from conf.layers import Layer, effective, merge, resolve, unknown_keys
from conf.model_dir import find_copy, find_model_dir, is_place
from conf.reading import Document, flatten, parse_value, read_yaml, unflatten
from conf.writing import to_yaml

__all__ = [
    "STAGES",
    "Config",
    "Document",
    "flatten",
    "is_as_shipped",
    "is_override",
    "load_config",
    "load_model_config",
    "parse_overrides",
    "read_yaml",
    "stage_config_path",
    "unflatten",
]

STAGES: Mapping[str, str] = {
    "8k": "config_8k_telephone",
    "s1": "stage1_encoder_adapt",
    "s2": "stage2_adapter_align",
    "s3": "stage3_lora_domain",
}
"""Short names of the stages (tags, tables) and the configurations they stand for."""

FROM_HUB = "config_8k_telephone_from_hub"
"""A configuration of ours that is no stage's."""

HERE = Path(__file__).parent
PRETRAINED = HERE / "pretrained.yaml"
COMMAND_LINE = "command line"
ALLOWED = "finetune_conf.allow_unknown"
FOUND = frozenset({"init_param", "finetune_conf.stage"})
"""Keys that are found where nobody says them."""

PATHS = frozenset(
    {
        "train_data_set_list",
        "valid_data_set_list",
        "finetune_conf.wideband_data_set_list",
        "finetune_conf.silence_data_set_list",
        "finetune_conf.test_data_set_list",
        "finetune_conf.keywords",
        "finetune_conf.feature_cache_dir",
        "init_param",
        "output_dir",
    }
)
"""Keys that say where things lie on one machine; a fingerprint leaves them out."""


@dataclass(frozen=True)
class Config:
    """A checked configuration; make another one with `replace`, do not change its values."""

    values: dict[str, Any]
    """The effective values, nested, in the schema's order; references are resolved."""
    base: dict[str, Any]
    """What they are compared with: the released model's training, the weights' architecture."""
    stage: str
    """`8k`, `s1`, `s2`, `s3` or `custom`."""
    model_dir: Path | None
    """The directory of the weights, with config.yaml and tokenizers."""
    in_file: frozenset[str]
    """Dotted keys that the file or a later layer sets; the others are inherited."""
    base_layers: tuple[Layer, ...] = field(repr=False, compare=False)
    layers: tuple[Layer, ...] = field(repr=False, compare=False)

    def __getitem__(self, key: str) -> Any:
        """The value of a dotted key, or a block of values."""
        value: Any = self.values
        for name in key.split("."):
            if not isinstance(value, Mapping) or name not in value:
                raise KeyError(key)
            value = value[name]
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a dotted key, or `default` if nobody sets it."""
        try:
            return self[key]
        except KeyError:
            return default

    @property
    def weights(self) -> Path | None:
        """The file of weights to start from, there or not; None if nothing names one."""
        if init_param := self.get("init_param"):
            return Path(init_param)
        return self.model_dir / "model.pt" if self.model_dir else None

    def flat(self) -> dict[str, Any]:
        """All values by dotted key."""
        return flatten(self.values)

    def replace(self, overrides: Mapping[str, Any], label: str) -> "Config":
        """Lay more values over this configuration and check it again.

        Args:
            overrides: Values by dotted key.
            label: Who says so, for messages: `trial 7`.

        Raises:
            ConfigError: If a key is unknown or a value is not what its key expects.
        """
        layer = Layer(label, flatten(overrides))
        return _build(self.base_layers, (*self.layers, layer), self.model_dir)

    def fingerprint(self) -> str:
        """SHA-256 of the values, whatever their order, without the paths of one machine."""
        values = {key: value for key, value in self.flat().items() if key not in PATHS}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def to_yaml(self) -> str:
        """The effective configuration as YAML, in the schema's order; loaded again it is equal.

        Where the weights to start from lie outside the model directory, `model` names that.
        """
        init_param = self.get("init_param")
        if self.model_dir is None or init_param is None:
            return to_yaml(self.values)
        if Path(init_param).parent == self.model_dir:
            return to_yaml(self.values)
        return to_yaml({**self.values, "model": str(self.model_dir)})


def load_config(
    path: Path | str,
    *,
    model: Path | str | None = None,
    init_param: Path | str | None = None,
    layers: Sequence[tuple[str, Mapping[str, Any]]] = (),
    overrides: Sequence[str] = (),
    find_model: bool = True,
    allow_unknown: bool = False,
) -> Config:
    """Load and check a configuration.

    Args:
        path: The configuration's file.
        model: Directory of the weights; else that of `init_param`, or the one that `model` names.
        init_param: File of the weights to start from.
        layers: More values over the file's: a label for messages, and values by dotted key.
        overrides: Values over everything: `optim_conf.lr=1e-4`, with or without `++` or `--`.
        find_model: Look for the weights' directory. False, for documents, leaves the architecture
            as the released model has it.

    Raises:
        ConfigError: With all mistakes at once.
    """
    document = read_yaml(path)
    _refuse_dotted_names(document)
    said = [Layer(str(path), flatten(document.values), document)]
    said += [Layer(label, flatten(values)) for label, values in layers]
    said += [_override(text) for text in overrides]
    if init_param is not None:
        said.append(Layer(COMMAND_LINE, {"init_param": str(init_param)}))
    said = [_clean(layer) for layer in said]

    model_dir = find_model_dir(model, said) if find_model else None
    said = [_without_place(layer) for layer in said]
    found = _find(merge(said), Path(path), model_dir)
    base_layers = _base_layers(model_dir, found)
    if allow_unknown and (unknown := unknown_keys(said, _foreign(base_layers))):
        named = [*_allowed(said), *(key for key in unknown if key not in _allowed(said))]
        said.append(Layer("--allow-unknown", {ALLOWED: named}))
    return _build(base_layers, tuple(said), model_dir)


def parse_overrides(arguments: Sequence[str]) -> list[str]:
    """Read what is left of a command line as overrides.

    >>> parse_overrides(["--optim_conf.lr", "1e-4", "++train_conf.max_epoch=3", "optim=adamw"])
    ['optim_conf.lr=1e-4', 'train_conf.max_epoch=3', 'optim=adamw']
    """
    overrides, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        name = argument.removeprefix("--").removeprefix("++")
        if "=" in name and not name.startswith("="):
            overrides.append(name)
        elif argument.startswith("--") and name and rest:
            overrides.append(f"{name}={rest.pop(0)}")
        else:
            raise ConfigError(
                f"{COMMAND_LINE}: got {argument!r}, expected KEY=VALUE or --KEY VALUE"
            )
    return overrides


def is_override(argument: str) -> bool:
    """Whether `NAME=VALUE` sets a key of the configuration, so that it is nothing else's value.

    A misspelt key within a block counts: that block's keys are then named by the mistake.
    """
    name, equals, _ = argument.removeprefix("++").partition("=")
    block, dot, _ = name.partition(".")
    known = keys.find_key(name) is not None or (bool(dot) and block in keys.blocks())
    return bool(equals) and (argument.startswith("++") or known)


def load_model_config(model: Path | str, label: str, overrides: Sequence[str] = ()) -> Config:
    """Load the configuration beside a model directory's weights.

    Args:
        model: A model directory, or a hub's name with a copy here.
        label: Who names it, for messages: `--model`.
        overrides: As for `load_config`.

    Raises:
        UserError: There is no such directory, it lacks config.yaml, or that is not as it should be.
    """
    directory = find_copy(str(model), label)
    path = directory / "config.yaml"
    if not path.is_file():
        raise DataError(f"{label}: got {str(directory)!r} without config.yaml, expected a model's")
    return load_config(path, model=directory, overrides=overrides)


def is_as_shipped(key: str, config: Config) -> bool:
    """Whether our file for the configuration's stage has a key alike; for `custom`, any of ours.

    A reference, there or in what the file inherits, is resolved with the configuration's values.
    """
    names = [STAGES[config.stage]] if config.stage in STAGES else [*STAGES.values(), FROM_HUB]
    flat = config.flat()
    return any(
        resolve({**flat, key: shipped[key]})[0].get(key) == flat.get(key)
        for shipped in map(_shipped, names)
        if key in shipped
    )


@cache
def _shipped(name: str) -> Mapping[str, Any]:
    paths = (PRETRAINED, HERE / f"{name}.yaml")
    return merge(Layer(str(path), flatten(read_yaml(path).values)) for path in paths)


def stage_config_path(short: str) -> Path:
    """The configuration of a stage by its short name: `8k`, `s1`, `s2`, `s3`."""
    if short not in STAGES:
        raise ConfigError(f"stage: got {short!r}, expected one of {', '.join(STAGES)}")
    return HERE / f"{STAGES[short]}.yaml"


def _build(
    base_layers: tuple[Layer, ...], layers: tuple[Layer, ...], model_dir: Path | None
) -> Config:
    foreign = _foreign(base_layers)
    allowed = frozenset(_allowed(layers)) & frozenset(unknown_keys(layers, foreign))
    base = effective(base_layers, foreign)
    values = effective((*base_layers, *layers), foreign | allowed)
    return Config(
        values=values,
        base=base,
        stage=values["finetune_conf"]["stage"],
        model_dir=model_dir,
        in_file=frozenset(key for layer in layers for key in layer.values),
        base_layers=base_layers,
        layers=layers,
    )


def _foreign(base_layers: Sequence[Layer]) -> frozenset[str]:
    """Keys that the schema does not know and the weights' own config.yaml has."""
    return frozenset(key for layer in base_layers for key in layer.values if not keys.find_key(key))


def _allowed(layers: Sequence[Layer]) -> list[str]:
    """The unknown keys that the layers let through by name."""
    named = merge(layers).get(ALLOWED)
    return [key for key in named if isinstance(key, str)] if isinstance(named, list) else []


def _clean(layer: Layer) -> Layer:
    """Without empty blocks, and without null where null means "find it"."""
    values = {
        key: value
        for key, value in layer.values.items()
        if not (value == {} and keys.is_block(key)) and not (value is None and key in FOUND)
    }
    return Layer(layer.label, values, layer.document)


def _without_place(layer: Layer) -> Layer:
    """`model` as a place has done its work once the directory is found; there stands the class."""
    if not is_place(layer.values.get("model")):
        return layer
    values = {key: value for key, value in layer.values.items() if key != "model"}
    return Layer(layer.label, values, layer.document)


def _override(text: str) -> Layer:
    """One override of the command line."""
    [pair] = parse_overrides([text])
    key, _, value = pair.partition("=")
    return Layer(COMMAND_LINE, {key: parse_value(value, f"{COMMAND_LINE}: {key}")})


def _refuse_dotted_names(document: Document) -> None:
    """In a file blocks are nested; `optim_conf.lr: 1` at the top would be another key upstream."""
    problems = [
        f"{document.where(key)}: {key}: got a dotted name, expected nested blocks"
        for key in _dotted_names(document.values, "")
    ]
    if problems:
        raise ConfigError(problems)


def _dotted_names(values: Mapping[str, Any], prefix: str) -> list[str]:
    found = []
    for name, value in values.items():
        if "." in name:
            found.append(f"{prefix}{name}")
        elif isinstance(value, Mapping):
            found += _dotted_names(value, f"{prefix}{name}.")
    return found


def _base_layers(model_dir: Path | None, found: Mapping[str, Any]) -> tuple[Layer, ...]:
    """What a configuration is laid over and compared with."""
    released = read_yaml(PRETRAINED)
    beside = read_yaml(model_dir / "config.yaml") if model_dir else released
    return (
        Layer("finetune_conf's defaults", _our_defaults()),
        _part(released, lambda key: not keys.belongs_to_model(key)),
        _part(beside, keys.belongs_to_model),
        Layer("found", found),
    )


def _part(document: Document, wanted: Callable[[str], bool]) -> Layer:
    values = {key: value for key, value in flatten(document.values).items() if wanted(key)}
    return _clean(Layer(str(document.path), values, document))


def _our_defaults() -> dict[str, Any]:
    """`finetune_conf` is always complete: nobody else has defaults for it."""
    ours = (
        (name, key) for name, key in keys.all_keys().items() if name.startswith("finetune_conf.")
    )
    return {name: key.default for name, key in ours}


def _find(settings: Mapping[str, Any], path: Path, model_dir: Path | None) -> dict[str, Any]:
    """What nobody says: the stage follows from the file's name, the weights lie in their place."""
    by_name = {name: short for short, name in STAGES.items()}
    weights = model_dir / "model.pt" if model_dir else None
    found = {
        "finetune_conf.stage": by_name.get(path.stem, "custom"),
        "init_param": str(weights) if weights and weights.is_file() else None,
    }
    return {key: value for key, value in found.items() if key not in settings}
