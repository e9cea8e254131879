"""Records from a store's runs."""

from __future__ import annotations

import math

import pytest

from analysis.facts.records import load_sweep, trial_record
from conf.errors import DataError
from tests.analysis.fakes import stored_trial

pytestmark = pytest.mark.quick


def test_load_sweep_reads_base_and_trials_by_number(demo_store):
    demo_store.trials = demo_store.trials[::-1]
    sweep = load_sweep("demo", demo_store)
    assert [trial.trial for trial in sweep.trials] == list(range(8))
    assert sweep.objective == "valid/cer"
    assert sweep.base["valid/cer"] == 0.72
    assert "elapsed_s" not in sweep.base


def test_load_sweep_unknown_name_lists_the_known(demo_store):
    with pytest.raises(DataError, match=r"^--sweep: got 'dmeo', expected .*store \(demo\)$"):
        load_sweep("dmeo", demo_store)


def test_trial_record_turns_text_into_facts():
    record = trial_record(
        stored_trial(
            4, "s1", 5e-5, "failed", baseline=True, tags={"outcome.reason": "NaN loss\n at step 3"}
        )
    )
    assert record.baseline
    assert record.reason == "NaN loss at step 3"
    assert record.critical[:2] == ("audio_encoder_conf.freeze", "ctc_decoder_conf.freeze")
    assert record.number("optim_conf.lr") == 5e-5
    assert record.number("dataset_conf.nothing") is None
    assert record.duration_s == 63.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_metric_that_is_no_number_counts_as_not_measured(value):
    record = trial_record(stored_trial(0, "8k", 1e-3, "failed", metrics={"valid/cer": value}))
    assert record.metric("valid/cer") is None


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("FINISHED", "completed"), ("KILLED", "killed"), ("FAILED", "failed"), ("RUNNING", "running")],
)
def test_without_a_verdict_the_run_status_speaks(status, outcome):
    run = stored_trial(0, "8k", 1e-3, "completed", tags={"outcome": ""})
    object.__setattr__(run, "status", status)
    assert trial_record(run).outcome == outcome
