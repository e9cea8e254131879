"""The seam, without Ray: a trial's directory in, reports out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from conf.errors import WorkError
from sweeps.directory import SweepDirectory
from sweeps.spec.sweep_file import load_sweep
from sweeps.trial import Work, run_trial, trial_config
from sweeps.trial_state import TrialState
from tests import fakes
from trainer.tracking.event_log import read_events

pytestmark = pytest.mark.quick


@pytest.fixture
def root(place: Path) -> Path:
    """A sweep's directory with trial 7 waiting in it."""
    sweep, _ = load_sweep(Path("sweep.yaml"))
    directory = SweepDirectory.of(sweep.name)
    directory.create(sweep)
    state = TrialState(7, "s1", baseline=False, epochs=2, values={})
    directory.write_trial(state, {"optim_conf.lr": 1e-4, "train_conf.max_epoch": 2})
    return directory.root


def test_a_trial_reports_each_epoch_and_its_outcome(root: Path) -> None:
    reports: list[dict[str, Any]] = []
    run_trial(root, 7, reports.append, fakes.finetune)
    assert [(r["epoch"], r["finished"]) for r in reports[:-1]] == [
        (0, False),
        (1, False),
        (2, True),
    ]
    assert reports[-1]["outcome"] == "completed"
    assert reports[-1]["objective"] == reports[-2]["value"]
    events = read_events(root / "trials/007")
    assert any("hypotheses/valid.jsonl" in event.values() for event in events)


def test_config_of_a_trial(root: Path) -> None:
    sweep, _ = load_sweep(root / "sweep.yaml")
    config = trial_config(sweep, Work(7, "s1", False, {"optim_conf.lr": 1e-4}), root / "trials/007")
    assert config.stage == "s1"
    assert config["optim_conf.lr"] == 1e-4  # the trial's, over set: 1e-3
    assert config["train_conf.max_epoch"] == 3  # set:, over the stage's 10
    assert config["frontend_conf.fs"] == 8000  # the stage's
    assert config["train_data_set_list"] == "data/train.jsonl"
    assert config["device"] == "cpu"


def test_an_exception_is_a_result(root: Path) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("CUDA out of memory\nand so on")

    reports: list[dict[str, Any]] = []
    run_trial(root, 7, reports.append, broken)
    assert reports == [{"outcome": "failed", "reason": "RuntimeError: CUDA out of memory"}]
    assert "Traceback" in (root / "trials/007/trial.log").read_text()


def test_not_a_number_is_a_failure(root: Path) -> None:
    def diverging(_config: Any, _tracker: Any, on_eval: Any) -> Any:
        on_eval(fakes.Evaluation(1, 10, {"valid/cer": float("nan")}, finished=False))

    reports: list[dict[str, Any]] = []
    run_trial(root, 7, reports.append, diverging)
    assert reports == [{"outcome": "failed", "reason": "valid/cer: got nan after epoch 1"}]


def test_our_own_errors_need_no_class_name(root: Path) -> None:
    def stopped(*_: Any) -> Any:
        raise WorkError("loss: got nan at step 3")

    reports: list[dict[str, Any]] = []
    run_trial(root, 7, reports.append, stopped)
    assert reports[0]["reason"] == "loss: got nan at step 3"


def test_a_pruned_trial_ends_inside_its_report(root: Path) -> None:
    def report(what: dict[str, Any]) -> None:
        if what.get("epoch") == 1:
            raise SystemExit(0)  # Ray's way of ending a stopped trial

    with pytest.raises(SystemExit):
        run_trial(root, 7, report, fakes.finetune)
    run_trial(root, 7, lambda _: None, fakes.finetune)  # nothing is left locked


def test_prints_go_to_the_trials_log(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def noisy(*arguments: Any) -> Any:
        print("loading")
        return fakes.finetune(*arguments)

    run_trial(root, 7, lambda _: None, noisy)
    assert capsys.readouterr().out == ""
    assert "loading" in (root / "trials/007/trial.log").read_text()


def test_a_full_disk_is_not_the_trials_fault(root: Path) -> None:
    def full(*_: Any) -> Any:
        try:
            raise RuntimeError("I/O error: No space left on device (os error 28)")
        except RuntimeError as error:
            raise WorkError("epoch-001.safetensors: could not write the checkpoint") from error

    reports: list[dict[str, Any]] = []
    run_trial(root, 7, reports.append, full)
    assert reports == [
        {"outcome": "stopped", "reason": "epoch-001.safetensors: could not write the checkpoint"}
    ]


def test_what_libraries_print_is_in_the_log_too(root: Path) -> None:
    def noisy(*arguments: Any) -> Any:
        os.system("echo from a process of its own")
        os.write(2, b"terminate called after throwing\n")
        return fakes.finetune(*arguments)

    run_trial(root, 7, lambda _: None, noisy)
    log = (root / "trials/007/trial.log").read_text()
    assert "from a process of its own" in log
    assert "terminate called" in log
