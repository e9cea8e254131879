"""The command line of one fine-tune: what it refuses before anything is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.errors import UserError
from conf.load import Config
from trainer.__main__ import main
from trainer.finetune.result import FinetuneResult, OnEval
from trainer.finetune.run_directory import held
from trainer.tracking.event_log import EventLog
from trainer.tracking.mlflow_store import Store


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


def test_anew_in_the_same_directory_is_a_new_run_in_mlflow(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that has `train_conf.resume: true`, and its points, takes no others."""

    def finetune(config: Config, log: EventLog, _: OnEval) -> FinetuneResult:
        log.log_params({"train_conf.resume": config.get("train_conf.resume", True)})
        log.log_metrics({"valid/cer": 0.4}, step=1)
        return FinetuneResult(0.4, 1, "epoch-001", {}, tmp_path / "run")

    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("trainer.finetune.run.finetune", finetune)
    runs = []
    for more in ([], [], ["--train_conf.resume", "false"]):
        assert main([*command[:-1], *more]) == 0
        runs.append((tmp_path / "run" / "mlflow_run_id").read_text().strip())
    assert runs[0] == runs[1] != runs[2]
    store = Store.open()
    assert [len(store.history(run, "valid/cer")) for run in runs] == [1, 1, 1]
