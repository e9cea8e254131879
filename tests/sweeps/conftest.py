"""A place to run sweeps in: a model directory without real weights, one recording, a sweep file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
import soundfile

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Sweeps and pipelines set variables for the processes that they start; not for other tests."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


SWEEP = """\
name: tiny
base: model
data: {train: data/train.jsonl, valid: data/valid.jsonl}
stages: [8k, s1, s2, s3]
set:
  optim_conf.lr: 1e-3
  train_conf.max_epoch: 3
space:
  optim_conf.lr: {low: 1e-5, high: 1e-2, log: true}
  train_conf.max_epoch: {choices: [2, 3, 6]}
trials: 8
concurrency: 2
startup_trials: 4
"""

PIPELINE = """\
name: chain
base: model
data: {train: data/train.jsonl, valid: data/valid.jsonl}
allow: []
set:
  optim_conf.lr: 1e-3
  frontend_conf.fs: 8000
  train_conf.max_epoch: 3
space:
  optim_conf.lr: {low: 1e-5, high: 1e-2, log: true}
trials: 2
concurrency: 2
steps:
  - stages: [s1]
  - stages: [s2]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with `sweep.yaml`, `model/` and `data/`; a store of its own."""
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    shutil.copy(ROOT / "conf/pretrained.yaml", tmp_path / "model/config.yaml")
    (tmp_path / "model/model.pt").write_bytes(b"weights")
    (tmp_path / "data").mkdir()
    soundfile.write(tmp_path / "data/a.wav", numpy.zeros(800, numpy.float32), 8000)
    line = json.dumps({"key": "a", "source": "a.wav", "target": "一"}) + "\n"
    for split in ("train", "valid"):
        (tmp_path / f"data/{split}.jsonl").write_text(line)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path
