"""What another trial has trained is not trained again, and is what training it would have been."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from sweeps.directory import SweepDirectory
from sweeps.search.ledger import Ledger
from sweeps.search.reuse import read_learning_curve
from tests.sweeps.conftest import SWEEP
from tests.sweeps.study_kit import anew, driver, must_ask, run_all, run_one
from trainer.tracking.event_log import read_events

pytestmark = pytest.mark.quick

GRID = SWEEP.replace(
    "  optim_conf.lr: {low: 1e-5, high: 1e-2, log: true}\n", "  optim_conf.lr: {choices: [1e-3]}\n"
).replace("trials: 8", "trials: 4\nsampler: grid\npruning: {method: none}")


def trained_epochs(directory: Path) -> list[int]:
    """The epochs that a trial trained itself."""
    path = directory / "trained"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def grid(place: Path, *overrides: str, epochs: str = "[2, 3, 6]") -> dict[int, dict[str, str]]:
    """Run a grid over epochs in one stage; each trial's notes by its number."""
    text = GRID.replace("[2, 3, 6]", epochs).replace("[8k, s1, s2, s3]", "[8k]")
    (place / "sweep.yaml").write_text(text)
    ledger = driver(*overrides)
    return {state.number: dict(state.notes) for state in run_all(ledger, run=run_one)}


ANSWERED = {"answered.from": "0"}
WENT_ON = {"went_on.from": "0", "went_on.after": "3"}


@pytest.mark.parametrize(
    ("averaged", "expected"),
    [
        # The default of 3 epochs, then 2, 3 and 6: the curve turns after epoch 3.
        ("1", [{}, ANSWERED, ANSWERED, WENT_ON]),
        ("2", [{}, {}, ANSWERED, WENT_ON]),  # an average of the first two is new
        ("9", [{}, {}, ANSWERED, WENT_ON]),
    ],
)
def test_what_another_has_trained_is_as_trained_anew(
    place: Path, averaged: str, expected: list[dict[str, str]], tmp_path: Path
) -> None:
    notes = grid(place, f"train_conf.avg_nbest_model={averaged}")
    assert list(notes.values()) == expected
    ledger = driver(f"train_conf.avg_nbest_model={averaged}")
    directory = SweepDirectory.of("tiny")
    for state in ledger.states():
        assert state.outcome == "completed"
        curve, objective = anew(ledger, state.number, tmp_path / f"anew-{state.number}")
        assert state.curve == curve
        assert state.objective == objective
        curve = read_learning_curve(directory.trial(state.number))
        assert curve is not None
        assert curve.final["objective"] == objective
        assert curve.final["valid/cer"] == objective
        assert (directory.trial(state.number) / f"checkpoints/{curve.chosen}.safetensors").exists()
    trained = {
        state.number: trained_epochs(directory.trial(state.number)) for state in ledger.states()
    }
    assert trained[3] == [4, 5, 6]
    assert ledger.spent().epochs == sum(map(len, trained.values()))


def test_a_shorter_one_is_answered_though_the_longer_went_on_to_be_better(
    place: Path, tmp_path: Path
) -> None:
    notes = grid(
        place, "train_conf.avg_nbest_model=1", "train_conf.max_epoch=5", epochs="[4, 2, 1]"
    )
    assert notes[1]["answered.from"] == "0"
    ledger = driver("train_conf.avg_nbest_model=1", "train_conf.max_epoch=5")
    curve, objective = anew(ledger, 1, tmp_path / "anew")
    state = ledger.states()[1]
    assert (state.curve, state.objective) == (curve, objective)
    events = read_events(SweepDirectory.of("tiny").trial(1))
    tags = {key: value for event in events for key, value in event.get("tags", {}).items()}
    assert tags["answered.from"] == "0"
    assert tags["checkpoint"] == "epoch-001"
    params = {key: value for event in events for key, value in event.get("params", {}).items()}
    assert params["train_conf.max_epoch"] == 1
    assert not any("hypotheses" in event.get("artifact", "") for event in events)


def test_a_test_set_is_scored_with_the_longer_ones_checkpoint_alone(place: Path) -> None:
    notes = grid(place, "train_conf.avg_nbest_model=1", "data.test=data/valid.jsonl")
    assert notes[1] == {}  # the checkpoint of 2 epochs is not that of 3
    assert notes[2] == ANSWERED  # as many epochs: everything is the same


