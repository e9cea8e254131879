"""A model directory that stock FunASR loads, from a fine-tune's directory.

    python -m trainer package --run outputs/my-run --output_dir my-model

The directory is complete: the base's weights with the trained ones in their place, LoRA merged,
tokenizers, configuration and a card. :mod:`trainer.export.verify` reloads it in a fresh process.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from conf.document import numbers
from conf.errors import DataError, UserError, WorkError
from conf.files import file_sha256, replacing_directory, write_json
from conf.load import Config, load_config
from conf.model_dir import DESCRIPTION, file_paths, is_inside
from conf.progress import Progress, say_loading
from trainer.evaluation.error_rates import NORMALISATION
from trainer.export import stock_script
from trainer.finetune.run_directory import CHECKPOINTS, CONFIG, written_values
from trainer.model import lora, stages
from trainer.model.build import build, model_files, weights_path
from trainer.model.checkpoint import load_metadata, load_state
from trainer.model.weights import read_stored
from trainer.tracking.event_log import read_events

_CARD = "README.md"
_MARK = "telesweep.json"
_PATH_KEYS = (
    "init_param",
    "output_dir",
    "train_data_set_list",
    "valid_data_set_list",
)


def package(
    run: Path,
    output_dir: Path,
    checkpoint: str | None = None,
    stock_dir: Path | None = None,
    check: Callable[[Path], None] = lambda _: None,
) -> Path:
    """Writes the model directory of a fine-tune; whole, or not at all.

    Args:
        run: Directory of a finished ``finetune``.
        output_dir: Must be new, empty, or an earlier package.
        checkpoint: Name of the checkpoint; by default the one that the run chose.
        stock_dir: Where to write what stock's own training needs (`trainer.export.stock_script`),
            if it is wanted; must be new and beside ``output_dir``.
        check: Gets the directory before it takes its place; where it raises, nothing is left.

    Raises:
        UserError: The run has no such checkpoint, its base changed, or the place is taken.
    """
    _check_place(output_dir)
    if stock_dir is not None and stock_dir.exists():
        raise UserError(f"--stock_dir: got {str(stock_dir)!r}, expected a new directory")
    config = run_config(run)
    name = checkpoint or _chosen_checkpoint(run)
    weights = run / CHECKPOINTS / f"{name}.safetensors"
    try:
        metadata, trained = load_metadata(weights), load_state(weights)
    except DataError as error:
        others = sorted({path.stem for path in weights.parent.glob("*.safetensors")} - {name})
        raise DataError(
            f"{error}; trainer package --checkpoint takes another ({', '.join(others) or 'none'})"
        ) from error
    say_loading(config)
    nano = build(config)
    assert nano.coverage is not None
    if metadata["base.sha256"] != nano.coverage.sha256:
        raise DataError(
            f"{weights}: got a checkpoint of base {metadata['base.sha256'][:12]}, expected one of "
            f"{nano.coverage.sha256[:12]} ({config.get('init_param') or config.model_dir})"
        )
    with (
        Progress().step(f"writing {output_dir}"),
        _written_whole(output_dir) as partial,
        _removed_on_error(stock_dir),
    ):
        if stock_dir is not None:
            stock_script.write(config, nano, output_dir, stock_dir)
        stages.load_trainable_state(nano.model, trained)
        stored = read_stored(weights_path(config), nano.coverage.base)
        with (partial / "model.pt").open("wb") as file:
            torch.save({"state_dict": merged_state(nano.model, stored, trained)}, file)
        write_support_files(config, partial)
        card = _card(config, name, metadata, file_sha256(partial / "model.pt"))
        (partial / _CARD).write_text(card, encoding="utf-8")
        mark = {"checkpoint": name, **metadata, "config.sha256": config.fingerprint()}
        write_json(partial / _MARK, dict(sorted(mark.items())))
        del nano, stored, trained  # the check loads the weights in a process of its own
        try:
            check(partial)
        except (DataError, WorkError) as error:
            # The scratch directory is of no use to the reader.
            raise type(error)(str(error).replace(str(partial), str(output_dir))) from error
    return output_dir


def run_config(run: Path) -> Config:
    """The effective configuration that a fine-tune wrote.

    Raises:
        UserError: ``run`` is no fine-tune's directory, or the file is damaged.
    """
    path = run / CONFIG
    if not path.is_file():
        raise DataError(f"{run}: got no config.yaml, expected the directory of a fine-tune")
    written_values(path)
    return load_config(path)


def merged_state(
    model: Any, stored: Mapping[str, torch.Tensor], trained: Collection[str]
) -> dict[str, torch.Tensor]:
    """Weights with LoRA folded in; what was not trained exactly as it is stored.

    The model holds in fp32 what the released file holds in 16 bits: written from the model, the
    package would be a fifth larger than the released file.

    Args:
        model: With the trained weights.
        stored: Weights of the files that it was built from.
        trained: Names of the trained weights.
    """
    state: dict[str, torch.Tensor] = {
        name: stored.get(name, value) if name not in trained else value
        for name, value in model.state_dict().items()
        if ".lora_" not in name
    }
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            state[f"{name}.weight"] = lora.merged_weight(module)
    return {name: _own_copy(value.detach().cpu()) for name, value in state.items()}


def _own_copy(value: torch.Tensor) -> torch.Tensor:
    """The tensor itself, unless saving it would save a larger one that it is a part of."""
    return value.clone() if value.untyped_storage().nbytes() > value.nbytes else value


def write_support_files(config: Config, directory: Path) -> None:
    """Everything beside the weights: the base's own files, and the new configuration.

    Raises:
        DataError: The base names, or links to, what is not its own.
    """
    source = config.model_dir
    assert source is not None
    file_paths(source)
    own = {"model.pt", "config.yaml", DESCRIPTION, _CARD, _MARK}
    for item in sorted(source.iterdir()):
        if item.name in own or item.name.startswith("."):
            continue
        for path in (item, *item.rglob("*")):
            if not is_inside(source, str(path.relative_to(source))):
                raise DataError(f"{path}: got a link, expected a file inside {source}")
        if item.is_dir():
            shutil.copytree(item, directory / item.name)
        else:
            shutil.copy2(item, directory / item.name)
    _describe(config, source, directory)
    (directory / "config.yaml").write_text(stock_config(config), encoding="utf-8")


def _describe(config: Config, source: Path, directory: Path) -> None:
    """Writes configuration.json so that stock FunASR finds every file in the package.

    Stock takes paths from it alone: a CTC vocabulary that it does not list is looked for inside
    FunASR's own package, which does not hold it, and the LLM's directory is taken for the name of a
    model on a hub. The released configuration.json does not list the vocabulary.
    """
    path = source / DESCRIPTION
    described = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    files: dict[str, Any] = {"init_param": "model.pt", "config": "config.yaml"}
    for key, place in model_files(config).items():
        block = files
        *blocks, name = key.split(".")
        for part in blocks:
            block = block.setdefault(part, {})
        block[name] = place
    write_json(directory / DESCRIPTION, {**described, "file_path_metas": files})


def stock_config(config: Config) -> str:
    """The configuration as stock FunASR takes it: no machine's paths, LoRA merged."""
    values: dict[str, Any] = json.loads(json.dumps(config.values))
    values.pop("finetune_conf", None)
    for key in _PATH_KEYS:
        values[key] = None
    values["llm_conf"]["use_lora"] = False
    if "use_lora" in values.get("train_conf", {}):
        values["train_conf"]["use_lora"] = False
    values["max_length"] = config["finetune_conf.max_new_tokens"]
    text: str = yaml.safe_dump(values, allow_unicode=True, sort_keys=False)
    return text


