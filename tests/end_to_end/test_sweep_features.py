"""Every feature of a sweep file, once, through real Ray, Optuna, MLflow and fine-tunes.

The features are read from the schema, so that a new one is missed here until a sweep uses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from sweeps.directory import SweepDirectory
from sweeps.search.study import read_states
from sweeps.spec.ranges import Range
from sweeps.spec.sweep_file import MetricName, ObjectiveName, SweepFile, load_sweep
from sweeps.trial_state import REPLICATE_OF, TrialState
from tests.conftest import ROOT, write_cut
from tests.end_to_end.conftest import Workspace

HEAD = """\
name: {name}
base: trainer/demo/base
data: {{train: cut/train.jsonl, valid: cut/valid.jsonl,
  test: cut/test.jsonl, wideband: cut/wideband.jsonl}}
resources: {{cpu: 1}}
concurrency: 2
set:
  optim_conf.lr: 1e-3
  scheduler_conf.warmup_steps: 4
  dataset_conf.batch_type: example
  dataset_conf.batch_size: 8
  finetune_conf.max_new_tokens: 24
  train_conf.max_epoch: 2
"""
SWEEPS = {
    "front": """
stages: [8k, s1]
space: {optim_conf.lr: {low: 1e-4, high: 1e-2, log: true}, train_conf.max_epoch: {choices: [1, 2]}}
objective: [valid/cer, valid/cer_ctc, valid/loss, wideband/cer, epochs]
trials: 5
startup_trials: 2
replicates: 1
keep_checkpoints: 1
seed: 3
""",
    "grid": """
stages: [8k]
space:
  optim_conf.lr: {low: 1e-3, high: 4e-3, log: true, points: 2}
  optim_conf.weight_decay: {low: 0.01, high: 0.03, step: 0.02}
objective: {metric: valid/loss, at_most: {valid/cer: 30, valid/cer_ctc: 30, wideband/cer: +900%}}
sampler: grid
trials: 5
pruning: {method: median, grace: 1}
budget: {epochs: 100, wall_hours: 1}
""",
    "chance": """
stages: [s2, s3]
stage_set: {s3: {llm_conf.lora_conf.r: 4}}
space: {optim_conf.weight_decay: {low: 1e-3, high: 1e-1, log: true}}
stage_space: {s2: {optim_conf.lr: {low: 1e-4, high: 1e-3, log: true}}}
objective: {metric: valid/cer_ctc, at_most: {valid/loss: 100}}
sampler: random
trials: 4
pruning: {method: none}
trial_timeout_s: 3600
skip_checks: [fs-stage]
""",
    "warm": """
stages: [8k, s1]
space: {optim_conf.lr: {low: 1e-4, high: 1e-2, log: true}}
warm_start: {sweep: front, best: 1}
sampler: tpe
trials: 6
goal: 1.0e9
pruning: {method: successive_halving, grace: 1, factor: 3}
""",
}
NEEDS_A_GPU = {"resources.gpu", "budget.gpu_hours"}
SHIPPED = ("demo", "telephone", "stages")
SHIPPED_SMALL = (
    *("base=trainer/demo/base", "trials=5", "startup_trials=4", "concurrency=2"),
    *("resources.cpu=1", "resources.gpu=0", "optim_conf.lr=1e-3", "train_conf.max_epoch=1"),
    *("space.train_conf.max_epoch.choices=[1,2]", "scheduler_conf.warmup_steps=4"),
    *("dataset_conf.batch_type=example", "dataset_conf.batch_size=8"),
    *("train_conf.accum_grad=1", "finetune_conf.max_new_tokens=24"),
)
COUNTS = {"train": 32, "valid": 8, "test": 8, "wideband": 8}
LISTS = [f"data.{split}=cut/{split}.jsonl" for split in COUNTS]


def _features(part: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of the schema, and every value of one that has names for values."""
    for name, field in part.model_fields.items():
        key, kinds = prefix + name, (field.annotation, *get_args(field.annotation))
        inner = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)
        if get_origin(field.annotation) is Literal:
            yield from (f"{key}={value}" for value in get_args(field.annotation))
        elif inner is Range or inner is None:
            yield key
        else:
            yield from _features(inner, f"{key}.")


def _used(part: BaseModel, prefix: str = "") -> Iterator[str]:
    """The features that a sweep file says."""
    for name in part.model_fields_set:
        key, value = prefix + name, getattr(part, name)
        if isinstance(value, BaseModel):
            yield from _used(value, f"{key}.")
        elif isinstance(value, str):
            yield from (key, f"{key}={value}")
        else:
            yield key
            metrics = value if key in ("beside", "at_most") else ()
            yield from (f"{key}={metric}" for metric in metrics)


