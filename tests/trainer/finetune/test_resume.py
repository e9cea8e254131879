"""A fine-tune that is killed, and goes on as if it had not been."""

from __future__ import annotations

import functools
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conf.errors import ConfigError, DataError, WorkError
from conf.load import Config
from trainer.finetune import run as run_module
from trainer.finetune.loop import Trainer
from trainer.finetune.result import Evaluation, FinetuneResult
from trainer.finetune.resume import ResumeFolder, random_state, refuse_another_run, set_random_state
from trainer.finetune.run import finetune
from trainer.model.checkpoint import CheckpointFolder, load_state
from trainer.tracking.event_log import EventLog, NullTracker, read_events

FORK = multiprocessing.get_context("fork")


def _finetune(config: Config) -> None:
    finetune(config, EventLog(Path(config["output_dir"]), resume=True))


def metrics(directory: Path) -> dict[tuple[str, int], float]:
    """Every logged number but timings, by name and step; a number logged twice must be the same."""
    found: dict[tuple[str, int], float] = {}
    for event in read_events(directory):
        for name, value in event.get("metrics", {}).items():
            if name != "train/utterances_per_s":
                assert found.setdefault((name, event["step"]), value) == value
    return found


def _weights(directory: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {path.name: load_state(path) for path in (directory / "checkpoints").iterdir()}


def assert_equal(one: Path, other: Path) -> None:
    assert metrics(one) == metrics(other)
    weights, others = _weights(one), _weights(other)
    assert weights.keys() == others.keys()
    for name, state in weights.items():
        assert all(torch.equal(value, others[name][key]) for key, value in state.items())


@pytest.fixture
def config(tiny_config: Callable[..., Config]) -> Callable[..., Config]:
    def make(output_dir: Path, **overrides: Any) -> Config:
        return tiny_config(
            "8k",
            output_dir=str(output_dir),
            train_conf__save_checkpoint_interval=1,
            train_conf__max_epoch=3,
            train_conf__keep_nbest_models=2,
            train_conf__avg_nbest_model=2,
            train_conf__log_interval=2,
            finetune_conf__max_new_tokens=8,
            **overrides,
        )

    return make


def _finetune_until(moment: int, config: Config) -> None:
    """A fine-tune that is killed at its so-and-so-manieth update, log line or renamed file."""
    passed = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal passed
            passed += 1
            if passed == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*args, **kwargs)
            passed += 1
            if passed == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for owner, name in ((os, "replace"), (EventLog, "_append"), (Trainer, "_update")):
        setattr(owner, name, counted(getattr(owner, name)))
    _finetune(config)


