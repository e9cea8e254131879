"""What lies in a fine-tune's directory, who may write there, and its end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from conf.errors import ConfigError, UserError
from trainer.finetune.run_directory import RESULT, held, is_foreign, read_result, written_values

pytestmark = pytest.mark.quick


def test_a_fine_tune_without_a_result_has_not_ended(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None
    assert read_result(tmp_path / "nowhere") is None


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    result = {"identity": {"init.sha256": "ab"}, "epochs": 2, "run": {"kept": [["一", 1, 0.2]]}}
    (tmp_path / RESULT).write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")
    assert read_result(tmp_path) == result


@pytest.mark.parametrize("content", ["", "\0\0", '{"identity": "x", "epo', "[]", '{"run": {}}'])
def test_a_damaged_result_is_no_result(tmp_path: Path, content: str) -> None:
    (tmp_path / RESULT).write_text(content)
    assert read_result(tmp_path) is None


@pytest.mark.parametrize("content", ["", "\0\0", "train_conf: {max_epo", "stage: 8k\n", "- 8k\n"])
def test_a_damaged_configuration_is_one_line_that_says_how_to_go_on(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"config\.yaml:.* damaged: delete it, and the") as error:
        written_values(path)
    assert len(error.value.problems) == 1


def test_what_an_unfinished_start_leaves_is_no_foreign_file(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert not is_foreign(run)
    (run / "checkpoints").mkdir(parents=True)
    for name in ("lock", "events.jsonl", "mlflow_run_id", ".mlflow_run_id.partial"):
        (run / name).touch()
    for name in ("left_out.jsonl", ".left_out.jsonl.partial", ".config.yaml.1.partial"):
        (run / name).touch()
    assert not is_foreign(run)
    (run / "letter.txt").touch()
    assert is_foreign(run)
    (run / "config.yaml").touch()  # of a run, in which there may be more
    assert not is_foreign(run)


def test_a_second_process_is_refused_with_pid_and_time(tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "run"
    with held(run):
        with pytest.raises(UserError, match=rf"is being trained in by pid {os.getpid()} since 20"):
            held(run).__enter__()
        (run / "events.jsonl").touch()
    with held(run):
        pass
    assert (run / "events.jsonl").exists()


def test_a_mistake_before_anything_is_written_leaves_no_directory(tmp_path: Path) -> None:
    with pytest.raises(UserError), held(tmp_path / "outputs" / "run"):
        raise UserError("train_data_set_list: no such file")
    assert list(tmp_path.iterdir()) == []