def _write(name: str, directory: Path) -> Path:
    path = directory / f"{name}.yaml"
    path.write_text(HEAD.format(name=name) + SWEEPS[name], encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def place(workspace: Workspace, corpus: Path) -> Workspace:
    """A workspace with a cut of the corpus."""
    (workspace.directory / "cut").mkdir()
    for split, count in COUNTS.items():
        write_cut(corpus, split, count, workspace.directory / "cut" / f"{split}.jsonl")
    return workspace


def _run(place: Workspace, path: str, name: str, *overrides: str) -> list[TrialState]:
    """Run a sweep there; its trials, of which none failed."""
    place.python("-m", "sweeps", "run", path, "--name", name, *overrides, timeout_s=3600)
    states = read_states(SweepDirectory(place.directory / "outputs/sweeps" / name).study, name)
    assert {state.outcome for state in states} <= {"completed", "pruned"}, [
        state.reason for state in states
    ]
    return list(states)


def test_every_feature_is_in_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sweeps = [load_sweep(_write(name, tmp_path))[0] for name in SWEEPS]
    used = {feature for sweep in sweeps for feature in _used(sweep)}
    named = {f"objective={name}" for name in get_args(ObjectiveName)}
    named |= {f"beside={name}" for name in get_args(MetricName) if name != "valid/cer"}
    named |= {f"at_most={name}" for name in get_args(MetricName) if name != "epochs"}
    assert {*_features(SweepFile), *named} - used == NEEDS_A_GPU
    ranges = [r for s in sweeps for stage in s.stages for _, r in s.ranges(stage).values()]
    assert {name for r in ranges for name in r.model_fields_set} == set(Range.model_fields)
    shipped = {path.stem for path in (ROOT / "conf/sweep").glob("*.yaml")}
    assert shipped == {*SHIPPED, "pipeline", "pipeline_demo"}


@pytest.mark.slow
def test_several_objectives_and_replicates(place: Workspace) -> None:
    states = _run(place, str(_write("front", place.directory)), "front")
    completed = [state for state in states if state.outcome == "completed"]
    assert all(set(s.metrics) == {"valid/cer_ctc", "valid/loss", "wideband/cer"} for s in completed)
    assert {state.notes[REPLICATE_OF] for state in states if REPLICATE_OF in state.notes}
    kept = list((place.directory / "outputs/sweeps/front/trials").glob("*/checkpoints"))
    assert 1 <= len(kept) <= 4


@pytest.mark.slow
def test_a_grid_with_bounds_and_budgets(place: Workspace) -> None:
    states = _run(place, str(_write("grid", place.directory)), "grid")
    assert len(states) == 5
    rates = {state.values["optim_conf.lr"] for state in states[1:]}
    assert rates == {pytest.approx(1e-3), pytest.approx(4e-3)}
    path, alone = str(_write("grid", place.directory)), "concurrency=1"
    spent = _run(place, path, "little", "budget.epochs=3", alone)
    assert sum(max(state.curve, default=0) for state in spent) == 3


@pytest.mark.slow
def test_chance_in_ranges_of_a_stage(place: Workspace) -> None:
    states = _run(place, str(_write("chance", place.directory)), "chance")
    assert [state.outcome for state in states] == ["completed"] * 4
    assert all("valid/loss" in state.metrics for state in states)


@pytest.mark.slow
def test_a_goal_ends_a_search_that_began_warm(place: Workspace) -> None:
    if not (place.directory / "outputs/sweeps/front/study.db").exists():
        _run(place, str(_write("front", place.directory)), "front")
    states = _run(place, str(_write("warm", place.directory)), "warm")
    assert len(states) < 6
    assert sum(state.outcome == "completed" for state in states) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_sweep(place: Workspace, name: str) -> None:
    own = {"stages": ["replicates=1"]}.get(name, [])
    states = _run(place, f"conf/sweep/{name}.yaml", name, *LISTS, *SHIPPED_SMALL, *own)
    assert {state.stage for state in states if state.baseline} == {"8k", "s1", "s2", "s3"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pipeline", "pipeline_demo"])
def test_a_shipped_pipeline(place: Workspace, name: str) -> None:
    small = [o for o in SHIPPED_SMALL if not o.startswith(("trials", "startup", "space"))]
    place.python(
        *("-m", "sweeps", "pipeline", f"conf/sweep/{name}.yaml", "--name", name, *LISTS, *small),
        *("trials=2", "startup_trials=1"),
        timeout_s=3600,
    )
    assert (place.directory / "outputs/pipelines" / name / "provenance.json").is_file()
