"""The command line of one fine-tune: what it refuses before anything is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.errors import UserError
from conf.load import Config
from trainer.__main__ import main
from trainer.finetune.run_directory import held


@pytest.fixture
def command(tiny_config: Callable[..., Config], tmp_path: Path) -> list[str]:
    path = tmp_path / "config.yaml"
    path.write_text(tiny_config().to_yaml())
    return ["train", "--config", str(path), "--no_mlflow"]


def test_a_second_train_in_one_directory_is_refused(command: list[str], tmp_path: Path) -> None:
    with held(tmp_path / "run"):
        with pytest.raises(UserError, match=rf"run: this .* by pid {os.getpid()} since ") as error:
            main(command)
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock"]
    assert len(error.value.problems) == 1


def test_a_foreign_directory_stays_as_it_is(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("Dear Sir")
    with pytest.raises(UserError, match="is not empty"):
        main(command)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["letter.txt"]


def test_a_mistake_leaves_no_directory(command: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        main([*command, "--train_data_set_list", str(tmp_path / "nowhere.jsonl")])
    assert not (tmp_path / "run").exists()
