"""A hub's name does wherever a model is named, once a copy lies in one of the hubs' caches."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.load import load_config, stage_config_path
from conf.model_dir import RELEASED
from sweeps.spec.sweep_file import load_sweep, stage_configs
from tests.conftest import BASE, ROOT
from trainer.evaluation.evaluate_sets import load_model_config
from trainer.prepare import flags

pytestmark = pytest.mark.quick

CACHES = {
    "MODELSCOPE_CACHE": f"models/{RELEASED.replace('/', '--')}/snapshots/master",
    "HF_HOME": f"hub/models--{RELEASED.replace('/', '--')}/snapshots/{'0' * 40}",
}


def _train() -> Path | None:
    path = stage_config_path("8k").with_name("config_8k_telephone_from_hub.yaml")
    return load_config(path).model_dir


def _evaluate() -> Path | None:
    return load_model_config(Path(RELEASED), "--model", ()).model_dir


def _prepare() -> Path | None:
    parser = argparse.ArgumentParser()
    flags.add_to(parser)
    command = ["--input", "calls.jsonl", "--output_dir", "data", "--model", RELEASED]
    return flags.settings(parser.parse_args(command)).model


def _sweep() -> Path | None:
    sweep, places = load_sweep(ROOT / "conf/sweep/telephone.yaml", overrides=["stages=[s2]"])
    assert stage_configs(sweep, places)["s2"].model_dir == Path(sweep.base)
    return Path(sweep.base)


@pytest.mark.parametrize("look", [_train, _evaluate, _prepare, _sweep])
@pytest.mark.parametrize("variable", CACHES)
def test_the_copy_is_used(
    look: Callable[[], Path | None], variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CACHES:
        monkeypatch.setenv(name, str(tmp_path / name))
    copy = tmp_path / variable / CACHES[variable]
    shutil.copytree(BASE, copy)
    monkeypatch.chdir(tmp_path)
    assert look() == copy
