"""The export: what it writes, what it replaces, and what it leaves when something goes wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from analysis.export import best_trial as module
from analysis.export.best_trial import best_config, export
from analysis.facts.records import load_sweep
from conf.errors import ConfigError, DataError, UserError, WorkError
from conf.load import load_config, stage_config_path
from tests.analysis.fakes import stored_trial
from trainer.export.mlflow_model import Registered
from trainer.export.verify import Verification

pytestmark = pytest.mark.quick


class Packager:
    """Stands in for `python -m trainer package`, which loads torch."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.returncode = 0
        self.stderr = ""
        self.files = ("config.yaml", "configuration.json", "model.pt")

    def __call__(self, command, **_):
        self.commands.append(command)
        goal = Path(command[command.index("--output_dir") + 1])
        goal.mkdir()
        for name in self.files:
            (goal / name).write_text(name)
        Path(command[command.index("--stock_dir") + 1]).mkdir()
        return subprocess.CompletedProcess(command, self.returncode, "wrote it\n", self.stderr)


class Registry:
    """Stands in for `trainer.export.mlflow_model` and `trainer.export.verify`."""

    def __init__(self) -> None:
        self.verified: list[tuple[Path, Path, Path | None]] = []
        self.registered: list[tuple[str, str, dict[str, str]]] = []
        self.problem: Exception | None = None

    def save(self, model, directory):
        directory.mkdir()
        (directory / "MLmodel").write_text("")

    def verify(self, model, run, served=None):
        self.verified.append((model, run, served))
        if self.problem is not None:
            raise self.problem
        ways = ["stock FunASR", *(["MLflow pyfunc"] if served else [])]
        return [Verification(way, 9, 9, 0.08, 0.08) for way in ways]

    def register(self, directory, uri, name, run_id, tags):
        assert (directory / "MLmodel").is_file()
        self.registered.append((name, run_id, tags))
        return Registered(name, "1", True, None)


@pytest.fixture
def packager(monkeypatch):
    packager = Packager()
    monkeypatch.setattr(module.subprocess, "run", packager)
    monkeypatch.setattr(module, "_config", lambda *_: SimpleNamespace(weights=None))
    monkeypatch.setattr(module, "_annotated", lambda *_: "optim_conf:\n  lr: 1.0e-3\n")
    monkeypatch.setattr(module, "_complete_card", lambda *_: None)
    return packager


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    registry = Registry()
    monkeypatch.setattr(module.mlflow_model, "save", registry.save)
    monkeypatch.setattr(module.mlflow_model, "register", registry.register)
    monkeypatch.setattr(module.verify, "verify", registry.verify)
    return registry


@pytest.fixture
def store(make_store, tmp_path):
    """Two completed trials, the second better, and a pruned one that is better still."""
    trials = []
    for number, (outcome, errors) in enumerate(
        [("completed", (120, 0, 0)), ("completed", (80, 0, 0)), ("pruned", (10, 0, 0))]
    ):
        directory = tmp_path / f"trial-{number}"
        directory.mkdir()
        tags = {"trial.dir": str(directory)}
        trials.append(stored_trial(number, "8k", 1e-3, outcome, errors, tags=tags))
    return make_store(trials)


def leftovers(directory):
    return [path for path in directory.iterdir() if path.name.startswith(".")]


def test_export_writes_config_model_and_origin(store, packager, registry, tmp_path):
    goal = tmp_path / "exports" / "demo"
    export("demo", store, goal)
    assert sorted(path.name for path in goal.iterdir()) == [
        "best_config.yaml",
        "export.json",
        "model",
        "stock",
    ]
    assert json.loads((goal / "export.json").read_text()) == {
        "sweep": "demo",
        "sweep_run_id": "parent",
        "trial": 1,
        "trial_run_id": "run01",
        "stage": "8k",
        "objective": "valid/cer",
        "value": 0.08,
        "model_sha256": hashlib.sha256(b"model.pt").hexdigest(),
        "verification": ["stock FunASR gives 9 of 9 logged texts, CER 8.00 % (logged 8.00 %)"],
        "registered": None,
        "notes": [
            "trial 2 had valid/cer 1.00 % when it was pruned; only completed trials are exported"
        ],
    }
    [command] = packager.commands
    assert command[:4] == [sys.executable, "-m", "trainer", "package"]
    assert command[command.index("--run") + 1] == str(tmp_path / "trial-1")
    [(model, run, served)] = registry.verified
    assert (model.name, run, served) == ("model", tmp_path / "trial-1", None)
    assert registry.registered == []
    assert leftovers(goal.parent) == []


