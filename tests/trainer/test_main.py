"""The command line of one fine-tune: what it refuses before anything is written."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.errors import UserError
from conf.load import Config
from tests.conftest import BASE
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


def test_a_gpu_that_is_not_there_is_a_mistake(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named by whoever wants it: the CPU instead would take days."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # which is then put back
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UserError, match=r"^--gpu_id: got 0,9, which is not here, expected a GPU"):
        main([*command, "--gpu_id", "0,9"])
    assert not (tmp_path / "run").exists()


def test_evaluate_takes_overrides_behind_its_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from trainer.evaluation import evaluate_sets as module

    given: dict[str, object] = {}

    def evaluate_sets(model: Path, data: list[str], output_dir: Path, **rest: object) -> object:
        given.update(rest, data=data)
        return {}

    monkeypatch.setattr(module, "evaluate_sets", evaluate_sets)
    monkeypatch.setattr(module, "print_scores", lambda scores: None)
    flags = ["evaluate", "--model", str(BASE), "--output_dir", str(tmp_path)]
    key = "finetune_conf.max_new_tokens=20"
    main([*flags, "--data", "a=x.jsonl", "y.jsonl", key, "--data", "b=z.jsonl", "++device=cpu"])
    assert given["data"] == ["a=x.jsonl", "y.jsonl", "b=z.jsonl"]
    assert given["overrides"] == [key, "device=cpu"]
    assert capsys.readouterr().err == f"loading {BASE / 'model.pt'}, 2.3 MB\n"
    with pytest.raises(UserError, match=r"nearest: finetune_conf\.max_new_tokens"):
        main([*flags, "--data", "a=x.jsonl", "finetune_conf.max_new_token=20"])
    with pytest.raises(UserError, match=r"^--data: got .*max_new_tokens=20, a key of the config"):
        main([*flags, "--data", key])


@pytest.mark.parametrize(
    "package", ["trainer.__main__:_parser", "analysis.__main__:parser", "sweeps.__main__:_parser"]
)
def test_no_option_of_several_values_forgets_the_first_ones(package: str) -> None:
    """Given twice, it has both; what swallows overrides is sorted out by `_evaluate` alone."""
    module, _, name = package.partition(":")
    [commands] = getattr(importlib.import_module(module), name)()._subparsers._group_actions
    several = [
        (command, action)
        for command, parser in commands.choices.items()
        for action in parser._actions
        if action.nargs in ("+", "*")
    ]
    for command, action in several:
        assert type(action).__name__ == "_ExtendAction", (command, action.option_strings)
    assert {command for command, _ in several} <= {"evaluate", "prepare", "effects"}
