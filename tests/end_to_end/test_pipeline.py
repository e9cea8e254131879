"""The pipeline with real training: `mlflow run -e pipeline`, two steps on a cut of the corpus."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.conftest import write_cut
from tests.end_to_end.conftest import Workspace

PIPELINE = """\
name: short
base: trainer/demo/base
data: {train: cut/train.jsonl, valid: cut/valid.jsonl, wideband: cut/wideband.jsonl}
set:
  optim_conf.lr: 2e-3
  frontend_conf.fs: 8000
  scheduler_conf.warmup_steps: 4
  dataset_conf.batch_type: example
  dataset_conf.batch_size: 8
  train_conf.max_epoch: 1
  finetune_conf.max_new_tokens: 32
space:
  optim_conf.lr: {low: 1e-3, high: 3e-3, log: true}
trials: 1
steps:
  - stages: [s1]
  - stages: [s3]
"""
COUNTS = {"train": 48, "valid": 8, "wideband": 8}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_weights_are_known_from_the_base_to_the_export(workspace: Workspace, corpus: Path) -> None:
    directory = workspace.directory
    (directory / "cut").mkdir(exist_ok=True)
    for split, count in COUNTS.items():
        write_cut(corpus, split, count, directory / "cut" / f"{split}.jsonl")
    (directory / "short.yaml").write_text(PIPELINE, encoding="utf-8")
    workspace.python(
        *("-m", "mlflow", "run", ".", "-e", "pipeline", "--env-manager", "local"),
        *("-P", "pipeline=short.yaml", "-P", "name=short"),
    )
    place = directory / "outputs/pipelines/short"
    chain = json.loads((place / "provenance.json").read_text(encoding="utf-8"))
    first, last = chain["links"]
    assert chain["base_sha256"] == first["parent_sha256"]
    assert chain["base_sha256"] == _sha256(directory / "trainer/demo/base/model.pt")
    assert first["model_sha256"] == last["parent_sha256"]
    assert first["model_sha256"] == _sha256(place / "1-s1/model/model.pt")
    for link in (first, last):
        name = f"trials/{link['trial']:03d}/checkpoints/{link['checkpoint']}.safetensors"
        weights = directory / "outputs/sweeps" / link["sweep"] / name
        assert link["checkpoint_sha256"] == _sha256(weights)
        assert link["data_sha256"]
        assert set(link["before"]) == set(link["after"]) == {"valid", "wideband"}
    export = json.loads((place / "1-s1/export.json").read_text(encoding="utf-8"))
    [verified] = export["verification"]
    assert "of 8 logged texts" in verified

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    kinds = {
        kind: client.search_runs(experiments, f"tags.kind = '{kind}' and tags.pipeline = 'short'")
        for kind in ("pipeline", "sweep")
    }
    [pipeline] = kinds["pipeline"]
    assert {run.data.tags["mlflow.parentRunId"] for run in kinds["sweep"]} == {pipeline.info.run_id}
    assert {run.info.status for runs in kinds.values() for run in runs} == {"FINISHED"}

    exported = ("-m", "analysis", "export", "--sweep", "short-s3", "--output_dir", "exported")
    workspace.python(*exported)
    assert (directory / "exported/model/model.pt").is_file()
