"""The weights that a model starts from: read, filled from the base where that is meant, counted.

Three kinds of file do. A model.pt as FunASR releases it holds everything. A checkpoint of this
trainer (``epoch-003.safetensors``) holds what its stage trained, and names by SHA-256 the model.pt
that holds the rest. A checkpoint of stock FunASR's holds all but the LLM where its
``effective_save_name_excludes`` says so. FunASR itself only prints when weights are missing, and
goes on with random ones; here every weight is accounted for, or the run stops.
"""

from __future__ import annotations

import logging
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from conf.errors import DataError
from conf.files import file_sha256
from trainer.funasr_parts import load
from trainer.model.checkpoint import load_metadata, load_state

_LOG = logging.getLogger(__name__)

COMPONENTS = ("audio_encoder", "audio_adaptor", "llm", "ctc_decoder", "ctc")
DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
"""Precisions that weights may be stored in, in the words of `llm_conf.llm_dtype`."""
_LAYER = re.compile(r"(.*?)\.\d+(?=\.)")
LEFT_OUT_BY_STOCK = frozenset({"llm"})
"""What a torch checkpoint may lack: stock FunASR leaves the LLM out, as the released config says.
Anything else that is missing was lost."""


@dataclass(frozen=True)
class Coverage:
    """Where each component's weights came from.

    Attributes:
        sha256: Of the file that the run starts from.
        loaded: Weights found for each component, LoRA not counted.
        expected: Weights that each component has.
        unused: Names in the file that the model has no place for.
        filled: How many of ``loaded`` are the base's, where the file itself holds less.
        base: The model.pt that they were filled from.
        base_sha256: Its SHA-256.
        num_lora: LoRA weights in the file; without them the adapters start as new ones.
    """

    sha256: str
    loaded: Mapping[str, int]
    expected: Mapping[str, int]
    unused: tuple[str, ...]
    filled: Mapping[str, int] = field(default_factory=dict)
    base: Path | None = None
    base_sha256: str | None = None
    num_lora: int = 0

    def counts(self) -> str:
        """Every component's weights in words, for the log and for the check."""
        parts = [f"{name} {self.loaded[name]}/{self.expected[name]}" for name in self.expected]
        if self.num_lora:
            parts.append(f"{self.num_lora} of LoRA")
        text = ", ".join(parts)
        if self.base is None:
            return text
        filled = ", ".join(f"{name} {number}" for name, number in self.filled.items() if number)
        return f"{text}; of these from {self.base} ({self.base_sha256}): {filled}"

    def __str__(self) -> str:
        return f"weights {self.sha256[:12]}: {self.counts()}"


def load_weights(
    model: torch.nn.Module,
    path: Path,
    base: Path | None = None,
    sha256: Callable[[Path], str] = file_sha256,
) -> Coverage:
    """Loads weights and checks that every one of the model but new LoRA ones is there.

    Args:
        model: FunASRNano.
        path: model.pt, a checkpoint of this trainer, or one of stock FunASR.
        base: model.pt of the model directory, for what a checkpoint does not hold by design;
            not opened where nothing is missing.
        sha256: Of a file, where that is known without reading it.

    Raises:
        DataError: A file is no checkpoint, weights are missing or of another shape, a checkpoint
            of ours was trained from another base, or it holds LoRA weights that the model lacks.
    """
    ours = path.suffix == ".safetensors"
    state = load_state(path) if ours else _read_torch(path)
    own = model.state_dict()
    _refuse_lost_lora(path, state, own)
    _refuse_other_numbers(path, state, own)
    _refuse_uncounted_layers(path, state, model)
    expected = {name for name in own if ".lora_" not in name}
    loaded = _matching(state, own) & expected
    missing = expected - loaded
    fillable = {name for name in missing if name not in state}
    if not ours:
        whole = {name for name in LEFT_OUT_BY_STOCK if name not in _components(state)}
        fillable = {name for name in fillable if _component(name) in whole}
    filler: Mapping[str, torch.Tensor] = {}
    base_sha256 = None
    if fillable and base is not None and base.is_file() and not base.samefile(path):
        base_sha256 = sha256(base)
        if ours:
            _refuse_other_base(path, base, base_sha256)
        filler = _read_torch(base)
    elif ours and fillable:
        raise DataError(
            f"{path}: init_param: got the weights that one stage trained, expected a model.pt "
            "beside config.yaml to fill in the others (--model DIR)"
        )
    filled = _matching(filler, own) & fillable
    coverage = Coverage(
        sha256=sha256(path),
        loaded=_per_component(loaded | filled),
        expected=_per_component(expected),
        unused=tuple(sorted(set(state) - set(own))),
        filled=_per_component(filled),
        base=base if filled else None,
        base_sha256=base_sha256 if filled else None,
        num_lora=len(_matching(state, own) - expected),
    )
    shapes = {
        name: f"{name} is {tuple(state[name].shape)}, by config.yaml {tuple(own[name].shape)}"
        for name in missing & set(state)
    }
    _refuse_gaps(path, coverage, missing - filled, fillable, base if filler else None, shapes)
    if ours and coverage.unused:
        raise DataError(
            f"{path}: got the weight {coverage.unused[0]}, which this model does not have, "
            "expected a checkpoint of the same architecture"
        )
    chosen = {name: state[name] for name in own if name in state}
    _put(model, {**{name: filler[name] for name in filled}, **chosen})
    if filled:
        _LOG.info("%s holds no %s: filled from %s", path, _names(coverage.filled), base)
    return coverage