def test_what_is_registered_is_verified_as_it_is_served(store, packager, registry, tmp_path):
    origin = export("demo", store, tmp_path / "goal", register_as="calls")
    [(_, _, served)] = registry.verified
    assert served is not None
    [(name, run_id, tags)] = registry.registered
    assert (name, run_id) == ("calls", "run01")
    assert tags["sweep"] == "demo"
    assert tags["trial"] == "1"
    assert tags["valid/cer"] == "0.080000"
    assert tags["test/cer"] == "0.090000"
    assert tags["weights.sha256"] == origin.model_sha256
    assert tags["verified"] == "true"
    assert origin.registered == "models:/calls@champion is version 1"
    assert [way.split(" gives ")[0] for way in origin.verification or ()] == [
        "stock FunASR",
        "MLflow pyfunc",
    ]
    assert not (tmp_path / "goal" / "served").exists()


@pytest.mark.parametrize("problem", [WorkError("m: 3 of 9 texts"), DataError("v.jsonl: is gone")])
def test_what_is_not_verified_is_neither_registered_nor_left(
    store, packager, registry, tmp_path, problem
):
    registry.problem = problem
    with pytest.raises(type(problem), match=str(problem)):
        export("demo", store, tmp_path / "goal", register_as="calls")
    assert registry.registered == []
    assert not (tmp_path / "goal").exists()
    assert leftovers(tmp_path) == []


def test_a_running_sweep_is_exported_only_if_asked(store, packager, tmp_path):
    store.parent = replace(store.parent, status="RUNNING")
    running = stored_trial(3, "8k", 1e-3, "running", (50, 0, 0))
    store.trials = [*store.trials, running]
    with pytest.raises(UserError, match=r"^sweep demo: is still running, .* \(3 of 4 trials have "):
        export("demo", store, tmp_path / "goal")
    assert packager.commands == []
    origin = export("demo", store, tmp_path / "goal", allow_running=True)
    assert origin.trial == 1
    assert (
        origin.notes[0] == "the best so far: the sweep was not at its end, 3 of 4 trials have ended"
    )


def test_two_at_once_to_one_place(store, packager, tmp_path, monkeypatch):
    refused: list[str] = []

    def second(*_):
        with pytest.raises(UserError, match="another export is writing") as error:
            export("demo", store, tmp_path / "goal")
        refused.append(str(error.value))

    monkeypatch.setattr(module, "_complete_card", second)
    export("demo", store, tmp_path / "goal")
    assert len(refused) == 1
    assert (tmp_path / "goal" / "model" / "model.pt").exists()
    assert leftovers(tmp_path) == []


def test_what_a_killed_export_left_is_cleared_and_the_earlier_one_restored(
    store, packager, registry, tmp_path
):
    export("demo", store, tmp_path / "goal")
    scratch = tmp_path / ".goal.partial"
    (scratch / "new" / "model").mkdir(parents=True)
    (tmp_path / "goal").rename(scratch / "old")  # killed between its two renames
    registry.problem = WorkError("other texts")
    with pytest.raises(WorkError):
        export("demo", store, tmp_path / "goal")
    assert (tmp_path / "goal" / "export.json").is_file()
    assert leftovers(tmp_path) == []


def test_export_twice_replaces_the_first(store, packager, registry, tmp_path):
    goal = tmp_path / "goal"
    export("demo", store, goal)
    (goal / "model" / "stale").write_text("")
    export("demo", store, goal, verified=False)
    assert not (goal / "model" / "stale").exists()
    assert len(registry.verified) == 1
    assert json.loads((goal / "export.json").read_text())["verification"] is None
    assert leftovers(tmp_path) == []


