"""What is drawn follows from what is known and the trial's number, and from nothing else."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from sweeps.search.samplers import Known, draw, grid
from sweeps.spec.sweep_file import Choice, SweepFile, load_sweep
from tests.sweeps.conftest import SWEEP
from tests.sweeps.study_kit import driver, history_of, run_all

pytestmark = pytest.mark.quick

CONDITIONAL = SWEEP + (
    "stage_space:\n  s3:\n    llm_conf.lora_conf.r: {choices: [4, 8, 16]}\n"
    "    optim_conf.lr: {low: 1e-4, high: 1e-3, log: true}\n"
)


@pytest.fixture
def sweep(place: Path) -> SweepFile:
    """A sweep whose space depends on the stage."""
    (place / "sweep.yaml").write_text(CONDITIONAL)
    return load_sweep(Path("sweep.yaml"))[0]


def value(choice: Choice, number: int) -> float:
    """An objective that is small in stage s3."""
    return random.Random(number).uniform(0.3, 0.4) - 0.2 * (choice.stage == "s3")


def past(sweep: SweepFile, count: int) -> list[Known]:
    """Trials that were drawn at random."""
    blind = sweep.model_copy(update={"sampler": "random"})
    choices = [draw(blind, [], number, number) for number in range(count)]
    return [
        Known(choice.stage, choice.values, "completed", (value(choice, number),))
        for number, choice in enumerate(choices)
    ]


def stages_of_a_search(sweep: SweepFile, *, bound: bool = False) -> Counter[str]:
    """How often each stage is drawn in forty trials after a dozen random ones."""
    trials: list[Known] = []
    for number in range(52):
        choice = draw(sweep, trials, number, 0)
        over = {"wideband/cer": 0.5 if choice.stage == "s3" else -0.1} if bound else {}
        known = Known(choice.stage, choice.values, "completed", (value(choice, number),), {}, over)
        trials.append(known)
    return Counter(trial.stage for trial in trials[12:])


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_draw_repeats_and_differs_by_number(sweep: SweepFile, sampler: str) -> None:
    sweep = sweep.model_copy(update={"sampler": sampler})
    trials = past(sweep, 12)
    drawn = [draw(sweep, trials, number, 0) for number in (12, 12, 13)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_tpe_learns_where_to_look(sweep: SweepFile) -> None:
    found = stages_of_a_search(sweep)
    assert found["s3"] > 20
    assert stages_of_a_search(sweep.model_copy(update={"sampler": "random"}))["s3"] < 16


def test_a_bound_keeps_the_search_away(sweep: SweepFile) -> None:
    assert stages_of_a_search(sweep, bound=True)["s3"] < 10


def test_every_stage_draws_from_its_own_ranges(sweep: SweepFile) -> None:
    trials = past(sweep, 24)
    for number in range(24, 64):
        choice = draw(sweep, trials, number, 0)
        ranges = sweep.ranges(choice.stage)
        assert set(choice.values) == set(ranges)
        assert all(ranges[key][1].contains(value) for key, value in choice.values.items())


def test_running_pruned_and_bounded_trials_are_known_too(sweep: SweepFile) -> None:
    trials = past(sweep, 12)
    running = Known(trials[0].stage, trials[0].values, "running")
    pruned = Known(trials[1].stage, trials[1].values, "pruned", curve={1: 0.9})
    beyond = Known(trials[2].stage, trials[2].values, "completed", (0.01,), excess={"w": 0.5})
    more = [*trials, running, pruned, beyond]
    assert draw(sweep, more, 20, 0) == draw(sweep, more, 20, 0)
    assert Known.of_dict(json.loads(json.dumps(pruned.as_dict()))) == pruned


def test_several_objectives_with_pruned_trials(sweep: SweepFile) -> None:
    several = sweep.model_copy(update={"beside": ("wideband/cer",)})
    trials = [
        Known(t.stage, t.values, t.outcome, (*t.objectives, 0.1 * number))
        for number, t in enumerate(past(sweep, 12))
    ]
    trials.append(Known("s1", trials[0].values, "pruned", curve={1: 0.9}))
    drawn = {draw(several, trials, number, 0).stage for number in range(12, 32)}
    assert drawn <= {"8k", "s1", "s2", "s3"}


def test_a_grid_is_every_combination_the_shortest_first(place: Path) -> None:
    text = SWEEP.replace("log: true", "log: true, points: 4").replace("trials: 8", "trials: 52")
    (place / "sweep.yaml").write_text(text + "sampler: grid\n")
    sweep, _ = load_sweep(Path("sweep.yaml"))
    choices = grid(sweep)
    assert len(choices) == 48
    assert len({(c.stage, *c.values.values()) for c in choices}) == 48
    epochs = [choice.values["train_conf.max_epoch"] for choice in choices]
    assert epochs == sorted(epochs)  # type: ignore[type-var]
    assert draw(sweep, [], 7, 3) == choices[3]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_interrupted_at_any_trial_the_sweep_is_the_same(place: Path, sampler: str) -> None:
    options = [f"sampler={sampler}", "trials=7"]
    whole = driver("name=whole", *options)
    run_all(whole)
    expected = list(history_of(whole))
    assert len(expected) == 7
    for first in (1, 4, 5, 6):
        name = f"name=cut-{first}"
        run_all(driver(name, *options), limit=first)
        again = driver(name, *options)
        if first % 2:
            again.ask()  # and once more while a trial is under way
            again = driver(name, *options)
        run_all(again)
        assert list(history_of(again)) == expected