def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training goes on while files are written, which here takes as long as some updates."""
    write = CheckpointFolder.write

    def slowly(*arguments: Any) -> None:
        time.sleep(0.2)
        write(*arguments)

    monkeypatch.setattr(run_module, "goes_on_beside", lambda _: True)
    monkeypatch.setattr(CheckpointFolder, "write", slowly)


@pytest.mark.parametrize("goes_on", [False, True])
def test_killed_at_random_moments_it_ends_bit_by_bit_the_same(
    config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goes_on: bool
) -> None:
    """And what is logged of a checkpoint is never there without it."""
    if goes_on:
        _as_on_a_gpu(monkeypatch)
    finetune(config(tmp_path / "unbroken"), EventLog(tmp_path / "unbroken"))
    draw = random.Random(7)
    kills = 0
    checkpoint: Path | None = None
    while True:
        moment = draw.randint(1, 40) if kills < 12 else 0
        process = FORK.Process(target=_finetune_until, args=(moment, config(tmp_path / "killed")))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
        for event in read_events(tmp_path / "killed"):
            if name := event.get("tags", {}).get("checkpoint"):
                checkpoint = tmp_path / "killed" / "checkpoints" / f"{name}.safetensors"
        assert checkpoint is None or load_state(checkpoint)
    assert kills >= 6
    assert_equal(tmp_path / "unbroken", tmp_path / "killed")
    assert len(list((tmp_path / "killed" / "resume").glob("update-*.pt"))) == 1


def test_a_kill_costs_at_most_the_updates_since_the_last_point(
    config: Callable[..., Config], tmp_path: Path
) -> None:
    """Killed from within, right after a point and right before one."""
    directory = tmp_path / "run"
    for dies_at in (4, 8):

        def die(self: ResumeFolder, step: int, state: dict[str, Any], at: int = dies_at) -> None:
            _SAVE(self, step, state)
            if step == at:
                os.kill(os.getpid(), signal.SIGKILL)

        process = FORK.Process(target=_with_save, args=(die, config(directory)))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    evaluations: list[Evaluation] = []
    log = EventLog(directory, resume=True)
    finetune(config(directory), log, evaluations.append)
    assert [(e.epoch, e.step) for e in evaluations] == [(0, 0), (1, 3), (2, 6), (3, 9)]
    finetune(config(tmp_path / "unbroken"), EventLog(tmp_path / "unbroken"))
    assert_equal(tmp_path / "unbroken", directory)


_SAVE = ResumeFolder.save


def _with_save(save: Callable[..., None], config: Config) -> None:
    ResumeFolder.save = save  # type: ignore[method-assign]
    _finetune(config)


def test_a_finished_run_is_not_trained_again(config: Callable[..., Config], tmp_path: Path) -> None:
    def run() -> tuple[FinetuneResult, list[Evaluation]]:
        evaluations: list[Evaluation] = []
        tracker = EventLog(tmp_path / "run", resume=True)
        return finetune(config(tmp_path / "run"), tracker, evaluations.append), evaluations

    first, second = run(), run()
    assert first == second
    events = read_events(tmp_path / "run")
    finetune(config(tmp_path / "run", train_conf__resume=False), NullTracker())
    assert read_events(tmp_path / "run") == events


def test_a_start_killed_before_its_configuration_is_written_can_go_on(
    config: Callable[..., Config], tmp_path: Path
) -> None:
    one = config(tmp_path / "run", dataset_conf__max_token_length=60)  # some are left out
    for moment in (1, 3):  # around the list of what is left out
        process = FORK.Process(target=_finetune_until, args=(moment, one))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert (tmp_path / "run" / "checkpoints").exists()
        assert not (tmp_path / "run" / "config.yaml").exists()
        refuse_another_run(tmp_path / "run", one)


def test_what_a_damaged_run_has_lost_is_made_again(
    config: Callable[..., Config], tmp_path: Path
) -> None:
    """Its log emptied, its result torn, the average that it chose flipped."""
    run, unbroken = tmp_path / "run", tmp_path / "unbroken"
    one = config(run).replace({"train_conf.max_epoch": 2}, "test")
    _finetune(one)
    shutil.copytree(run, unbroken)
    (run / "events.jsonl").write_bytes(b"")
    _finetune(one)
    found, expected = metrics(run), metrics(unbroken)
    assert found.items() <= expected.items()
    assert [step for name, step in found if name == "valid/cer"] == [0, 3, 6, 7]
    events = read_events(run)
    tags = {key: value for event in events for key, value in event.get("tags", {}).items()}
    assert tags["checkpoint"] in {path.stem for path in (run / "checkpoints").iterdir()}
    assert "hypotheses/valid.jsonl" in {event.get("artifact") for event in events}

    (run / "result.json").write_text((run / "result.json").read_text()[:40])
    for average in (run / "checkpoints").glob("average-*"):
        _flip(average)
    _finetune(one)
    assert (run / "result.json").read_bytes() == (unbroken / "result.json").read_bytes()
    assert _weights(run).keys() == _weights(unbroken).keys()

    best, *_ = (run / "checkpoints").glob("epoch-*")
    _flip(best)
    (run / "result.json").unlink()
    with pytest.raises(DataError, match=rf"{best.name}: .* delete .*/resume to train anew"):
        _finetune(one)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_damaged_point_is_passed_over(tmp_path: Path) -> None:
    folder = ResumeFolder(tmp_path, "this run")
    folder.save(1, {"tensor": torch.arange(3)})
    kept = next(tmp_path.iterdir())
    content = kept.read_bytes()
    folder.save(2, {"tensor": torch.arange(4)})
    assert not kept.exists()
    kept.write_bytes(content)
    [newest] = set(tmp_path.iterdir()) - {kept}
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    (tmp_path / "partial").write_bytes(content[:10])
    state = folder.load()
    assert state is not None
    assert state["tensor"].tolist() == [0, 1, 2]
    assert ResumeFolder(tmp_path, "another run").load() is None


def test_a_full_disk_leaves_the_last_point(tmp_path: Path) -> None:
    def fill() -> None:
        # The limit on a file's size gives a real write error, as a full disk does.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
        try:
            folder.save(2, {"tensor": torch.zeros(100_000)})
        except WorkError as error:
            os._exit(3 if "could not write the resume point of update 2" in str(error) else 4)
        os._exit(5)

    folder = ResumeFolder(tmp_path, "this run")
    folder.save(1, {"tensor": torch.arange(3)})
    process = FORK.Process(target=fill)
    process.start()
    process.join()
    assert process.exitcode == 3
    state = folder.load()
    assert state is not None
    assert state["tensor"].tolist() == [0, 1, 2]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_full_disk_ends_the_run_before_a_point_names_what_is_not_there(
    config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goes_on: bool
) -> None:
    """The checkpoint of the first epoch cannot be written; training has gone on meanwhile."""
    if goes_on:
        _as_on_a_gpu(monkeypatch)

    def fill() -> None:
        write = CheckpointFolder.write

        def full(*arguments: Any) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
            write(*arguments)

        CheckpointFolder.write = full  # type: ignore[method-assign]
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            _finetune(one)
        except WorkError as error:
            said = "epoch-001.safetensors: could not write the checkpoint" in str(error)
            os._exit(3 if said else 4)
        os._exit(5)

    one = config(tmp_path / "run").replace({"train_conf.save_checkpoint_interval": 2}, "test")
    process = FORK.Process(target=fill)
    process.start()
    process.join()
    assert process.exitcode == 3
    [point] = (tmp_path / "run" / "resume").iterdir()
    assert point.name.startswith("update-00000002-")  # three updates are an epoch
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    assert not any("checkpoint" in e.get("tags", {}) for e in read_events(tmp_path / "run"))
    _finetune(one)
    finetune(config(tmp_path / "unbroken"), EventLog(tmp_path / "unbroken"))
    assert _weights(tmp_path / "run").keys() == _weights(tmp_path / "unbroken").keys()


def test_random_states_go_on_where_they_were(tmp_path: Path) -> None:
    import numpy

    folder = ResumeFolder(tmp_path, "")
    folder.save(1, {"random": random_state()})
    drawn = [random.random(), float(numpy.random.rand()), float(torch.rand(()))]
    state = folder.load()
    assert state is not None
    set_random_state(state["random"])
    assert [random.random(), float(numpy.random.rand()), float(torch.rand(()))] == drawn


def test_another_configurations_directory_is_refused(
    config: Callable[..., Config], tmp_path: Path
) -> None:
    one = config(tmp_path / "run")
    refuse_another_run(tmp_path / "run", one)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(one.to_yaml())
    refuse_another_run(tmp_path / "run", one)
    with pytest.raises(ConfigError, match="optim_conf.lr is 0.001 there; got 0.002"):
        refuse_another_run(tmp_path / "run", config(tmp_path / "run", optim_conf__lr=2e-3))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("Dear Sir")
    with pytest.raises(ConfigError, match="which is not empty"):
        refuse_another_run(tmp_path / "other", one)
