"""A hub's name: copies are found where its client puts them; else one line says how to get one."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from conf.errors import ConfigError, DataError
from conf.load import load_config, stage_config_path
from conf.model_dir import RELEASED, file_paths, find_copy, with_copy
from tests.conftest import BASE

pytestmark = pytest.mark.quick

SHA = "0123456789abcdef0123456789abcdef01234567"
MODELSCOPE = (
    "ms/models/FunAudioLLM--Fun-ASR-Nano-2512/snapshots/master",
    f"ms/models/FunAudioLLM--Fun-ASR-Nano-2512/snapshots/{SHA}",
    "ms/models/FunAudioLLM/Fun-ASR-Nano-2512",
    "ms/hub/models/FunAudioLLM/Fun-ASR-Nano-2512",
    "ms/hub/FunAudioLLM/Fun-ASR-Nano-2512",
)
HUGGING_FACE = f"hf/hub/models--FunAudioLLM--Fun-ASR-Nano-2512/snapshots/{SHA}"
HUB_CONFIG = stage_config_path("8k").with_name("config_8k_telephone_from_hub.yaml")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and two caches of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def put(directory: Path, *, weights: bool = True) -> Path:
    """A copy of the tiny base."""
    left_out = () if weights else ("model.pt",)
    shutil.copytree(BASE, directory, ignore=shutil.ignore_patterns(*left_out))
    return directory


@pytest.mark.parametrize("cache", [*MODELSCOPE, HUGGING_FACE, "models/Fun-ASR-Nano-2512"])
def test_a_copy_is_found_wherever_a_hubs_client_puts_it(place: Path, cache: str) -> None:
    copy = put(place / cache)
    config = load_config(HUB_CONFIG)
    assert config.model_dir is not None
    assert config.model_dir.resolve() == copy
    assert Path(config["init_param"]).resolve() == copy / "model.pt"
    assert Path(with_copy(RELEASED)).resolve() == copy


def test_environment_variables_move_hugging_faces_cache(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = HUGGING_FACE.removeprefix("hf/hub/")
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "xdg"))
    copy = put(place / "xdg/huggingface/hub" / inner)
    assert find_copy(RELEASED, "x") == copy
    other = put(place / "other" / inner)
    monkeypatch.setenv("HF_HUB_CACHE", str(place / "other"))
    assert find_copy(RELEASED, "x") == other


def test_without_variables_both_caches_are_the_users(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MODELSCOPE_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(place / "home"))
    hf = put(place / "home/.cache/huggingface" / HUGGING_FACE.removeprefix("hf/"))
    assert find_copy(RELEASED, "x") == hf
    ms = put(place / "home/.cache/modelscope" / MODELSCOPE[0].removeprefix("ms/"))
    assert find_copy(RELEASED, "x") == ms
    assert find_copy(RELEASED, "x", hub="hf") == hf


def test_the_snapshot_that_refs_main_names_comes_first(place: Path) -> None:
    repository = place / "hf/hub/models--FunAudioLLM--Fun-ASR-Nano-2512"
    put(repository / "snapshots" / ("0" * 40))
    new = put(repository / "snapshots" / SHA)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(SHA, encoding="utf-8")
    assert find_copy(RELEASED, "x") == new


def test_a_part_of_a_download_is_no_copy(place: Path) -> None:
    put(place / MODELSCOPE[0], weights=False)
    with pytest.raises(ConfigError) as caught:
        load_config(HUB_CONFIG)
    assert "snapshots/master is a part, without model.pt" in str(caught.value)
    whole = put(place / HUGGING_FACE)
    assert find_copy(RELEASED, "x") == whole


@pytest.mark.parametrize("name", [RELEASED, "models/Fun-ASR-Nano-2512", "/far/Fun-ASR-Nano-2512"])
def test_without_a_copy_one_line_says_what_to_download_and_where_to_put_it(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_copy(name, "--model")
    [line] = caught.value.problems
    assert line == (
        f"--model: got {name}, expected a model directory or a hub's name with a copy on this "
        "machine; nothing is downloaded here. With network run "
        "`modelscope download FunAudioLLM/Fun-ASR-Nano-2512 --local-dir models/Fun-ASR-Nano-2512` "
        "or `hf download FunAudioLLM/Fun-ASR-Nano-2512 --local-dir models/Fun-ASR-Nano-2512`; "
        "without, copy that directory to models/Fun-ASR-Nano-2512, or name the place where it lies"
    )


def test_what_is_no_hubs_name_gets_no_download() -> None:
    with pytest.raises(
        ConfigError, match=r"^x: got 'gone' \(no such directory\), expected a model"
    ):
        find_copy("gone", "x")
    assert with_copy("gone") == "gone"


FOREIGN: list[dict[str, Any]] = [
    {"trust_remote_code": "config.yaml", "remote_code": "evil.py"},
    {"trust_remote_code": True},
    {"remote_code": ["evil.py"]},
    {"vad_model": "other"},
    {"model_path": "other"},
    {"llm_conf": {"load_kwargs": {"trust_remote_code": "config.yaml"}}},
    {"llm_conf": {"trust_remote_code": "config.yaml"}},
    {"config": "other.yaml"},
    {"init_param": "other.pt"},
    {"llm_conf": {"init_param_path": "../../../etc"}},
    {"llm_conf": {"init_param_path": "/etc"}},
    {"llm_conf": {"init_param_path": ["Qwen3-tiny"]}},
    {"dataset_conf": {"ctc_tokenizer_conf": {"vocab_path": "linked"}}},
    {"frontend_conf": {"cmvn_file": "other/../../am.mvn"}},
    {"frontend_conf": {"cmvn_file": "am\0.mvn"}},
    {"jieba_usr_dict": "linked"},
]
"""What a directory may not say of itself."""

RELEASED_METAS: dict[str, dict[str, Any]] = {
    "Fun-ASR-Nano": {
        "llm_conf": {"init_param_path": "Qwen3-0.6B"},
        "tokenizer_conf": {"init_param_path": "Qwen3-0.6B"},
        "frontend_conf": {"cmvn_file": "am.mvn"},
        "ctc_decoder_conf": {"init_param_path": "ctc.pt"},
        "dataset_conf": {"ctc_tokenizer_conf": {"vocab_path": "multilingual.tiktoken"}},
    },
    "SenseVoiceSmall": {
        "tokenizer_conf": {"bpemodel": "chn_jpn_yue_eng_ko_spectok.bpe.model"},
        "frontend_conf": {"cmvn_file": "am.mvn"},
    },
    "paraformer-zh": {
        "tokenizer_conf": {"token_list": "tokens.json", "seg_dict_file": "seg_dict"},
        "frontend_conf": {"cmvn_file": "am.mvn"},
    },
    "ct-punc": {
        "tokenizer_conf": {"token_list": "tokens.json", "jieba_usr_dict": "jieba_usr_dict"},
        "jieba_usr_dict": "jieba_usr_dict",
    },
    "others that FunASR opens": {
        "tokenizer_conf": {"seg_dict": "seg_dict", "non_linguistic_symbols": "symbols.txt"},
        "frontend_conf": {"filters_path": "mel_filters.npz"},
    },
}
"""What the directories of released models say of themselves, beside `config` and `init_param`."""


def described(place: Path, metas: dict[str, Any]) -> Path:
    """A model directory that says this, with something to find for each name."""
    directory = place / "foreign"
    (directory / "other").mkdir(parents=True)
    (place / "outside").write_text("not yours")
    (directory / "linked").symlink_to("../outside")
    for name in ("config.yaml", "other.yaml", "other.pt", "model.pt", "evil.py"):
        (directory / name).write_text("")
    (directory / "configuration.json").write_text(json.dumps({"file_path_metas": metas}))
    return directory


@pytest.mark.attack
@pytest.mark.parametrize("metas", FOREIGN)
def test_a_directory_may_name_its_own_files_alone(metas: dict[str, Any], tmp_path: Path) -> None:
    directory = described(tmp_path, metas)
    line = (
        rf"^{re.escape(str(directory))}/configuration\.json: file_path_metas\.\S+: got .*, expected"
    )
    with pytest.raises(DataError, match=line):
        file_paths(directory)


@pytest.mark.parametrize("name", RELEASED_METAS)
def test_whatever_released_models_name_passes(name: str, tmp_path: Path) -> None:
    metas = {"init_param": "model.pt", "config": "config.yaml", **RELEASED_METAS[name]}
    assert file_paths(described(tmp_path, metas)) == metas


def test_the_base_and_a_directory_that_says_nothing_name_only_theirs(tmp_path: Path) -> None:
    assert file_paths(BASE)["config"] == "config.yaml"
    assert file_paths(tmp_path) == {}
    assert file_paths(described(tmp_path, {})) == {}


@pytest.mark.parametrize("text", ["[]", "{", '{"file_path_metas": []}', "\xff"])
def test_a_description_that_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "configuration.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"configuration\.json: .*got .*, expected"):
        file_paths(tmp_path)


def test_a_hubs_cache_keeps_contents_beside_the_snapshot(tmp_path: Path) -> None:
    snapshot = put(tmp_path / "models--a--b/snapshots" / SHA)
    vocabulary = snapshot / "multilingual.tiktoken"
    (tmp_path / "models--a--b/blobs").mkdir()
    vocabulary.rename(tmp_path / "models--a--b/blobs/0123")
    vocabulary.symlink_to("../../blobs/0123")
    assert file_paths(snapshot)
    vocabulary.unlink()
    vocabulary.symlink_to("../../../0123")
    with pytest.raises(DataError, match=r"vocab_path: got .*stays inside the directory"):
        file_paths(snapshot)


def test_a_directory_in_the_place_of_its_weights(place: Path) -> None:
    """The line names the file in it, or the flag that takes a directory, if it is a model's."""
    whole, part = put(place / "whole"), put(place / "part", weights=False)
    said = (
        f"init_param: got the directory {whole}, expected .* {whole}/model.pt, or --model {whole}$"
    )
    with pytest.raises(ConfigError, match=said):
        load_config(stage_config_path("8k"), init_param=whole)
    with pytest.raises(ConfigError, match=r"part, expected a file .* such as MODEL/model\.pt$"):
        load_config(stage_config_path("8k"), init_param=part)
