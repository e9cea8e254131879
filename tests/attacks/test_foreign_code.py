"""A model directory that brings code: it is run at no entry, though stock FunASR would run it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException

from conf.errors import DataError
from conf.load import Config, load_config, stage_config_path
from tests.conftest import BASE
from trainer.export import verify_process
from trainer.export.package import write_support_files
from trainer.export.served_model import Transcriber
from trainer.funasr_parts import load
from trainer.model.build import build

pytestmark = pytest.mark.attack

REFUSED = r"configuration\.json: file_path_metas\.(trust_)?remote_code"


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """The file that the directory's code writes."""
    return tmp_path / "ran"


@pytest.fixture
def foreign(tmp_path: Path, ran: Path) -> Path:
    """The tiny base with code of its own."""
    directory = tmp_path / "foreign"
    shutil.copytree(BASE, directory)
    (directory / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    path = directory / "configuration.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    description["file_path_metas"] |= {
        "trust_remote_code": "config.yaml",
        "remote_code": "evil.py",
    }
    path.write_text(json.dumps(description), encoding="utf-8")
    return directory


@pytest.fixture
def config(foreign: Path) -> Config:
    return load_config(stage_config_path("8k"), model=foreign)


def test_stock_would_run_it(foreign: Path, ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this the others would prove nothing."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    load("funasr.download.download_model_from_hub").download_model(model=str(foreign))
    del sys.modules["evil"]
    assert ran.exists()


ENTRIES: dict[str, Callable[[Path, Config, Path], object]] = {
    "training": lambda foreign, config, place: build(config),
    "packaging": lambda foreign, config, place: write_support_files(config, place / "packed"),
    "verifying": lambda foreign, config, place: verify_process.main([str(foreign), str(place)]),
    "serving": lambda foreign, config, place: Transcriber().load_context(
        SimpleNamespace(artifacts={"model": str(foreign)})
    ),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_it_is_refused_at(
    entry: str, foreign: Path, config: Config, ran: Path, tmp_path: Path
) -> None:
    with pytest.raises((DataError, MlflowException), match=REFUSED):
        ENTRIES[entry](foreign, config, tmp_path)
    assert not ran.exists()
    assert not (tmp_path / "packed").exists()


def test_links_out_of_a_directory_are_not_packaged(foreign: Path, tmp_path: Path) -> None:
    shutil.copy(BASE / "configuration.json", foreign)
    (tmp_path / "secret").write_text("of somebody else")
    (foreign / "notes").mkdir()
    (foreign / "notes" / "more.txt").symlink_to(tmp_path / "secret")
    (tmp_path / "packed").mkdir()
    with pytest.raises(DataError, match=r"notes/more\.txt: got a link, expected a file inside"):
        write_support_files(
            load_config(stage_config_path("8k"), model=foreign), tmp_path / "packed"
        )
    assert not list((tmp_path / "packed").rglob("more.txt"))