def _chosen_checkpoint(run: Path) -> str:
    """The name that the fine-tune tagged last."""
    tags: dict[str, str] = {}
    for event in read_events(run):
        tags |= event.get("tags", {})
    if "checkpoint" not in tags:
        raise DataError(f"{run}: got no finished epoch, expected a fine-tune that has trained")
    return tags["checkpoint"]


@contextlib.contextmanager
def _removed_on_error(stock_dir: Path | None) -> Iterator[None]:
    """What stock's own training needs goes the way of the model that it belongs to."""
    try:
        yield
    except BaseException:
        if stock_dir is not None:
            shutil.rmtree(stock_dir, ignore_errors=True)
            stock_dir.with_name(stock_script.SCRIPT).unlink(missing_ok=True)
        raise


def _check_place(output_dir: Path) -> None:
    if output_dir.exists() and any(output_dir.iterdir()) and not (output_dir / _MARK).exists():
        raise UserError(
            f"--output_dir: got {str(output_dir)!r}, which holds other files; expected a new "
            "directory, or an earlier package to replace"
        )


@contextlib.contextmanager
def _written_whole(output_dir: Path) -> Iterator[Path]:
    """A scratch directory beside ``output_dir`` that takes its place if all goes well."""
    refusal = f"--output_dir: got {output_dir.absolute()}, which another process is writing:"
    try:
        with replacing_directory(output_dir, refusal) as partial:
            yield partial
    except (OSError, RuntimeError) as error:  # torch wraps what the file raises
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        said = " ".join(str(getattr(reason, "strerror", None) or reason).split())
        raise WorkError(f"{output_dir}: could not write the model directory ({said})") from error


def _card(config: Config, checkpoint: str, metadata: Mapping[str, str], sha256: str) -> str:
    return f"""# Fun-ASR-Nano, fine-tuned ({config.stage})

| | |
|---|---|
| weights (SHA-256) | `{sha256}` |
| fine-tuned from (SHA-256) | `{metadata["base.sha256"]}` |
| checkpoint | {checkpoint} |
| validation CER | {numbers.rate(float(metadata["valid/cer"]))} ({NORMALISATION}) |
| configuration (SHA-256) | `{config.fingerprint()}` |
| lr, weight decay, epochs | {config["optim_conf.lr"]:g}, {config["optim_conf.weight_decay"]:g}, \
{config["train_conf.max_epoch"]} |

```python
from funasr import AutoModel

model = AutoModel(model="PATH/OF/THIS/DIRECTORY", device="cpu", disable_update=True)
print(model.generate(input="call.wav")[0]["text"])
```

The weights are a derivative of the base's and come under its licence.
"""
