"""Stock's training of one of our configurations: what its command is given, and its data."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from conf.files import file_sha256
from conf.load import Config
from tests.conftest import BASE
from trainer.data.manifest import read_data_list
from trainer.export.stock_script import write
from trainer.model.build import build


def arguments(script: Path, *given: str, **environment: str) -> list[str]:
    """What the script gives to stock's command, which is replaced by one that prints them."""
    done = subprocess.run(
        [str(script), *given],
        env={**os.environ, "FUNASR_TRAIN": r"printf %s\n", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def value(given: list[str], key: str) -> Any:
    """The last value of a key, without Hydra's quotes: later ones override."""
    found = [item.removeprefix(f"++{key}=") for item in given if item.startswith(f"++{key}=")]
    return yaml.safe_load(found[-1].replace("\\'", "''"))


@pytest.fixture
def written(tiny_config: Callable[..., Config], tmp_path: Path) -> tuple[Config, Path]:
    """A configuration and its script, in a place whose name needs quotes."""
    config = tiny_config("8k", train=3, valid=2, finetune_conf__seed=7)
    place = tmp_path / "o'clock"
    place.mkdir()
    return config, write(config, build(config), place / "model", place / "stock")


def test_the_command_gets_weights_data_and_seed(written: tuple[Config, Path]) -> None:
    config, script = written
    given = arguments(script, "++train_conf.max_epoch=1", OUTPUT_DIR="/out")
    assert value(given, "init_param") == config["init_param"]
    assert value(given, "train_data_set_list") == str(script.parent / "stock" / "train.jsonl")
    assert value(given, "output_dir") == "/out"
    assert value(given, "seed") == 7
    assert value(given, "llm_conf.init_param_path").startswith(str(script.parent / "model"))
    assert given[-1] == "++train_conf.max_epoch=1"
    assert value(given, "train_conf.validate_interval") == 2000, "where it saves; null it lacks"
    other = arguments(script, INIT_PARAM="/weights of mine.pt")
    assert value(other, "init_param") == "/weights of mine.pt"


def test_the_script_says_what_stock_ignores_and_which_weights_it_starts_from(
    written: tuple[Config, Path],
) -> None:
    text = written[1].read_text(encoding="utf-8")
    assert file_sha256(BASE / "model.pt") in text
    assert "\n#   ctc_weight\n" in text


def test_the_data_are_conversations_that_are_read_back(written: tuple[Config, Path]) -> None:
    config, script = written
    for split in ("train", "valid"):
        path = script.parent / "stock" / f"{split}.jsonl"
        first = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
        assert [turn["role"] for turn in first["messages"]] == ["system", "user", "assistant"]
        expected = read_data_list(config[f"{split}_data_set_list"])
        assert [item.target for item in read_data_list(path)] == [u.target for u in expected]


def test_training_data_that_cannot_be_read_are_left_out(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny_config("8k", train=3, valid=2)
    manifest = Path(config["train_data_set_list"])
    lines = manifest.read_text(encoding="utf-8").splitlines()
    lines[1] = lines[1].replace(".wav", ".gone.wav")
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    script = write(config, build(config), tmp_path / "model", tmp_path / "stock")
    assert len(read_data_list(script.parent / "stock" / "train.jsonl")) == 2


def test_weights_of_two_files_are_written_as_the_one_that_stock_reads(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    partial = tmp_path / "without-llm.pt"
    state = torch.load(BASE / "model.pt", weights_only=True)["state_dict"]
    torch.save(
        {"state_dict": {k: v for k, v in state.items() if not k.startswith("llm.")}}, partial
    )
    config = tiny_config("8k", train=1, valid=1).replace({"init_param": str(partial)}, "test")
    script = write(config, build(config), tmp_path / "model", tmp_path / "stock")
    whole = Path(value(arguments(script), "init_param"))
    assert whole == tmp_path / "stock" / "init.pt"
    assert torch.load(whole, weights_only=True)["state_dict"].keys() == state.keys()


@pytest.mark.parametrize(("stage", "saved"), [("8k", False), ("s3", True)])
def test_adapters_are_saved_by_stock(
    stage: str, saved: bool, tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    """The released configuration keeps everything of the LLM out of stock's checkpoints."""
    config = tiny_config(stage, train=3, valid=2)
    given = arguments(write(config, build(config), tmp_path / "model", tmp_path / "stock"))
    assert ("++train_conf.effective_save_name_excludes=null" in given) == saved
