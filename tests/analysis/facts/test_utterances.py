"""Intervals, paired differences and slices in the comparison, and what is fetched for them."""

from __future__ import annotations

import pytest

from analysis.facts.comparison import comparison
from analysis.facts.utterances import BASE
from analysis.tables.answer import answer
from analysis.tables.formats import json_text, markdown
from analysis.tables.sections import cuts, sections
from tests.analysis.fakes import SPEAKERS, hypotheses, stored_trial

pytestmark = pytest.mark.quick


def test_rows_carry_interval_and_paired_difference(scored_store):
    facts = comparison("demo", scored_store)
    best = facts.best
    assert best.trial == 1
    assert best.interval.value == pytest.approx(27 / 120)
    assert best.interval.low < best.objective < best.interval.high
    assert best.interval.clusters == len(SPEAKERS)
    assert best.paired.value == pytest.approx(-12 / 120)
    assert best.paired.certain
    assert best.paired.p < 0.01
    assert facts.row(0).paired is None


def test_what_is_not_comparable_stands_apart(scored_store):
    facts = comparison("demo", scored_store)
    assert [row.trial for row in facts.rows] == [1, 3, 0, 4]
    [apart] = facts.apart
    assert (apart.trial, apart.objective) == (2, pytest.approx(1 / 120))
    assert apart.reason == "other data (data.sha256 otherotherot, not usualusualus)"
    assert "otherotherot" in markdown(facts)


def test_repetitions_give_the_noise_band(scored_store):
    facts = comparison("demo", scored_store)
    assert (facts.noise.configs, facts.noise.runs) == (1, 3)
    # Objectives 38, 39 and 40 of 120: their standard deviation is 1 / 120; t(2) is 4.303.
    assert facts.noise.band == pytest.approx(4.3027 * 2**0.5 / 120, rel=1e-4)
    assert "Differences under 5.1 points are noise of the seed" in answer(facts)
    assert "Trial 3 repeats trial 0 with another seed." in markdown(facts)


def test_learning_curve_leaves_out_what_is_between_epochs(scored_store):
    facts = comparison("demo", scored_store)
    assert facts.evidence.curves[1] == {0: 0.9, 1: 0.5, 2: 0.4}
    [row] = next(section.rows for section in sections(facts) if section.name == "curves")
    assert row == (1, "8k", "completed", 0.9, 0.5, 0.4)


def test_a_trial_cut_short_shows_one_epoch(make_store):
    latest = {"wideband/cer": 0.22, "valid/cer_ctc": 0.8}
    pruned = stored_trial(0, "s1", 1e-3, "pruned", (555, 0, 0), epochs_run=2, metrics=latest)
    store = make_store([pruned])
    of = {
        "epoch": (0, 1, 2),
        "valid/cer": (0.9, 0.555, 0.6),
        "wideband/cer": (0.13, 0.145, 0.22),
        "valid/cer_ctc": (0.9, 0.7, 0.8),
        "valid/substitutions": (900, 555, 600),
    }
    store.histories = {
        ("run00", name): list(zip((0, 10, 20), values, strict=True)) for name, values in of.items()
    }
    [row] = comparison("demo", store).rows
    assert (row.objective, row.wideband_cer, row.cer_ctc) == (0.555, 0.145, 0.7)
    assert row.substitutions == 555


def test_ended_runs_are_asked_for_once(scored_store, tmp_path):
    cache = tmp_path / "cache"
    first = comparison("demo", scored_store, cache)
    assert scored_store.asked
    scored_store.asked.clear()
    second = comparison("demo", scored_store, cache)
    assert set(scored_store.asked) == {"parent"}  # the base's texts may still come
    assert json_text(second) == json_text(first)


def test_a_run_that_went_on_is_asked_again(scored_store, tmp_path):
    cache = tmp_path / "cache"
    comparison("demo", scored_store, cache)
    scored_store.asked.clear()
    object.__setattr__(scored_store.trials[1], "ended_ms", scored_store.trials[1].ended_ms + 1)
    comparison("demo", scored_store, cache)
    assert set(scored_store.asked) == {"run01", "parent"}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"format": 0}'])
def test_a_damaged_cache_is_not_used(scored_store, tmp_path, content):
    cache = tmp_path / "cache"
    first = comparison("demo", scored_store, cache)
    for path in cache.rglob("*.json"):
        path.write_bytes(content)
    assert json_text(comparison("demo", scored_store, cache)) == json_text(first)


def test_a_cache_that_cannot_be_written_is_no_error(scored_store, tmp_path):
    (tmp_path / "file").write_text("")
    assert comparison("demo", scored_store, tmp_path / "file").best.trial == 1


