"""What stock FunASR needs to train one of our configurations: a script, and data as it reads them.

    python -m trainer package --run RUN --output_dir OUT/model --stock_dir OUT/stock

writes `OUT/train_with_stock.sh`, which runs `funasr-train-ds` on `OUT/best_config.yaml`, and the
data lists in chat form, the only one that stock reads, to `OUT/stock`.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from string import Template
from typing import Any

import torch

from conf.load import Config
from trainer.data.manifest import read_data_list, read_headers
from trainer.finetune.stock_engine import HELD, ignored_keys, stock_interval, write_manifest
from trainer.model.build import Nano, model_files, weights_path

SCRIPT, CONFIG = "train_with_stock.sh", "best_config.yaml"
_WEIGHTS = "init.pt"

_SCRIPT = Template(r"""#!/bin/sh
# Trains best_config.yaml with stock FunASR's own command, on one GPU (it takes no CPU):
#
#   ./train_with_stock.sh [++key=value ...]
#
# INIT_PARAM: the weights to start from, else those that the trial started from (SHA-256
#   $sha256)
# OUTPUT_DIR: where checkpoints go, else outputs/stock
# FUNASR_TRAIN: the command; on several GPUs
#   FUNASR_TRAIN="torchrun --nproc_per_node 2 $$(command -v funasr-train-ds)"
#
# Of this configuration stock does nothing with:
#   $ignored
set -eu
here=$$(cd "$$(dirname "$$0")" && pwd)
started_from=$weights
init_param=$${INIT_PARAM:-$$started_from}
output_dir=$${OUTPUT_DIR:-$$PWD/outputs/stock}

# A path as Hydra takes it: in quotes, those within escaped.
path() {
    printf "'%s'" "$$(printf '%s' "$$1" | sed "s/'/\\\\'/g")"
}

# The data lists are one file each, which stock would read once per split: hence one split.
# shellcheck disable=SC2086 # FUNASR_TRAIN may be several words
exec $${FUNASR_TRAIN:-funasr-train-ds} --config-path "$$here" --config-name $config \
    hydra.run.dir="$$(path "$$output_dir")" hydra.output_subdir=null \
    ++init_param="$$(path "$$init_param")" ++output_dir="$$(path "$$output_dir")" \
    ++train_data_set_list="$$(path "$$here/$stock/train.jsonl")" \
    ++valid_data_set_list="$$(path "$$here/$stock/valid.jsonl")" \
$overrides    ++disable_update=true "$$@"
""")


def write(config: Config, nano: Nano, model: Path, stock: Path) -> Path:
    """Write script and data.

    Args:
        config: Of the fine-tune.
        nano: Its model before training.
        model: Name of the packaged model directory beside the script, for the tokenizers' files.
        stock: Directory for the data; the script goes beside it.

    Returns:
        The script.

    Raises:
        DataError: A manifest or a recording is gone.
    """
    assert nano.coverage is not None
    stock.mkdir(parents=True)
    for split in ("train", "valid"):
        utterances = read_data_list(config[f"{split}_data_set_list"])
        # As in our training, what cannot be read is left out.
        audios = read_headers(utterances, leave_out=split == "train")
        usable = [n for n in range(len(utterances)) if n not in audios.problems]
        write_manifest(
            stock / f"{split}.jsonl",
            (utterances[n] for n in usable),
            (audios[n] for n in usable),
            lambda text: len(nano.codec.target_ids(text)) - 1,
        )
    weights = shlex.quote(str(weights_path(config).resolve()))
    if nano.coverage.base is not None:  # stock reads one whole checkpoint, filled from none
        torch.save({"state_dict": nano.model.state_dict()}, stock / _WEIGHTS)
        weights = f'"$here/{stock.name}/{_WEIGHTS}"'
    overrides = {
        **{key: f"$here/{model.name}/{place}" for key, place in model_files(config).items()},
        **HELD,
        **stock_interval(config),
        "seed": config["finetune_conf.seed"],
    }
    if config.get("llm_conf.use_lora") or not config.get("llm_conf.freeze", True):
        # The released configuration saves nothing below `llm.`: what was trained would be lost.
        overrides["train_conf.effective_save_name_excludes"] = None
    script = stock.with_name(SCRIPT)
    script.write_text(
        _SCRIPT.substitute(
            sha256=nano.coverage.sha256,
            ignored="\n#   ".join(ignored_keys(config) or ["(nothing: it reads every key)"]),
            weights=weights,
            config=CONFIG,
            stock=stock.name,
            overrides="".join(f"    ++{key}={_quoted(v)} \\\n" for key, v in overrides.items()),
        ),
        encoding="utf-8",
    )
    script.chmod(0o755)
    return script


def _quoted(value: Any) -> str:
    if isinstance(value, str):
        return f'"$(path "{value}")"'
    return "null" if value is None else str(value)
