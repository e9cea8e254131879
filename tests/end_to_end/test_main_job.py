"""The main job, small: `mlflow run` sweeps real fine-tunes; tables, best config, model directory.

One sweep of six trials on a cut of the corpus is run once; the tests look at what it left.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import write_cut
from tests.end_to_end.conftest import Workspace

SWEEP = """\
name: small
base: trainer/demo/base
data:
  train: cut/train.jsonl
  valid: cut/valid.jsonl
  test: cut/test.jsonl
  wideband: cut/wideband.jsonl
stages: [8k, s1, s2, s3]
set:
  optim_conf.lr: 1e-3
  scheduler_conf.warmup_steps: 4
  dataset_conf.batch_type: example
  dataset_conf.batch_size: 8
  train_conf.max_epoch: 2
  finetune_conf.max_new_tokens: 32
space:
  optim_conf.lr: {low: 1e-4, high: 1e-2, log: true}
  optim_conf.weight_decay: {low: 1e-3, high: 1e-1, log: true}
  train_conf.max_epoch: {choices: [2, 3]}
trials: 6
startup_trials: 4
seed: 1
concurrency: 2
"""
REGISTERED = "fun-asr-nano-8k-telephone"
COUNTS = {"train": 48, "valid": 16, "test": 8, "wideband": 8}


@pytest.fixture(scope="module")
def swept(workspace: Workspace, corpus: Path) -> tuple[Workspace, str]:
    """A workspace after `mlflow run . -e sweep`, and what that printed."""
    directory = workspace.directory
    (directory / "cut").mkdir()
    for split, count in COUNTS.items():
        write_cut(corpus, split, count, directory / "cut" / f"{split}.jsonl")
    (directory / "small.yaml").write_text(SWEEP, encoding="utf-8")
    finished = workspace.python(
        *("-m", "mlflow", "run", ".", "-e", "sweep", "--env-manager", "local"),
        *("--experiment-name", "fun-asr-nano-8k-telephone"),
        *("-P", "sweep=small.yaml", "-P", "name=small"),
    )
    return workspace, finished.stdout


def _client(workspace: Workspace) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{workspace.directory / 'mlflow.db'}")


def _runs(workspace: Workspace) -> tuple[Any, list[Any]]:
    """The parent run and its children by trial number."""
    client = _client(workspace)
    experiment = client.get_experiment_by_name("fun-asr-nano-8k-telephone")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    [parent] = [run for run in runs if run.data.tags.get("kind") == "sweep"]
    children = [run for run in runs if run.data.tags.get("kind") == "trial"]
    assert len(runs) == 1 + len(children)
    return parent, sorted(children, key=lambda run: int(run.data.tags["trial"]))


def test_mlflows_own_run_is_the_parent_of_every_trial(swept: tuple[Workspace, str]) -> None:
    parent, children = _runs(swept[0])
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["mlflow.project.entryPoint"] == "sweep"
    assert parent.data.tags["sweep"] == "small"
    assert len(children) == 6
    for child in children:
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags["outcome"] in ("completed", "pruned")
        assert child.info.status == "FINISHED"
    stages = [child.data.tags["stage"] for child in children]
    assert set(stages[:4]) == {"8k", "s1", "s2", "s3"}


def test_a_trial_logs_params_metrics_tags_and_artifacts(swept: tuple[Workspace, str]) -> None:
    client = _client(swept[0])
    parent, children = _runs(swept[0])
    for child in children:
        tags, metrics, params = child.data.tags, child.data.metrics, child.data.params
        assert {"delta.critical", "delta.modified", "delta.new", "init.sha256", "data.sha256"} <= (
            set(tags)
        )
        assert float(params["optim_conf.lr"]) > 0
        assert {
            *("train/loss", "train/lr", "train/utterances_per_s", "valid/loss", "valid/cer"),
            *("valid/cer_ctc", "valid/substitutions", "valid/deletions", "valid/insertions"),
            *("wideband/cer", "objective", "epoch"),
        } <= set(metrics)
        names = {item.path for item in client.list_artifacts(child.info.run_id)}
        assert {"config.yaml", "deltas.json", "deltas.md", "hypotheses"} <= names
        curve = client.get_metric_history(child.info.run_id, "valid/cer")
        assert len(curve) >= 2
        if tags["outcome"] == "completed":
            assert "test/cer" in metrics
            assert metrics["objective"] == metrics["valid/cer"]
    names = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"sweep.yaml", "comparison.md", "comparison.csv", "best_config.yaml"} <= names
    bases = client.list_artifacts(parent.info.run_id, "hypotheses/base")
    assert {Path(item.path).stem for item in bases} == {"valid", "test", "wideband"}
    texts = Path(client.download_artifacts(children[0].info.run_id, "hypotheses/valid.jsonl"))
    for line in map(json.loads, texts.read_text(encoding="utf-8").splitlines()):
        assert line["domain"] == "telephone"
        assert line["speaker"]
        assert 0.3 < line["duration_s"] < 10


def test_the_table_is_printed_and_logged(swept: tuple[Workspace, str]) -> None:
    workspace, printed = swept
    client = _client(workspace)
    parent, children = _runs(workspace)
    path = client.download_artifacts(parent.info.run_id, "comparison.csv")
    with Path(path).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["trial"]) for row in rows) == list(range(6))
    best = min(
        (child for child in children if child.data.tags["outcome"] == "completed"),
        key=lambda child: child.data.metrics["objective"],
    )
    assert int(rows[0]["trial"]) == int(best.data.tags["trial"])
    assert f"{100 * best.data.metrics['objective']:.1f}" in printed


def test_the_same_command_again_prints_the_table_and_trains_nothing(
    swept: tuple[Workspace, str],
) -> None:
    workspace, _ = swept
    before = _runs(workspace)[1]
    finished = workspace.python("-m", "sweeps", "run", "small.yaml", "--name", "small")
    assert "8k" in finished.stdout
    after = _runs(workspace)[1]
    assert [run.info.run_id for run in after] == [run.info.run_id for run in before]
    assert [run.info.end_time for run in after] == [run.info.end_time for run in before]


def test_export_loads_in_stock_funasr_and_says_what_the_trial_logged(
    swept: tuple[Workspace, str],
) -> None:
    workspace, _ = swept
    workspace.python("-m", "analysis", "export", "--sweep", "small", "--output_dir", "best")
    exported = workspace.directory / "best"
    assert (exported / "best_config.yaml").is_file()
    [model_dir] = [path.parent for path in exported.rglob("model.pt")]
    _, children = _runs(workspace)
    completed = [child for child in children if child.data.tags["outcome"] == "completed"]
    best = min(completed, key=lambda child: child.data.metrics["objective"])
    path = _client(workspace).download_artifacts(best.info.run_id, "hypotheses/valid.jsonl")
    logged = {
        line["key"]: line["text"]
        for line in map(json.loads, Path(path).read_text(encoding="utf-8").splitlines())
    }
    origin = json.loads((exported / "export.json").read_text(encoding="utf-8"))
    assert len(origin["verification"]) == 2
    version = _client(workspace).get_model_version_by_alias(REGISTERED, "champion")
    assert version.run_id == best.info.run_id
    assert version.tags["weights.sha256"] == origin["model_sha256"]
    card = (model_dir / "README.md").read_text(encoding="utf-8")
    assert {"## Scores", "## Data", "## Licences"} <= set(card.splitlines())
    assert best.info.run_id in card
    assert str(workspace.directory) not in card

    # Away from the project: nothing of it may be needed.
    script = """