@pytest.mark.parametrize(
    "override",
    ["finetune_conf.engine=stock", "sampler=tpe"],
    ids=["stock's trainer has its own ways", "another learning rate"],
)
def test_what_is_not_the_same_is_trained(place: Path, override: str) -> None:
    text = GRID.replace("[8k, s1, s2, s3]", "[8k]")
    if override == "sampler=tpe":
        text = text.replace("{choices: [1e-3]}", "{low: 1e-5, high: 1e-2, log: true}")
    (place / "sweep.yaml").write_text(text)
    states = run_all(driver(override, "train_conf.avg_nbest_model=1"), run=run_one)
    assert not any(state.notes for state in states)


class Killed(BaseException):
    """The driver's process ends here."""


def cut_off(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, at: int, options: tuple[str, ...]
) -> bool:
    """Run a driver that is killed before the so-and-so-manieth call; whether it was."""
    whole, calls = getattr(owner, name), itertools.count(1)

    def dying(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == at:
            raise Killed
        return whole(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        try:
            run_all(driver(*options), run=run_one)
        except Killed:
            return True
    return False


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Ledger, "report"), (Ledger, "_note_of"), (os, "replace")],
    ids=["report", "note", "rename"],
)
def test_cut_off_anywhere_the_sweep_is_the_same(
    place: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    """Each driver is killed a call later than the one before."""
    expected = list(grid(place, "train_conf.avg_nbest_model=1").values())
    options = ("name=cut", "train_conf.avg_nbest_model=1")
    kills = 0
    while cut_off(monkeypatch, owner, name, kills + 1, options):
        kills += 1
    assert kills >= 2
    states = driver(*options).states()
    assert [dict(state.notes) for state in states] == expected
    assert {state.outcome for state in states} == {"completed"}
    assert set(trained_epochs(SweepDirectory.of("cut").trial(3))) == {4, 5, 6}


def test_a_longer_one_waits_for_the_shorter(place: Path) -> None:
    """Handed out too early it would train again what is being trained."""
    text = GRID.replace("[8k, s1, s2, s3]", "[8k]").replace("epoch: 3", "epoch: 2")
    (place / "sweep.yaml").write_text(text)
    ledger = driver()
    first, second = must_ask(ledger), must_ask(ledger)
    assert (first.epochs, second.epochs) == (2, 2)  # the same: neither has anything to wait for
    assert ledger.ask() is None
    assert not ledger.exhausted
    assert ledger.awaited == set()
    again = driver()  # a driver that was killed meanwhile changes nothing
    assert [must_ask(again).number, must_ask(again).number] == [0, 1]
    assert again.ask() is None
    run_one(again, first)
    assert again.awaited == {0}
    assert again.ask() is None  # the second is under way
    run_one(again, second)
    third = must_ask(again)
    assert (third.epochs, third.notes["went_on.from"]) == (3, "0")
    assert again.ask() is None
    assert not again.exhausted
    run_one(again, third)
    fourth = must_ask(again)
    assert (fourth.epochs, fourth.notes["went_on.from"]) == (6, "2")
    assert again.exhausted
    run_one(again, fourth)
    assert again.finished
    assert again.spent().epochs == 2 + 2 + 1 + 3


def test_without_its_point_the_longer_one_is_trained_anew(place: Path) -> None:
    text = GRID.replace("[8k, s1, s2, s3]", "[8k]")
    (place / "sweep.yaml").write_text(text)
    ledger = driver()
    for _ in range(3):
        run_one(ledger, must_ask(ledger))
    for number in range(3):
        shutil.rmtree(SweepDirectory.of("tiny").trial(number) / "resume", ignore_errors=True)
    [*_, last] = run_all(ledger, run=run_one)
    assert last.notes == {}
    assert trained_epochs(SweepDirectory.of("tiny").trial(3)) == [1, 2, 3, 4, 5, 6]


def test_on_another_device_it_is_another_run(place: Path) -> None:
    """What may change between two starts may still change what weights come out."""
    (place / "sweep.yaml").write_text(GRID.replace("[8k, s1, s2, s3]", "[8k]"))
    ledger = driver()
    for _ in range(3):
        run_one(ledger, must_ask(ledger))
    assert must_ask(driver("resources.gpu=1")).notes == {}
