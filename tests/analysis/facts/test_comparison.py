"""Facts from records: ranks, stages, bands, and which trial is the best."""

from __future__ import annotations

import csv
import io

import pytest

from analysis.export.best_trial import best_trial
from analysis.facts.comparison import comparison, lr_edges
from analysis.facts.records import load_sweep
from analysis.tables.answer import answer
from analysis.tables.formats import csv_text, markdown
from tests.analysis.fakes import stored_trial

pytestmark = pytest.mark.quick


def test_rows_are_ranked_by_outcome_and_then_by_objective(demo_store):
    facts = comparison("demo", demo_store)
    assert [(row.trial, row.outcome) for row in facts.rows] == [
        (3, "completed"),
        (0, "completed"),
        (1, "completed"),
        (2, "completed"),
        (4, "pruned"),
        (5, "failed"),
        (6, "killed"),
        (7, "running"),
    ]


def test_best_row_holds_counts_and_both_comparisons(demo_store):
    best = comparison("demo", demo_store).best
    assert (best.substitutions, best.deletions, best.insertions, best.errors) == (60, 15, 5, 80)
    assert best.objective == 0.08
    assert best.over_base == pytest.approx(0.08 / 0.72)
    assert best.over_baseline == pytest.approx(0.08 / 0.12)


def test_stage_summary_sets_the_best_against_default_and_worst(demo_store):
    first, *others = comparison("demo", demo_store).stages
    assert [stage.stage for stage in others] == ["s1", "s3"]
    assert (first.stage, first.best_trial, first.worst_trial) == ("8k", 3, 4)
    assert (first.best, first.baseline, first.middle, first.worst) == (0.08, 0.12, 0.12, 0.6)
    assert first.outcomes == {"completed": 2, "pruned": 1}


def test_what_measures_noise_or_breaks_a_bound_or_was_not_trained_is_not_chosen(make_store):
    store = make_store(
        [
            stored_trial(0, "8k", 5e-4, "completed", (90, 20, 10), baseline=True),
            stored_trial(1, "8k", 1e-3, "completed", (60, 10, 10)),
            stored_trial(2, "8k", 1e-3, "completed", (5, 0, 0), tags={"replicate.of": "1"}),
            stored_trial(3, "8k", 2e-3, "completed", (6, 0, 0), tags={"beyond": "wideband/cer"}),
            stored_trial(4, "8k", 1e-3, "completed", (7, 0, 0), tags={"answered.from": "1"}),
        ]
    )
    facts = comparison("demo", store)
    assert facts.best is not None
    assert facts.best.trial == 1
    assert best_trial(load_sweep("demo", store))[0].trial == 1
    reasons = {row.trial: row.reason for row in facts.rows}
    assert reasons[2] == "trial 1 with another seed"
    assert reasons[3] == "beyond the bound on wideband/cer"
    assert reasons[4] == "answered from trial 1"


def test_of_the_configs_that_were_repeated_the_lowest_mean_wins(make_store):
    runs = [
        stored_trial(0, "8k", 5e-4, "completed", (90, 20, 10), baseline=True),
        stored_trial(1, "8k", 1e-3, "completed", (60, 0, 0)),  # lucky
        stored_trial(2, "8k", 2e-3, "completed", (70, 0, 0)),
        stored_trial(3, "8k", 3e-3, "completed", (65, 0, 0)),  # never repeated
    ]
    for again, of, errors in ((4, "0", 130), (5, "1", 90), (6, "2", 72)):
        tags = {"replicate.of": of}
        runs.append(stored_trial(again, "8k", 1e-3, "completed", (errors, 0, 0), tags=tags))
    store = make_store(runs)
    facts = comparison("demo", store)
    assert facts.best is not None
    assert facts.best.trial == 2
    assert facts.best.seeds == (0.07, 0.072)
    assert best_trial(load_sweep("demo", store))[0].trial == 2
    said = "Over 2 seeds its mean is 7.10 %, the lowest of the 3 configs that were repeated; that"
    assert said in answer(facts)
    assert "that of the default config is 12.50 %" in answer(facts)
    assert "7.10 % (2)" in markdown(facts)
    rows = {row["trial"]: row for row in csv.DictReader(io.StringIO(csv_text(facts)))}
    assert (rows["1"]["objective_over_seeds"], rows["1"]["seeds"]) == ("0.075", "2")
    assert (rows["3"]["objective_over_seeds"], rows["3"]["seeds"]) == ("", "")

    started = comparison("demo", make_store([*runs[:4], runs[6]]))  # the second was repeated first
    assert started.best is not None
    assert started.best.trial == 1


def test_without_a_completed_trial_there_is_no_best(make_store):
    facts = comparison("demo", make_store([stored_trial(0, "8k", 1e-3, "failed")]))
    assert facts.best is None
    assert answer(facts) == "No trial of sweep demo has completed yet (1 failed)."


def test_failed_baseline_leaves_nothing_to_compare_with(make_store):
    trials = [
        stored_trial(0, "8k", 5e-4, "failed", baseline=True),
        stored_trial(1, "8k", 1e-3, "completed", (10, 0, 0)),
    ]
    facts = comparison("demo", make_store(trials))
    assert facts.best.over_baseline is None
    assert "did not complete, so there is no baseline" in answer(facts)
    assert "the base was not measured" in answer(facts)


def test_another_objective_is_set_against_its_own_base(make_store):
    metrics = {"objective": 0.08, "valid/cer_ctc": 0.05}
    trials = [stored_trial(0, "8k", 1e-3, "completed", metrics=metrics)]
    base = {"base/valid/cer": 0.72, "base/valid/cer_ctc": 0.5}
    facts = comparison("demo", make_store(trials, base, tags={"objective": "valid/cer_ctc"}))
    assert facts.best.objective == 0.05
    assert facts.best.over_base == pytest.approx(0.1)


def test_every_learning_rate_is_in_exactly_one_band(demo_store):
    facts = comparison("demo", demo_store)
    scored = [row for row in facts.rows if row.objective is not None]
    assert sum(sum(band.trials.values()) for band in facts.bands) == len(scored)


@pytest.mark.parametrize(
    ("rates", "edges"),
    [
        ([], []),
        ([1e-4, 1e-4], []),
        ([2e-5, 5e-3], [1e-5, 1e-4, 1e-3, 1e-2]),
        ([1e-5, 1e-2], [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]),
        ([5e-5, 1e-4], [5e-5, 6.3e-5, 7.9e-5, 1.1e-4]),
    ],
)
def test_lr_edges(rates, edges):
    assert lr_edges(rates) == pytest.approx(edges, rel=1e-9)
