"""The real trainer's longer run contains the shorter one, number by number, weight by weight."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.load import Config
from sweeps.directory import SweepDirectory
from sweeps.search.ledger import Ledger
from sweeps.search.reuse import LearningCurve, answer, read_learning_curve
from sweeps.spec.sweep_file import load_sweep
from sweeps.trial import Work, trial_config
from tests.conftest import BASE, TINY_SETTINGS
from tests.sweeps.study_kit import driver, run_all, run_one
from tests.trainer.finetune.test_extend import texts
from tests.trainer.finetune.test_resume import assert_equal, metrics
from trainer.finetune.run import finetune
from trainer.tracking.event_log import EventLog


def test_the_real_trainers_longer_run_contains_the_shorter(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    def trained(epochs: int) -> tuple[Config, LearningCurve]:
        config = tiny_config(
            "8k",
            train_conf__max_epoch=epochs,
            train_conf__avg_nbest_model=1,
            output_dir=str(tmp_path / f"of-{epochs}"),
        )
        result = finetune(config, EventLog(Path(config["output_dir"])))
        curve = read_learning_curve(result.output_dir)
        assert curve is not None
        assert curve.final["objective"] == result.objective
        return config, curve

    _, longer = trained(3)
    config, shorter = trained(2)
    found = answer(longer, config)
    assert found is not None
    clocks = {"train/utterances_per_s"}
    assert {k: v for k, v in found.metrics.items() if k not in clocks} == {
        k: v for k, v in shorter.final.items() if k not in clocks
    }
    for epoch in range(3):
        mine, theirs = longer.epochs[epoch], shorter.epochs[epoch]
        assert mine.step == theirs.step
        assert {**mine.metrics, **theirs.metrics, "train/utterances_per_s": 0} == {
            **theirs.metrics,
            **mine.metrics,
            "train/utterances_per_s": 0,
        }


SWEEP = """\
name: first
base: {base}
data: {{train: {train}, valid: {valid}, test: {valid}}}
stages: [8k]
set: {settings}
sampler: grid
pruning: {{method: none}}
space:
  train_conf.max_epoch: {{choices: [3]}}
trials: 2
"""
SETTINGS = {
    **TINY_SETTINGS,
    "train_conf.keep_nbest_models": 2,
    "train_conf.avg_nbest_model": 2,
    "finetune_conf.max_new_tokens": 8,
}


def test_a_sweep_whose_trials_go_on_is_one_that_trained_them_anew(
    cut: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a grid over the epochs, and in a sweep that another one warms."""

    def notes_of(ledger: Ledger) -> list[dict[str, str]]:
        states = run_all(ledger, run=lambda ledger, state: run_one(ledger, state, finetune))
        assert {state.outcome for state in states} == {"completed"}
        return [dict(state.notes) for state in states]

    def assert_as_anew(name: str, number: int) -> None:
        directory = SweepDirectory.of(name)
        sweep, _ = load_sweep(directory.sweep_yaml)
        work = Work(**json.loads((directory.trial(number) / "trial.json").read_text()))
        config = trial_config(sweep, work, tmp_path / f"anew-{name}-{number}")
        result = finetune(config, EventLog(Path(config["output_dir"])))
        assert_equal(directory.trial(number), result.output_dir)
        assert texts(directory.trial(number)) == texts(result.output_dir)

    monkeypatch.chdir(tmp_path)
    train, valid = cut("train", 24), cut("valid", 6)
    text = SWEEP.format(base=BASE, train=train, valid=valid, settings=json.dumps(SETTINGS))
    Path("sweep.yaml").write_text(text)
    assert notes_of(driver()) == [{}, {"went_on.from": "0", "went_on.after": "2"}]
    assert_as_anew("first", 1)

    # The default of 4 epochs goes on from 3; that of 3 is there already.
    options = ("name=second", "warm_start.sweep=first", "warm_start.best=2", "sampler=random")
    ledger = driver(*options, "train_conf.max_epoch=4")
    assert notes_of(ledger) == [
        {"went_on.from": "first/1", "went_on.after": "3"},
        {"answered.from": "first/1", "warm.from": "first"},
    ]
    assert ledger.spent().epochs == 1
    assert_as_anew("second", 0)
    # What was answered has the chosen checkpoint and its texts, so that it can be exported.
    first, second = (SweepDirectory.of(name).trial(1) for name in ("first", "second"))
    assert metrics(second).items() <= metrics(first).items()
    [chosen] = (second / "checkpoints").iterdir()
    assert chosen.read_bytes() == (first / "checkpoints" / chosen.name).read_bytes()
    assert texts(second) == texts(first)