def test_speaker_and_call_in_the_hypotheses_win(make_store):
    calls = [f"call-{i // 4}" for i in range(12)]
    lines = hypotheses(range(12), length=20, call=calls, speaker=[None] * 12)
    cer = 66 / 240
    trial = stored_trial(
        0, "8k", 1e-3, "completed", (66, 0, 0), metrics={"valid/cer": cer, "objective": cer}
    )
    store = make_store([trial], artifacts={("run00", "hypotheses/valid.jsonl"): lines})
    facts = comparison("demo", store)
    assert facts.evidence.sets["valid"].grouping.unit == "call"
    assert facts.best.interval.clusters == 3


def test_hypotheses_that_describe_their_recordings_need_no_manifest(make_store):
    snr_db = [-3.5, 0, 2.5, 5, 9.9, 12, 14, 19, 20, 22, 25, 31]
    lines = hypotheses(
        range(12),
        length=20,
        speaker=[SPEAKERS[i // 2] for i in range(12)],
        duration_s=[1.0 + i for i in range(12)],
        codec=["gsm", "amr"] * 6,
        snr_db=snr_db,
        domain=["telephone"] * 12,
    )
    cer = 66 / 240
    trial = stored_trial(
        0, "8k", 1e-3, "completed", (66, 0, 0), metrics={"valid/cer": cer, "objective": cer}
    )
    trial.params["valid_data_set_list"] = "not/on/this/machine.jsonl"
    store = make_store([trial], artifacts={("run00", "hypotheses/valid.jsonl"): lines})
    facts = comparison("demo", store)
    evaluated = facts.evidence.sets["valid"]
    grouping = evaluated.grouping
    assert (grouping.unit, grouping.count, evaluated.note) == ("speaker", 6, "")
    parts = {(kind, name): len(chosen) for kind, name, chosen in cuts(evaluated)}
    assert parts["codec", "gsm"] == 6
    assert parts["duration", "2 to 5 s"] == 3
    of_snr = {name: count for (kind, name), count in parts.items() if kind == "snr_db"}
    assert list(of_snr.items()) == [
        ("below 0 dB", 1),
        ("0 to 5 dB", 2),
        ("5 to 10 dB", 2),
        ("10 to 15 dB", 2),
        ("15 to 20 dB", 1),
        ("20 dB and more", 4),
    ]


def test_another_objective_is_taken_from_its_own_counts(make_store):
    errors = [1, 2, 3, 4]
    counts = {"cer_ctc_errors": errors, "cer_ctc_reference_length": [10] * 4}
    trial = stored_trial(
        0, "8k", 1e-3, "completed", (9, 9, 9), metrics={"valid/cer_ctc": 0.25, "objective": 0.027}
    )
    artifacts = {("run00", "hypotheses/valid.jsonl"): hypotheses([9] * 4, **counts)}
    store = make_store([trial], tags={"objective": "valid/cer_ctc"}, artifacts=artifacts)
    assert comparison("demo", store).best.interval.value == 0.25


def test_texts_that_do_not_give_the_objective_give_no_interval(scored_store):
    scored_store.artifacts["run01", "hypotheses/valid.jsonl"] = hypotheses([5] * 12)
    best = comparison("demo", scored_store).row(1)
    assert (best.interval, best.paired) == (None, None)


def test_front_is_what_nothing_beats_on_both(demo_store):
    facts = comparison("demo", demo_store)
    assert {row.trial for row in facts.rows if row.front} == {3, 0, 2}


def test_base_is_scored_where_its_texts_are(scored_store):
    facts = comparison("demo", scored_store)
    assert facts.interval(BASE, "valid").value == 0.6
    assert facts.interval(BASE, "test") is None


def test_base_is_read_from_the_run_of_the_sweep(scored_store, tmp_path):
    (tmp_path / "base/hypotheses/valid.jsonl").unlink()
    assert comparison("demo", scored_store).interval(BASE, "valid") is None
    scored_store.artifacts["parent", "hypotheses/base/valid.jsonl"] = hypotheses([6] * 12)
    assert comparison("demo", scored_store).interval(BASE, "valid").value == 0.6


def test_texts_that_do_not_give_the_base_score_are_not_the_base(scored_store, tmp_path):
    (tmp_path / "base/hypotheses/valid.jsonl").write_text(hypotheses([5] * 12), encoding="utf-8")
    (tmp_path / "trial/hypotheses/base").mkdir(parents=True)
    (tmp_path / "trial/hypotheses/base/valid.jsonl").write_text(hypotheses([6] * 12))
    assert comparison("demo", scored_store).interval(BASE, "valid") is None
    scored_store.trials[0].tags["trial.dir"] = str(tmp_path / "trial")
    assert comparison("demo", scored_store).interval(BASE, "valid").value == 0.6
