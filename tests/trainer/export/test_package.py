"""Packaging: LoRA folded into the weights gives what LoRA beside them gave; odd runs and places."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conf.errors import DataError, UserError, WorkError
from conf.files import replacing_directory
from conf.load import Config, load_config, stage_config_path
from tests.conftest import BASE
from trainer.data.batch import collate, make_example
from trainer.data.manifest import read_data_list
from trainer.export.package import merged_state, package, write_support_files
from trainer.funasr_parts import load
from trainer.model import stages
from trainer.model.build import build
from trainer.model.checkpoint import CheckpointFolder
from trainer.model.losses import Objective
from trainer.tracking.event_log import EventLog


@pytest.mark.parametrize(("llm_dtype", "rtol"), [("fp32", 1e-5), ("bf16", 2e-3)])
def test_merged_lora_is_applied_lora(
    tiny_config: Callable[..., Config], llm_dtype: str, rtol: float
) -> None:
    config = tiny_config("s3", llm_conf__llm_dtype=llm_dtype)
    applied = build(config)
    stages.apply(applied.model, config)
    torch.manual_seed(1)
    for name, parameter in applied.model.named_parameters():
        if ".lora_B" in name:  # starts at zero, where LoRA changes nothing
            torch.nn.init.normal_(parameter, std=0.05)
    plain_config = config.replace({"llm_conf.use_lora": False}, "test")
    plain, merged = build(plain_config), build(plain_config)
    merged.model.load_state_dict(merged_state(applied.model, {}, ()))
    utterances = read_data_list(config["valid_data_set_list"])
    examples = [make_example(u, applied.extractor, applied.codec) for u in utterances]
    losses = []
    for nano in (applied, merged, plain):
        nano.model.eval()
        with torch.no_grad():
            losses.append(Objective(nano.model, config)(collate(examples), training=False).ce)
    torch.testing.assert_close(losses[1], losses[0], rtol=rtol, atol=0)
    assert not torch.isclose(losses[2], losses[0], rtol=1e-3)


@pytest.fixture
def run(tiny_config: Callable[..., Config], tmp_path: Path) -> Path:
    """What a fine-tune leaves that has learnt nothing in two epochs."""
    config = tiny_config("8k")
    nano = build(config)
    stages.apply(nano.model, config)
    assert nano.coverage is not None
    folder = CheckpointFolder(tmp_path / "run" / "checkpoints", 2, nano.coverage.sha256)
    for epoch in (1, 2):
        folder.write(folder.add(epoch, 0.5), stages.trainable_state(nano.model))
    (tmp_path / "run" / "config.yaml").write_text(config.to_yaml())
    EventLog(tmp_path / "run").set_tags({"checkpoint": "epoch-001"})
    return tmp_path / "run"


def test_two_at_once_to_one_place(run: Path, tmp_path: Path) -> None:
    goal = tmp_path / "model"
    said = rf"model, which another process is writing: pid {os.getpid()} since "
    with replacing_directory(goal), pytest.raises(UserError, match=said):
        package(run, goal)
    assert package(run, goal) == goal
    assert (goal / "model.pt").exists()


@pytest.mark.parametrize("listed", ["no vocabulary", "nothing", "no file at all"])
def test_stock_finds_every_file_whatever_the_base_lists(
    tiny_config: Callable[..., Config], tmp_path: Path, listed: str
) -> None:
    """By its own reading of the directory; it looks nowhere else."""
    base = tmp_path / "base"
    shutil.copytree(BASE, base)
    description = json.loads((base / "configuration.json").read_text())
    if listed == "no vocabulary":
        del description["file_path_metas"]["dataset_conf"]
    else:
        del description["file_path_metas"]
    (base / "configuration.json").write_text(json.dumps(description))
    if listed == "no file at all":
        (base / "configuration.json").unlink()
    goal = tmp_path / "model"
    goal.mkdir()
    config = load_config(stage_config_path("s3"), model=base)
    write_support_files(config, goal)
    (goal / "model.pt").touch()
    read = load("funasr.download.download_model_from_hub").download_model(
        model=str(goal), trust_remote_code=False, disable_update=True
    )
    assert read["init_param"] == str(goal / "model.pt")
    for block in ("llm_conf", "tokenizer_conf"):
        assert read[block]["init_param_path"] == str(goal / "Qwen3-tiny")
    vocabulary = read["dataset_conf"]["ctc_tokenizer_conf"]["vocab_path"]
    assert vocabulary == str(goal / "multilingual.tiktoken")
    assert Path(vocabulary).is_file()


def test_a_failed_check_leaves_nothing(run: Path, tmp_path: Path) -> None:
    goal, stock = tmp_path / "export" / "model", tmp_path / "export" / "stock"

    def check(model: Path) -> None:
        assert (model / "model.pt").is_file()
        raise WorkError(f"{model}: other texts")

    with pytest.raises(WorkError, match=rf"^{re.escape(str(goal))}: other texts$"):
        package(run, goal, stock_dir=stock, check=check)
    assert list(goal.parent.iterdir()) == []
    assert package(run, goal, stock_dir=stock) == goal


def test_a_damaged_run_says_what_can_be_done(run: Path, tmp_path: Path) -> None:
    weights = run / "checkpoints" / "epoch-001.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"epoch-001.*: .* --checkpoint takes .*\(epoch-002\)$"):
        package(run, tmp_path / "model")
    (run / "config.yaml").write_text("")
    with pytest.raises(UserError, match=r"config\.yaml: .*damaged: delete it, and the same train"):
        package(run, tmp_path / "model")
    assert not (tmp_path / "model").exists()
