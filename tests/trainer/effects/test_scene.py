"""The scene: small, whole in its own directory, and with what some keys need to act."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.data.manifest import read_data_list, read_headers
from trainer.effects.scene import NUM_VALID, Scene, make_scene

pytestmark = pytest.mark.quick


@pytest.fixture
def scene(corpus: Path, tmp_path: Path) -> Scene:
    return make_scene(tmp_path, corpus, ("8k",))


def test_nothing_outside_the_directory_is_needed(scene: Scene) -> None:
    config = scene.configs["8k"]
    for key in ("train_data_set_list", "valid_data_set_list"):
        utterances = read_data_list(config[key])
        read_headers(utterances)  # of recordings that are there
        assert all(item.source.is_relative_to(scene.directory) for item in utterances)
    assert Path(config["init_param"]).is_relative_to(scene.directory)
    assert len(read_data_list(config["valid_data_set_list"])) == NUM_VALID


def test_the_training_data_hold_what_keys_act_on(scene: Scene) -> None:
    lines: list[dict[str, Any]] = [
        json.loads(line)
        for line in (scene.directory / "train.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    extras = {name for line in lines for name in line}
    assert {"hotwords", "asr_hotwords", "hist_context", "one_pass_result"} <= extras
    turns = [[turn["role"] for turn in line["messages"]].count("user") for line in lines]
    assert sorted(set(turns)) == [1, 2]
    # CTC has a frame per 60 ms.
    assert any(line["text_length"] > line["speech_length"] / 6 for line in lines)


def test_other_files_are_there_but_those_that_shall_not_be(scene: Scene) -> None:
    missing = {name for name, path in scene.others.items() if not Path(path).exists()}
    assert missing == {"directory", "nothing"}
