"""Whole pipelines: what each step starts from, what is on record, and going on after any end.

Most tests put sweeps in place of `run_sweep` that only write what a sweep leaves in MLflow, so that
the pipeline can be ended between any two of its writes. The last ones run real Ray.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from analysis.export.provenance import PROVENANCE, Provenance, read
from conf.errors import ConfigError, DataError, UserError, WorkError
from conf.files import file_sha256
from sweeps import pipeline as module
from sweeps.directory import SweepDirectory
from sweeps.pipeline import PipelineDirectory, run_pipeline
from sweeps.spec.sweep_file import load_sweep
from tests import fakes
from tests.analysis.export.test_provenance import link as made_link
from tests.conftest import HANG_S, ROOT
from tests.sweeps.conftest import PIPELINE
from trainer.tracking.mlflow_store import Store

THREE = PIPELINE + "  - stages: [s3]\n"
ROOTS = Path("outputs/pipelines/chain")


class Killed(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


class Sweeps:
    """In place of `run_sweep`: two trials that got better, written to the real store."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.code = 130
        self.interrupted = ""
        self.init_sha256: str | None = None

    def __call__(self, path: Path, *, tags: Mapping[str, str], **_: Any) -> int:
        sweep, _places = load_sweep(path)
        self.started.append(sweep.name)
        SweepDirectory.of(sweep.name).create(sweep)
        store = Store.open()
        assert store.inherited_run_id is None
        run_id = store.ensure_sweep(
            sweep.name, f"id of {sweep.name}", {**tags, "objective": sweep.objective}
        )
        if sweep.name == self.interrupted:
            store.finish(run_id, "KILLED")
            return self.code
        store.log_metrics(run_id, {"base/valid/cer": 0.5, "base/wideband/cer": 0.1})
        for number in range(sweep.trials):
            directory = SweepDirectory.of(sweep.name).trial(number)
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "config.yaml").write_text((Path(sweep.base) / "config.yaml").read_text())
            child = store.ensure_run(
                kind="trial",
                name=f"{sweep.name}/{number}",
                key=f"{sweep.name}/{number}",
                parent=run_id,
                tags={
                    "trial": str(number),
                    "stage": sweep.stages[0],
                    "outcome": "completed",
                    "trial.dir": str(directory),
                    "init.sha256": self.init_sha256 or file_sha256(Path(sweep.base) / "model.pt"),
                    "config.sha256": f"config {number}",
                },
            )
            store.log_metrics(child, {"objective": 0.3 - number / 10, "wideband/cer": 0.2})
            store.finish(child, "FINISHED")
        store.finish(run_id, "FINISHED")
        return 0


@pytest.fixture
def sweeps(place: Path, monkeypatch: pytest.MonkeyPatch) -> Sweeps:
    """The place with `pipeline.yaml` of three steps, and sweeps that train nothing."""
    (place / "pipeline.yaml").write_text(THREE)
    sweeps = Sweeps()
    monkeypatch.setattr(module, "run_sweep", sweeps)
    return sweeps


def run(*overrides: str, package: Callable[..., Any] = fakes.package) -> int:
    return run_pipeline(Path("pipeline.yaml"), overrides=overrides, package=package)


def sweep_tags(step: int) -> dict[str, str]:
    parent = Store.open().sweep_run(f"chain-s{step}")
    assert parent is not None
    return dict(parent.tags)


