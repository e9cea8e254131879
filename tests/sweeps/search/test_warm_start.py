"""What a sweep takes from an earlier one, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import ConfigError
from sweeps.directory import SweepDirectory
from sweeps.preflight import check
from sweeps.spec.sweep_file import load_sweep
from tests.sweeps.conftest import SWEEP
from tests.sweeps.study_kit import driver, history_of, run_all

pytestmark = pytest.mark.quick


@pytest.fixture
def earlier(place: Path) -> Path:
    """A place where a sweep of the name `earlier` has ended."""
    run_all(driver("name=earlier", "trials=10", "pruning.grace=2"))
    return place


def test_an_earlier_sweeps_results_are_known_and_do_not_count(earlier: Path) -> None:
    cold = run_all(driver("name=cold", "sampler=tpe"))
    warm = driver("warm_start=earlier")
    states = run_all(warm)
    assert len(states) == 8
    assert [s.number for s in states if s.baseline] == [0, 1, 2, 3]
    assert [s.values for s in states[4:]] != [s.values for s in cold[4:]]  # it has learnt

    # It stays what it was: the earlier one goes on, this one is interrupted.
    history = list(history_of(warm))
    run_all(driver("name=earlier", "trials=12", "pruning.grace=2"))
    again = driver("warm_start=earlier", "trials=9")
    assert len(again._warm.known) == 10
    assert list(history_of(again)) == history


def test_ranges_may_differ_if_values_fit(earlier: Path) -> None:
    wider = SWEEP.replace("low: 1e-5, high: 1e-2, log: true", "low: 1e-6, high: 1e-1")
    (earlier / "sweep.yaml").write_text(wider)
    assert len(driver("name=wider", "warm_start=earlier")._warm.known) == 10
    narrower = SWEEP.replace("low: 1e-5", "low: 3e-4").replace("[2, 3, 6]", "[3, 6, 9]")
    (earlier / "sweep.yaml").write_text(narrower)
    known = driver("name=narrower", "warm_start=earlier")._warm.known
    assert 0 < len(known) < 10
    assert all(one.values["optim_conf.lr"] >= 3e-4 for one in known)
    more = SWEEP.replace("space:\n", "space:\n  optim_conf.weight_decay: {low: 0.001, high: 0.1}\n")
    (earlier / "sweep.yaml").write_text(more)
    known = driver("name=more", "warm_start=earlier")._warm.known
    assert {one.values["optim_conf.weight_decay"] for one in known} == {0.01}  # what all had


def test_its_best_points_come_after_the_defaults(earlier: Path) -> None:
    before = driver("name=earlier", "trials=10", "pruning.grace=2").best[:2]
    start = ("warm_start.sweep=earlier", "warm_start.best=2")
    states = run_all(driver(*start, "data.valid=data/train.jsonl"))
    assert [s.baseline for s in states[:4]] == [True] * 4
    for state, of in zip(states[4:6], before, strict=True):
        assert (state.stage, state.values) == (of.stage, of.values)
        assert state.notes == {"warm.from": "earlier"}
    assert not states[6].notes

    # A value that is out of range here is drawn anew, the same after an interruption.
    (earlier / "sweep.yaml").write_text(SWEEP.replace("[2, 3, 6]", "[7, 9]"))
    drawn = [run_all(driver(f"name={n}", *start, "trials=6"))[4:] for n in ("one", "other")]
    assert [s.values for s in drawn[0]] == [s.values for s in drawn[1]]
    assert drawn[0][0].values["optim_conf.lr"] == before[0].values["optim_conf.lr"]
    assert drawn[0][0].values["train_conf.max_epoch"] in (7, 9)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("warm_start=nobody", "warm_start: got 'nobody', expected another sweep in "),
        ("warm_start=tiny", "warm_start: got 'tiny', expected another sweep in "),
        (
            "objective=valid/cer_ctc",
            "results of 'earlier' with objective valid/cer, expected valid/cer_ctc as here",
        ),
        ("data.valid=data/train.jsonl", "results of 'earlier' with data {"),
        ("ctc_weight=0.7", "no trial of 'earlier' that fits (they differ in ctc_weight)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(earlier: Path, override: str, expected: str) -> None:
    start = [] if override.startswith("warm_start") else ["warm_start=earlier"]
    overrides = ["name=tiny", *start, override]
    with pytest.raises(ConfigError) as error:
        check(Path("sweep.yaml"), overrides=overrides)
    assert error.value.problems[0].startswith("command line: warm_start: got")
    assert expected in error.value.problems[0]
    assert not SweepDirectory.of("tiny").root.exists()


def test_a_warm_start_that_was_read_needs_the_earlier_sweep_no_more(earlier: Path) -> None:
    driver("warm_start=earlier")
    SweepDirectory.of("earlier").root.rename(earlier / "elsewhere")
    check(Path("sweep.yaml"), overrides=["warm_start=earlier"])
    assert len(driver("warm_start=earlier")._warm.known) == 10
    assert load_sweep(Path("sweep.yaml"))[0].warm_start is None
