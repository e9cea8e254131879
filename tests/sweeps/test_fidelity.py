"""A trial that is answered from a longer one's course is what training it anew would have been."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.fidelity import read_course
from sweeps.state import SweepDirectory
from tests.sweeps.conftest import SWEEP
from tests.sweeps.study_kit import anew, driver, run_all, run_one
from trainer.tracking import read_events

pytestmark = pytest.mark.quick

GRID = SWEEP.replace(
    "  optim_conf.lr: {low: 1e-5, high: 1e-2, log: true}\n", "  optim_conf.lr: {choices: [1e-3]}\n"
).replace("trials: 8", "trials: 4\nsampler: grid\npruning: {method: none}")


def grid(place: Path, *overrides: str, epochs: str = "[2, 3, 6]") -> dict[int, dict[str, str]]:
    """Run a grid over epochs in one stage; each trial's notes by its number."""
    text = GRID.replace("[2, 3, 6]", epochs).replace("[8k, s1, s2, s3]", "[8k]")
    (place / "sweep.yaml").write_text(text)
    ledger = driver(*overrides)
    return {state.number: dict(state.notes) for state in run_all(ledger, run=run_one)}


@pytest.mark.parametrize(
    ("averaged", "answered"),
    [
        # The default of 3 epochs, then 6, 3 and 2: the curve turns after epoch 3.
        ("1", {2: "0", 3: "0"}),
        ("2", {2: "0"}),  # epochs 3 and 4 are the best two of 6, and an average of two of 2 is new
        ("9", {2: "0"}),
    ],
)
def test_answered_is_trained_anew(
    place: Path, averaged: str, answered: dict[int, str], tmp_path: Path
) -> None:
    notes = grid(place, f"train_conf.avg_nbest_model={averaged}")
    assert {n: note["answered.from"] for n, note in notes.items() if note} == answered
    ledger = driver(f"train_conf.avg_nbest_model={averaged}")
    for state in ledger.states():
        assert state.outcome == "completed"
        curve, objective = anew(ledger, state.number, tmp_path / f"anew-{state.number}")
        assert state.curve == curve
        assert state.objective == objective
        course = read_course(SweepDirectory.of("tiny").trial(state.number))
        assert course is not None
        assert course.final["objective"] == objective
        assert course.final["valid/cer"] == objective
    spent = sum(state.epochs for state in ledger.states() if not state.notes)
    assert ledger.spent().epochs == spent


def test_a_shorter_one_is_answered_though_the_longer_went_on_to_be_better(
    place: Path, tmp_path: Path
) -> None:
    notes = grid(
        place, "train_conf.avg_nbest_model=1", "train_conf.max_epoch=5", epochs="[1, 2, 4]"
    )
    assert notes[3]["answered.from"] == "0"
    ledger = driver("train_conf.avg_nbest_model=1", "train_conf.max_epoch=5")
    curve, objective = anew(ledger, 3, tmp_path / "anew")
    state = ledger.states()[3]
    assert (state.curve, state.objective) == (curve, objective)
    events = read_events(SweepDirectory.of("tiny").trial(3))
    tags = {key: value for event in events for key, value in event.get("tags", {}).items()}
    assert tags["answered.from"] == "0"
    assert tags["checkpoint"] == "epoch-001"
    params = {key: value for event in events for key, value in event.get("params", {}).items()}
    assert params["train_conf.max_epoch"] == 1
    assert not any("hypotheses" in event.get("artifact", "") for event in events)


def test_a_test_set_is_scored_with_the_longer_ones_checkpoint_alone(place: Path) -> None:
    notes = grid(place, "train_conf.avg_nbest_model=1", "data.test=data/valid.jsonl")
    assert notes[2] == {"answered.from": "0"}  # as many epochs: everything is the same
    assert notes[3] == {}  # the checkpoint of 2 epochs is not that of 3 or 6


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


def test_an_answer_that_was_cut_off_is_given_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = grid(place, "train_conf.avg_nbest_model=1")

    class Killed(BaseException):
        pass

    from sweeps.ledger import Ledger

    whole = Ledger.report

    def dying(self: Ledger, number: int, epoch: int, value: float) -> None:
        if number == 2 and epoch == 1:
            raise Killed
        whole(self, number, epoch, value)

    options = ("name=cut", "train_conf.avg_nbest_model=1")
    monkeypatch.setattr(Ledger, "report", dying)
    with pytest.raises(Killed):
        run_all(driver(*options), run=run_one)
    monkeypatch.setattr(Ledger, "report", whole)
    states = run_all(driver(*options), run=run_one)
    assert {state.number: dict(state.notes) for state in states} == expected
    assert {state.outcome for state in states} == {"completed"}
