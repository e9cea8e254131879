"""Who reads a key: what `python -m trainer effects` has proven, from effects.yaml beside this file.

    both    FunASR reads it, and so does our trainer
    stock   FunASR reads it, our trainer does not
    here    FunASR ignores it, our trainer implements it
    none    nothing reads it

`parameters.yaml`, made by the same command, holds the parameters per module and stage.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from conf.errors import ConfigError

EFFECTS = ("both", "stock", "here", "none")
EFFECTS_FILE = Path(__file__).parent / "effects.yaml"
PARAMETERS_FILE = Path(__file__).parent / "parameters.yaml"


@dataclass(frozen=True)
class KeyEffect:
    """What is proven of one key."""

    stages: Mapping[str, str]
    """Effect by the stage's short name."""
    read_by: str = ""
    """File and class that reads it, such as `funasr/models/fun_asr_nano/model.py:FunASRNano`."""
    note: str = ""
    needs: Mapping[str, Any] = field(default_factory=dict)
    """Values of other keys without which this one does nothing."""
    then: str = ""
    """Effect where they have those values."""

    def where(self, stage: str, can_be: Callable[[str, Any], bool]) -> str | None:
        """The effect in a stage whose other keys are known; None where nothing is proven.

        Args:
            stage: Its short name.
            can_be: Whether a key has, or may take, a value; `A_FILE` stands for any but null.
        """
        if not self.needs:
            return self.stages.get(stage)
        met = all(can_be(key, value) for key, value in self.needs.items())
        return self.then if met else "none"


A_FILE = "a file"
"""A needed value that is any file."""


@dataclass(frozen=True)
class Parameters:
    """Parameters of one module at full size, in one stage."""

    parameters: int
    trainable: int
    dtype: str = ""
    """Precision that they are held in, such as `bf16`."""


@dataclass(frozen=True)
class _File:
    funasr: str = ""
    entries: Mapping[str, Any] = field(default_factory=dict)


def load_effects() -> Mapping[str, KeyEffect]:
    """All proven effects by dotted key; empty as long as nothing was proven.

    Raises:
        ConfigError: The file is not what the command writes.
    """
    return _effects(EFFECTS_FILE)


def effect_of(key: str, stage: str) -> str | None:
    """The effect of a key in a stage; None where nothing is proven.

    A custom stage is none of those that were proven: its effect is the one they all agree on.
    """
    proven = load_effects().get(key)
    if proven is None:
        return None
    if stage in proven.stages:
        return proven.stages[stage]
    agreed = set(proven.stages.values())
    return agreed.pop() if len(agreed) == 1 else None


def load_parameters() -> Mapping[str, Mapping[str, Parameters]]:
    """Parameters by stage and module at full size; empty as long as nobody counted them.

    Raises:
        ConfigError: The file is not what the command writes.
    """
    return _parameters(PARAMETERS_FILE)


def funasr_version() -> str:
    """The FunASR that the effects were proven with; empty if none were."""
    return _read(EFFECTS_FILE, "keys").funasr


@cache
def _effects(path: Path) -> Mapping[str, KeyEffect]:
    effects = {}
    for key, entry in _read(path, "keys").entries.items():
        stages = entry.get("stages") if isinstance(entry, Mapping) else None
        if not isinstance(stages, Mapping) or not set(stages.values()) <= set(EFFECTS):
            raise ConfigError(
                f"{path}: keys.{key}: got {stages}, expected an effect "
                f"({', '.join(EFFECTS)}) for each stage"
            )
        needs, then = entry.get("needs") or {}, str(entry.get("then", ""))
        if not isinstance(needs, Mapping) or (needs and then not in EFFECTS):
            raise ConfigError(
                f"{path}: keys.{key}: got needs {needs} and then {then!r}, expected values by key "
                f"and an effect ({', '.join(EFFECTS)})"
            )
        effects[key] = KeyEffect(
            stages={str(stage): effect for stage, effect in stages.items()},
            read_by=_text(entry.get("read_by")),
            note=_text(entry.get("note")),
            needs=needs,
            then=then,
        )
    return effects


@cache
def _parameters(path: Path) -> Mapping[str, Mapping[str, Parameters]]:
    try:
        return {
            str(stage): {
                module: Parameters(
                    int(counts["parameters"]), int(counts["trainable"]), counts.get("dtype", "")
                )
                for module, counts in modules.items()
            }
            for stage, modules in _read(path, "stages").entries.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ConfigError(
            f"{path}: expected parameters and trainable for each stage and module"
        ) from None


@cache
def _read(path: Path, block: str) -> _File:
    if not path.is_file():
        return _File()
    # These files are ours and large, so the C parser where PyYAML has it; it builds no objects.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: got {str(error).splitlines()[0]}, expected YAML") from None
    entries = content.get(block) if isinstance(content, Mapping) else None
    if not isinstance(entries, Mapping):
        raise ConfigError(f"{path}: got no block {block!r}, expected what the command writes")
    return _File(str(content.get("funasr", "")), entries)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return "" if value is None else str(value)