def check_chain(steps: int = 3) -> Provenance:
    """The chain on disk leads from file to file, and stands in MLflow."""
    chain = read(ROOTS / PROVENANCE)
    assert [link.name for link in chain.links] == [f"s{n + 1}" for n in range(steps)]
    weights = file_sha256(Path("model/model.pt"))
    assert chain.base_sha256 == weights
    store = Store.open()
    for number, link in enumerate(chain.links, 1):
        tags = sweep_tags(number)
        assert tags["pipeline"] == "chain"
        assert (tags["pipeline.step"], tags["pipeline.steps"]) == (str(number), str(steps))
        assert link.parent_sha256 == tags["parent.sha256"] == weights
        assert tags["base.sha256"] == chain.base_sha256
        copy = store.download(link.sweep_run_id, PROVENANCE, Path(f"copies/{number}"))
        assert read(copy) == Provenance(**{**vars(chain), "links": chain.links[:number]})
        if number > 1:
            before = chain.links[number - 2]
            assert (tags["parent.sweep"], tags["parent.trial"]) == (before.sweep, str(before.trial))
        if number < steps:
            model = ROOTS / f"{number}-s{number}/model"
            weights = file_sha256(model / "model.pt")
            assert link.model_sha256 == tags["model.sha256"] == weights
            assert read(model / PROVENANCE).links == chain.links[:number]
            card = (model / "README.md").read_text()
            assert card.count("## Provenance") == 1
            assert weights in card
    assert chain.links[-1].model_sha256 is None
    return chain


