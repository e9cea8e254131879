"""A hub's name: copies are found where its client puts them; else one line says how to get one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conf.errors import ConfigError
from conf.load import load_config, stage_config_path
from conf.model_dir import RELEASED, find_copy, with_copy
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