def read_stored(path: Path, base: Path | None) -> Mapping[str, torch.Tensor]:
    """Weights as files hold them, in their own precision and on disk until they are copied.

    Args:
        path: What a model was built from.
        base: What filled in the rest (`Coverage.base`).
    """
    read = load_state if path.suffix == ".safetensors" else _read_torch
    return {**(_read_torch(base) if base else {}), **read(path)}


def _put(model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Give a model weights, of which it has all names; those without memory take the file's.

    Where the file has the model's type that is its mapped memory: read when it is used, copied page
    by page where training writes. A weight of two names keeps them, and the last one's value.
    """
    own = model.state_dict(keep_vars=True)
    last = {id(tensor): state[name] for name, tensor in own.items() if name in state}
    for tensor in own.values():
        if tensor.is_meta and (value := last.pop(id(tensor), None)) is not None:
            found = torch.nn.Parameter(value.to(tensor.dtype), requires_grad=tensor.requires_grad)
            torch.utils.swap_tensors(tensor, found)  # type: ignore[no-untyped-call]
    model.load_state_dict({n: v for n, v in state.items() if id(own[n]) in last}, strict=False)


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    """Weights of a torch file by name, without the containers that FunASR puts around them.

    They stay on disk until they are copied into the model: a stock checkpoint holds the
    optimizer's state as well, twice as much again.
    """
    normalize = load("funasr.models.fun_asr_nano.checkpoint_utils").normalize_checkpoint_state
    is_zip = zipfile.is_zipfile(path)
    if not is_zip and _starts_as_zip(path):  # the directory of a zip file is its end
        raise DataError(
            f"{path}: got {path.stat().st_size:,} bytes whose end is missing, expected a torch "
            "checkpoint: copy or download it again"
        )
    try:
        state = normalize(torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip))
    except Exception as error:  # torch raises many types for a file that is no checkpoint
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{path}: got {reason}, expected a torch checkpoint") from error
    return {name: value for name, value in state.items() if torch.is_tensor(value)}


def _starts_as_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _refuse_other_numbers(
    path: Path, state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> None:
    """Quantised weights would be taken for the numbers themselves.

    32 and 16 bits may stand side by side, as they do in the released file.
    """
    for name in own:
        if name in state and state[name].dtype not in DTYPES:
            dtype = str(state[name].dtype).removeprefix("torch.")
            raise DataError(f"{path}: {name}: got {dtype}, expected {' or '.join(DTYPES.values())}")


def _refuse_uncounted_layers(
    path: Path, state: Mapping[str, torch.Tensor], model: torch.nn.Module
) -> None:
    """Weights of further layers mean that config.yaml is another model's.

    Other names that the model has no place for are counted only, as FunASR leaves them out too.
    """
    modules = {name for name, _ in model.named_modules()}
    further = sorted(
        name
        for name in state
        if (layer := _LAYER.match(name)) and layer[1] in modules and layer[0] not in modules
    )
    if further:
        raise DataError(
            f"{path}: {_component(further[0])}: got {len(further)} weights of layers that "
            f"config.yaml does not count, such as {further[0]}; expected the config.yaml that "
            "belongs to the weights"
        )


def _refuse_lost_lora(
    path: Path, state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> None:
    """What adapters have learnt may not be dropped without a word."""
    lora = sorted(name for name in state if ".lora_" in name)
    if lora and not any(".lora_" in name for name in own):
        raise DataError(
            f"{path}: init_param: got {len(lora)} LoRA weights, expected none where "
            "llm_conf.use_lora is false: package the run first (python -m trainer package), "
            "which merges them, and start from its model.pt"
        )
    for name in lora:
        if name not in own or own[name].shape != state[name].shape:
            size = tuple(own[name].shape) if name in own else "no such adapter"
            raise DataError(
                f"{path}: {name}: got {tuple(state[name].shape)}, expected {size}: set "
                "llm_conf.lora_conf r and target_modules as the checkpoint was trained with"
            )


def _refuse_other_base(path: Path, base: Path, base_sha256: str) -> None:
    named = load_metadata(path).get("base.sha256", "nothing")
    if named != base_sha256:
        raise DataError(
            f"{path}: init_param: got a checkpoint trained from weights {named[:12]}, expected "
            f"those of {base} ({base_sha256[:12]}); give their directory as --model DIR, or "
            "package the run that it belongs to and start from its model.pt"
        )


def _refuse_gaps(
    path: Path,
    coverage: Coverage,
    gaps: Collection[str],
    fillable: Collection[str],
    base: Path | None,
    shapes: Mapping[str, str],
) -> None:
    problems = []
    for component, number in coverage.expected.items():
        lacking = {name for name in gaps if _component(name) == component}
        if not lacking:
            continue
        reason = shapes.get(min(lacking), f"missing {min(lacking)}")
        if lacking & set(fillable):
            reason += (
                f", nor of that shape in {base}"
                if base
                else "; --model DIR names a model directory whose model.pt fills in the LLM"
            )
        problems.append(
            f"{path}: {component}: got {coverage.loaded[component]} of {number} weights of the "
            f"right shape, expected all ({reason})"
        )
    if problems:
        raise DataError(problems)


def _matching(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> set[str]:
    return {name for name in own if name in state and state[name].shape == own[name].shape}


def _component(name: str) -> str:
    return name.split(".", 1)[0]


def _components(names: Collection[str]) -> set[str]:
    return set(map(_component, names))


def _per_component(names: Collection[str]) -> dict[str, int]:
    counts = Counter(map(_component, names))
    return {component: counts[component] for component in COMPONENTS}


def _names(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} weights of {name}" for name, number in counts.items() if number)