def test_each_step_starts_from_the_best_of_the_one_before(
    sweeps: Sweeps, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    assert sweeps.started == ["chain-s1", "chain-s2", "chain-s3"]
    chain = check_chain()
    assert [link.trial for link in chain.links] == [1, 1, 1]
    assert chain.links[0].before == {"valid": 0.5, "wideband": 0.1}
    said = capfd.readouterr().out
    lines = [line for line in said.splitlines() if line.startswith("3 s3")]
    assert "best of s2" in lines[0]  # the plan
    assert "50.00 → 20.00" in lines[1]
    assert f"2-s2 ({chain.links[2].parent_sha256[:12]})" in lines[1]
    assert "next: python -m analysis export --sweep chain-s3 --output_dir exported" in said
    for step in (1, 2, 3):
        sweep, _ = load_sweep(ROOTS / f"{step}-s{step}.yaml")
        assert sweep.base == ("model" if step == 1 else f"{ROOTS}/{step - 1}-s{step - 1}/model")

    assert run() == 0
    assert len(sweeps.started) == 3
    assert check_chain() == chain
    assert "50.00 → 20.00" in capfd.readouterr().out


@pytest.mark.quick
def test_a_step_that_gained_nothing_is_named(place: Path) -> None:
    worse = made_link(2, before={"valid": 0.1}, after={"valid": 0.12})
    links = (made_link(1), worse, made_link(3, before={}))
    chain = Provenance("calls", 3, "base", "b" * 64, links)
    assert module.no_gain(chain) == [
        "step 2 s2: no trial is better than what it started from, valid/cer 10.00 %"
    ]


def test_killed_at_any_point_it_goes_on(
    sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    """Ends before and after each call that leaves something, one after the other."""
    (place / "pipeline.yaml").write_text(PIPELINE)
    countdown = 0

    def mortal(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal countdown
            for moment in (lambda: None, lambda: function(*arguments, **named)):
                countdown -= 1
                if countdown == 0:
                    raise Killed
                result = moment()
            return result

        return call

    for owner, name in (
        (module, "write_text"),
        (module, "write_json"),
        (module, "run_sweep"),
        (Store, "set_tags"),
        (Store, "log_text"),
    ):
        monkeypatch.setattr(owner, name, mortal(getattr(owner, name)))
    package = mortal(fakes.package)
    deaths = 0
    for lifetime in range(1, 1000):
        countdown = lifetime
        try:
            assert run(package=package) == 0
        except Killed:
            deaths += 1
            continue
        break
    assert deaths > 10
    countdown = 0
    chain = check_chain(steps=2)
    assert [link.trial for link in chain.links] == [1, 1]
    for step in (1, 2):
        assert len(Store.open().trial_runs(f"chain-s{step}")) == 2


def test_a_package_cut_off_is_made_again(sweeps: Sweeps, place: Path) -> None:
    def cut_off(sweep: str, store: Store, goal: Path) -> None:
        scratch = goal.parent / f".{goal.name}.x"
        scratch.mkdir()
        (scratch / "model.pt").write_text("half")
        raise Killed

    with pytest.raises(Killed):
        run(package=cut_off)
    assert list(ROOTS.glob(".*"))
    assert run() == 0
    assert not list(ROOTS.glob(".*"))
    check_chain()


def test_an_interrupted_sweep_interrupts_the_pipeline(
    sweeps: Sweeps, capfd: pytest.CaptureFixture[str]
) -> None:
    sweeps.code, sweeps.interrupted = 143, "chain-s1"
    assert run() == 143
    assert sweeps.started == ["chain-s1"]
    assert "the same command goes on (python -m sweeps pipeline pipeline.yaml" in (
        capfd.readouterr().out
    )
    sweeps.interrupted = ""
    assert run() == 0
    check_chain()


def test_an_interrupt_while_packaging_ends_in_order(sweeps: Sweeps) -> None:
    def interrupted(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    assert run(package=interrupted) == 143
    assert run() == 0
    check_chain()


def test_what_a_finished_step_rests_on_may_not_change(sweeps: Sweeps, place: Path) -> None:
    assert run() == 0
    with pytest.raises(ConfigError, match=r"step s2: set\.optim_conf\.lr: got 0\.002, expected"):
        run("s2.optim_conf.lr=2e-3")
    assert run("concurrency=1", "trials=3") == 0  # what is finished stays so
    assert len(sweeps.started) == 3
    (ROOTS / "1-s1/model/model.pt").write_text("others")
    with pytest.raises(DataError, match=r"1-s1/model/provenance\.json: got a chain to weights"):
        run()
    (place / "model/model.pt").write_text("others")
    with pytest.raises(ConfigError, match=r"model: got weights .* from which sweep chain-s1"):
        run()


def test_a_steps_base_that_was_made_anew_is_refused(sweeps: Sweeps) -> None:
    sweeps.interrupted = "chain-s2"
    assert run() == 130
    (ROOTS / f"1-s1/model/{PROVENANCE}").unlink()

    def otherwise(sweep: str, store: Store, goal: Path) -> None:
        fakes.package(sweep, store, goal)
        (goal / "model/model.pt").write_text("others")

    with pytest.raises(UserError, match="from which sweep chain-s2 started"):
        run(package=otherwise)


def test_weights_from_elsewhere_break_the_chain(sweeps: Sweeps) -> None:
    sweeps.init_sha256 = "f" * 64
    with pytest.raises(DataError, match=r"sweep chain-s1, trial 1: init\.sha256: got ffffffffffff"):
        run()


def test_under_mlflow_run_the_inherited_run_is_the_pipelines(
    sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(experiment="mine")
    inherited = store.ensure_run(kind="x", name="made by mlflow run")
    monkeypatch.setenv("MLFLOW_RUN_ID", inherited)
    assert run() == 0
    tags = store.run(inherited).tags
    assert (tags["kind"], tags["pipeline"]) == ("pipeline", "chain")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert {sweep_tags(n)["mlflow.parentRunId"] for n in (1, 2, 3)} == {inherited}
    check_chain()


def test_a_second_start_is_refused_and_leaves_the_first_alone(sweeps: Sweeps) -> None:
    with PipelineDirectory(ROOTS).locked():
        with pytest.raises(UserError, match=rf"being run by pid {os.getpid()} since"):
            run()
        assert ROOTS.exists()
    assert not Path("outputs").exists()


def test_a_place_that_cannot_be_written_is_one_line(sweeps: Sweeps, place: Path) -> None:
    (place / "outputs").write_text("a file")
    with pytest.raises(UserError, match=r"pipelines/chain: got a place that cannot be written"):
        run()
    assert not (place / "mlflow.db").exists()


def test_a_package_that_fails_keeps_the_sweep(sweeps: Sweeps) -> None:
    def fails(*_: Any) -> None:
        raise WorkError("stock FunASR gives 3 of 9 logged texts")

    with pytest.raises(WorkError, match="3 of 9"):
        run(package=fails)
    assert run() == 0
    check_chain()


@pytest.mark.quick
@pytest.mark.parametrize(
    "arguments", [("--dry-run",), ("trials=0",), ("gone.yaml",), ("s2.frontend_conf.fs=16000",)]
)
def test_nothing_is_created_before_it_starts(place: Path, arguments: tuple[str, ...]) -> None:
    (place / "pipeline.yaml").write_text(THREE)
    file = () if arguments[0].endswith(".yaml") else ("pipeline.yaml",)
    result = subprocess.run(
        [sys.executable, "-m", "sweeps", "pipeline", *file, *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    dry = arguments == ("--dry-run",)
    assert result.returncode == (0 if dry else 2), result.stderr
    assert ("3 steps, 6 trials; nothing was started." in result.stdout) == dry
    said = [line for line in result.stderr.splitlines() if not line.endswith(" so far")]
    assert bool(said) != dry  # beside progress on work that a busy machine makes long
    assert "Traceback" not in result.stderr
    assert not (place / "outputs").exists()
    assert not (place / "mlflow.db").exists()


# With Ray

DRIVER = """
import sys
from pathlib import Path
from conf.errors import run_command
from sweeps.pipeline import run_pipeline
from tests import fakes

def main(argv):
    finetune = getattr(fakes, argv[1])
    return run_pipeline(
        Path(argv[0]), overrides=argv[2:], finetune=finetune, package=fakes.package
    )

sys.exit(run_command(main, sys.argv[1:]))
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def drive_until(said: str, number: int, *arguments: str, pause_s: float = 0.0) -> tuple[int, str]:
    """Run a pipeline until it says something, then send it a signal; 0 lets it finish."""
    command = [sys.executable, "-c", DRIVER, "pipeline.yaml", "brief_finetune", *arguments]
    environment = {**ENVIRONMENT, "PACKAGE_PAUSE_S": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as driver:
        assert driver.stdout is not None
        output = ""
        for line in driver.stdout:
            output += line
            if number and said in line:
                time.sleep(pause_s)
                driver.send_signal(number)
                number = 0
    return driver.returncode, output


@pytest.mark.slow
def test_killed_between_and_within_steps_every_trial_is_there_once(place: Path) -> None:
    (place / "pipeline.yaml").write_text(PIPELINE.replace("trials: 2", "trials: 3"))
    for said, number, pause_s, code in (
        ("completed", signal.SIGKILL, 0.0, -9),  # within the first sweep
        ("packaging", signal.SIGKILL, 1.5, -9),  # between the steps
        ("step 2 of 2", signal.SIGKILL, 1.0, -9),  # before the second sweep has begun
        ("completed", signal.SIGINT, 0.0, 130),  # within the second
    ):
        found, output = drive_until(said, number, pause_s=pause_s)
        assert found == code, output
    assert "the same command goes on (python -m sweeps pipeline" in output
    code, output = drive_until("", 0)
    assert code == 0, output
    assert "step 1 s1: finished" in output
    check_chain(steps=2)
    store = Store.open()
    for step in (1, 2):
        runs = store.trial_runs(f"chain-s{step}")
        assert [run.tags["trial"] for run in runs] == ["0", "1", "2"]
        assert {run.status for run in runs} == {"FINISHED"}
    statuses = {run.status for name in store.sweep_names() if (run := store.sweep_run(name))}
    assert statuses == {"FINISHED"}


def test_a_pipeline_of_real_sweeps(place: Path) -> None:
    (place / "pipeline.yaml").write_text(PIPELINE)
    result = subprocess.run(
        [sys.executable, "-c", DRIVER, "pipeline.yaml", "finetune"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("Best of 2 trials") == 2
    check_chain(steps=2)
    started = json.loads((ROOTS / "pipeline.json").read_text())["started_from"]
    assert list(started) == ["chain-s1", "chain-s2"]