def test_a_directory_with_other_files_is_left_alone(store, packager, tmp_path):
    goal = tmp_path / "goal"
    goal.mkdir()
    (goal / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        export("demo", store, goal)
    assert [path.name for path in goal.iterdir()] == ["thesis.txt"]
    assert packager.commands == []


def test_a_file_as_goal_is_refused(store, packager, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="expected a directory"):
        export("demo", store, tmp_path / "file")


def test_failed_packaging_keeps_the_earlier_export(store, packager, tmp_path):
    goal = tmp_path / "goal"
    export("demo", store, goal)
    packager.returncode = 1
    packager.stderr = "loading\ntrainer: u7: got other text\n\n"
    with pytest.raises(WorkError, match="trial-1: u7: got other text$"):
        export("demo", store, goal)
    assert (goal / "model" / "model.pt").exists()
    assert leftovers(tmp_path) == []


def test_what_packaging_blames_on_the_user_is_passed_on(store, packager, tmp_path):
    packager.returncode = 2
    packager.stderr = "trainer: valid.jsonl: not found\n"
    with pytest.raises(DataError, match=r"trial-1: valid\.jsonl: not found$"):
        export("demo", store, tmp_path / "goal")
    assert not (tmp_path / "goal").exists()


def test_incomplete_model_directory_is_an_error(store, packager, tmp_path):
    packager.files = ("config.yaml",)
    with pytest.raises(WorkError, match=r"left out configuration\.json, model\.pt"):
        export("demo", store, tmp_path / "goal")
    assert not (tmp_path / "goal").exists()
    assert leftovers(tmp_path) == []


def test_full_disk_is_one_line_and_leaves_nothing(store, packager, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_package", full)
    with pytest.raises(WorkError, match="No space left on device; nothing was written"):
        export("demo", store, tmp_path / "goal")
    assert not (tmp_path / "goal").exists()
    assert leftovers(tmp_path) == []


def test_without_a_completed_trial(make_store, tmp_path):
    store = make_store([stored_trial(0, "8k", 1e-3, "pruned", (10, 0, 0))])
    with pytest.raises(
        DataError, match=r"got no completed trial that may be chosen among 1 \(1 pruned\)"
    ):
        export("demo", store, tmp_path / "goal")
    with pytest.raises(DataError, match="no completed trial"):
        best_config("demo", store)


def test_trial_directory_that_is_gone(store, packager, tmp_path):
    (tmp_path / "trial-1").rmdir()
    with pytest.raises(DataError, match="sweep demo, trial 1: its directory .* is gone"):
        export("demo", store, tmp_path / "goal")


def test_missing_config_artifact(store):
    with pytest.raises(DataError, match=r"has no artifact config\.yaml"):
        best_config("demo", store)


@pytest.fixture
def real_config(tmp_path):
    """What a fine-tune of config_8k_telephone writes, over a model directory without weights."""
    model = tmp_path / "base"
    model.mkdir()
    shutil.copy(stage_config_path("8k").with_name("pretrained.yaml"), model / "config.yaml")
    (model / "model.pt").write_bytes(b"")
    overrides = ["optim_conf.lr=1.5e-3", "finetune_conf.seed=3", f"output_dir={tmp_path}/trial-0"]
    return load_config(stage_config_path("8k"), init_param=model / "model.pt", overrides=overrides)


def test_best_config_is_annotated_and_loads_as_the_same(make_store, real_config, tmp_path):
    artifacts = {("run00", "config.yaml"): real_config.to_yaml()}
    trials = [stored_trial(0, "8k", 1.5e-3, "completed", (80, 0, 0))]
    text = best_config("demo", make_store(trials, artifacts=artifacts))
    assert text.startswith("# Best trial of sweep demo: trial 0, stage 8k, valid/cer 8.00 %")
    marks = {line.split("#")[0].strip(): line.split("# ")[-1] for line in text.splitlines()}
    assert marks["lr: 0.0015"] == "[MODIFIED] pretrained: 5e-6"
    assert marks["dither: 0.0"] == "[NEW]"
    assert marks["optim: adamw"] == "[ALIGNED]"

    path = tmp_path / "best_config.yaml"
    path.write_text(text)
    again = load_config(path)
    assert again.fingerprint() == real_config.fingerprint()
    assert again.stage == "8k"
    assert again["output_dir"] is None


def test_base_that_is_gone_is_told_by_the_trial(make_store, real_config):
    Path(real_config["init_param"]).unlink()
    artifacts = {("run00", "config.yaml"): real_config.to_yaml()}
    trials = [stored_trial(0, "8k", 1.5e-3, "completed", (80, 0, 0))]
    with pytest.raises(ConfigError, match=r"^sweep demo, trial 0: config\.yaml:\d+: init_param: "):
        best_config("demo", make_store(trials, artifacts=artifacts))


def test_the_first_of_equal_trials_is_the_best(make_store):
    trials = [stored_trial(n, "8k", 1e-3, "completed", (5, 0, 0)) for n in (3, 1, 2)]
    trial, value = module.best_trial(load_sweep("demo", make_store(trials)))
    assert (trial.trial, value) == (1, 0.005)