import json, sys
from pathlib import Path
from funasr import AutoModel
import mlflow
lines = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")][:6]
model = AutoModel(model=sys.argv[2], device="cpu", disable_update=True)
stock = {l["key"]: model.generate(input=l["source"])[0]["text"] for l in lines}
mlflow.set_tracking_uri(sys.argv[3])
champion = mlflow.pyfunc.load_model("models:/fun-asr-nano-8k-telephone@champion")
texts = champion.predict([{"audio": Path(l["source"])} for l in lines])
assert "trainer" not in sys.modules
print("TEXTS " + json.dumps([stock, dict(zip(stock, texts))]))
"""
    away = workspace.directory / "away"
    away.mkdir()
    store = f"sqlite:///{workspace.directory / 'mlflow.db'}"
    valid = str(workspace.directory / "cut/valid.jsonl")
    finished = workspace.python("-c", script, valid, str(model_dir), store, cwd=away)
    [line] = [row for row in finished.stdout.splitlines() if row.startswith("TEXTS ")]
    for texts in json.loads(line.removeprefix("TEXTS ")):
        assert len(texts) == 6
        assert texts == {key: logged[key] for key in texts}


def test_best_config_trains_again_to_the_same_cer(swept: tuple[Workspace, str]) -> None:
    workspace, _ = swept
    parent, children = _runs(workspace)
    path = _client(workspace).download_artifacts(parent.info.run_id, "best_config.yaml")
    text = Path(path).read_text(encoding="utf-8")
    assert {mark for mark in ("[ALIGNED]", "[MODIFIED]", "[NEW]") if mark in text} == {
        "[ALIGNED]",
        "[MODIFIED]",
        "[NEW]",
    }
    lr_line = next(line for line in text.splitlines() if line.strip().startswith("lr:"))
    assert "[MODIFIED]" in lr_line
    assert "5e-6" in lr_line.partition("#")[2]
    (workspace.directory / "best_config.yaml").write_text(text, encoding="utf-8")
    finished = workspace.python(
        *("-m", "trainer", "train", "--config", "best_config.yaml"),
        *("--init_param", "trainer/demo/base/model.pt"),
        *("--train_data_set_list", "cut/train.jsonl", "--valid_data_set_list", "cut/valid.jsonl"),
        *("--output_dir", "outputs/again"),
    )
    best = min(
        child.data.metrics["objective"]
        for child in children
        if child.data.tags["outcome"] == "completed"
    )
    events = (workspace.directory / "outputs/again/events.jsonl").read_text("utf-8").splitlines()
    metrics = [json.loads(line).get("metrics", {}) for line in events]
    assert [m["objective"] for m in metrics if "objective" in m][-1] == best
    assert "valid/cer" in finished.stdout
    assert yaml.safe_load(text)["train_conf"]["max_epoch"] in (2, 3)


def test_the_store_says_nothing_is_running(swept: tuple[Workspace, str]) -> None:
    client = _client(swept[0])
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, "attributes.status = 'RUNNING'")
    assert [run.info.run_name for run in runs] == []
