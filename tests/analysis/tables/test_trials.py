"""The table of trials: its columns, and the notes under it."""

from __future__ import annotations

import pytest

from analysis.facts.comparison import comparison
from analysis.tables.trials import notes, short_key, stage_grid, trial_columns, trial_grid
from tests.analysis.fakes import stored_trial

pytestmark = pytest.mark.quick


def test_short_key():
    assert short_key("audio_encoder_conf.freeze") == "encoder.freeze"
    assert short_key("ctc_decoder_conf.freeze") == "ctc.freeze"
    assert short_key("llm_conf.use_lora") == "llm.use_lora"
    assert short_key("optim_conf.lr") == "lr"


def test_what_was_not_trained_or_not_all_of_it_is_said(make_store):
    went_on = {"went_on.from": "0", "went_on.after": "2"}
    store = make_store(
        [
            stored_trial(0, "8k", 5e-4, "completed", (90, 20, 10), baseline=True),
            stored_trial(1, "8k", 5e-4, "completed", (60, 10, 10), tags=went_on),
            stored_trial(2, "8k", 5e-4, "completed", (90, 20, 10), tags={"answered.from": "0"}),
            stored_trial(3, "8k", 1e-3, "completed", (5, 0, 0), tags={"answered.from": "calls/7"}),
        ]
    )
    facts = comparison("demo", store)
    assert facts.best is not None
    assert facts.best.trial == 3  # the trial of the other sweep is none of this one's candidates
    said = [str(note) for note in notes(facts)]
    assert "Trial 1 went on from trial 0 after 2 epochs." in said
    assert "Trial 2 was not trained: the curve of trial 0 answers it." in said
    assert "Trial 3 was not trained: the curve of trial calls/7 answers it." in said
    reasons = {row.trial: row.reason for row in facts.rows}
    assert reasons[1] == "went on from trial 0 after 2 epochs"


def test_a_column_in_which_nothing_stands_is_left_out(make_store):
    facts = comparison("demo", make_store([stored_trial(0, "8k", 1e-3, "failed")]))
    headings = [column.heading for column in trial_columns(facts)]
    assert "test/cer" not in headings
    assert {"trial", "stage", "objective", "outcome"} <= set(headings)


def test_the_base_is_the_last_line_under_the_trials(demo_store):
    facts = comparison("demo", demo_store)
    columns = [c for c in trial_columns(facts) if c.heading in ("trial", "errors", "objective")]
    headings, rows = trial_grid(facts, columns)
    assert headings == ["trial", "errors", "objective"]
    assert rows[0] == ["3", "80", "8.00 %"]
    assert rows[-1] == ["base", "720", "72.00 %"]


def test_the_best_stage_stands_first(demo_store):
    headings, rows = stage_grid(comparison("demo", demo_store))
    assert headings[:4] == ["stage", "completed", "baseline", "best"]
    assert rows[0][:4] == ["8k", "2 of 3", "12.00 %", "8.00 %"]
