"""Intervals, paired differences and slices in the comparison, and what is fetched for them."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.console import Console

from analysis.facts.comparison import comparison
from analysis.facts.utterances import BASE
from analysis.tables.answer import answer
from analysis.tables.formats import Rendering, csv_text, json_text, markdown
from analysis.tables.sections import cuts, sections, text_class
from conf.document.language import CHINESE
from conf.errors import UserError
from tests.analysis.fakes import stored_trial

pytestmark = pytest.mark.quick

SPEAKERS = ("ann", "bob", "cem", "dee", "eve", "fay")


def hypotheses(errors, *, split="valid", length=10, **fields):
    """Lines of an evaluation in which utterance i has so many substitutions."""
    lines = (
        {"key": f"{split}-{i}", "reference": "一" * length, "text": "", "ctc_text": ""}
        | {"substitutions": wrong, "deletions": 0, "insertions": 0, "reference_length": length}
        | {name: values[i] for name, values in fields.items()}
        for i, wrong in enumerate(errors)
    )
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


@pytest.fixture
def manifest(tmp_path):
    """Two utterances of each speaker, by telephone and by radio."""
    path = tmp_path / "valid.jsonl"
    lines = (
        {"key": f"valid-{i}", "source": "a.wav", "target": "一", "speaker_id": SPEAKERS[i // 2]}
        | {"codec": ("gsm", "amr")[i % 2], "snr_db": i, "source_len": 100 * (i + 1)}
        for i in range(12)
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def scored_store(make_store, manifest, tmp_path):
    """A baseline, a better trial, one of other data, and two repetitions of the baseline."""
    errors = {
        0: [3, 3, 2, 4, 3, 3, 4, 2, 5, 3, 3, 4],
        1: [2, 3, 1, 3, 2, 2, 3, 1, 3, 2, 2, 3],
        2: [0] * 11 + [1],
        3: [3, 3, 2, 4, 3, 3, 4, 2, 5, 3, 3, 3],
        4: [3, 3, 2, 4, 3, 3, 4, 2, 5, 3, 4, 4],
    }
    trials = []
    for number, wrong in errors.items():
        tags = {"data.sha256": ("other" if number == 2 else "usual") * 4, "scoring": "chars-1"}
        if number > 2:
            tags["replicate.of"] = "0"
        cer = sum(wrong) / 120
        trial = stored_trial(
            number,
            "8k",
            1e-3 * (number + 1),
            "completed",
            (sum(wrong), 0, 0),
            baseline=number == 0,
            tags=tags,
            metrics={"valid/cer": cer, "objective": cer, "test/cer": cer},
        )
        trial.params["valid_data_set_list"] = str(manifest)
        trials.append(trial)
    artifacts = {
        (f"run{number:02}", "hypotheses/valid.jsonl"): hypotheses(wrong)
        for number, wrong in errors.items()
    }
    for number in (0, 1):
        artifacts[f"run{number:02}", "hypotheses/test.jsonl"] = hypotheses(
            errors[number], split="test"
        )
    (tmp_path / "base/hypotheses").mkdir(parents=True)
    (tmp_path / "base/hypotheses/valid.jsonl").write_text(hypotheses([6] * 12), encoding="utf-8")
    tags = {"sweep.dir": str(tmp_path)}
    store = make_store(trials, {"base/valid/cer": 0.6, "base/test/cer": 0.6}, tags, artifacts)
    steps = [(0, 0.9), (10, 0.5), (15, 0.45), (20, 0.4), (21, 0.5)]
    store.histories = {
        ("run01", "valid/cer"): steps,
        ("run01", "epoch"): [(0, 0), (10, 1), (20, 2), (21, 2)],
    }
    return store


def by_name(facts):
    return {section.name: section for section in sections(facts)}


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
    assert "Differences under 5.1 points are noise here" in answer(facts)
    assert "Trial 3 repeats trial 0 with another seed." in markdown(facts)


def test_answer_says_how_sure_it_is(scored_store):
    said = answer(comparison("demo", scored_store))
    assert "valid/cer 22.50 % (27 errors), 95 % interval " in said
    assert "-10.00 points (paired, 95 % interval -1" in said
    assert "There it is -10.00 points" in said


def test_full_answer_says_what_the_best_config_changes(scored_store):
    facts = comparison("demo", scored_store)
    assert "it changes optim_conf.lr 1e-3 → 2e-3." in answer(facts, full=True)
    assert "它改变了 optim_conf.lr 1e-3 → 2e-3。" in answer(facts, CHINESE, full=True)


def test_finalists_are_confirmed_on_the_test_set(scored_store):
    section = by_name(comparison("demo", scored_store))["finalists"]
    lines = [dict(zip([c.name for c in section.columns], r, strict=True)) for r in section.rows]
    first = lines[0]
    assert (first["set"], first["config"], first["trial"]) == ("test", "best", 1)
    assert first["over_baseline"] == pytest.approx(-0.1)
    assert [line["config"] for line in lines if line["set"] == "valid"] == [
        "best",
        "baseline",
        "base",
    ]
    of_valid = next(line for line in lines if line["set"] == "valid")
    assert of_valid["over_base"] == pytest.approx(27 / 120 - 0.6)
    assert any("12 utterances of 6 speakers" in str(note) for note in section.notes)
    assert any("each by itself: the trials name no" in str(note) for note in section.notes)


def test_slices_by_what_the_manifest_names(scored_store):
    rows = by_name(comparison("demo", scored_store))["slices"].rows
    kinds = {row[1] for row in rows if row[0] == "valid"}
    assert kinds == {"duration", "speaker", "codec", "snr_db"}
    gsm = next(row for row in rows if row[1:3] == ("codec", "gsm"))
    assert gsm[3:5] == (6, 60)
    assert gsm[7] == pytest.approx(13 / 60)


def test_numeric_tags_of_many_values_are_quartered(scored_store):
    facts = comparison("demo", scored_store)
    evaluated = facts.evidence.sets["valid"]
    named = [name for kind, name, _ in cuts(evaluated) if kind == "duration"]
    assert named == ["0 to 2 s", "2 to 5 s", "5 to 10 s", "10 to 20 s"]


def test_learning_curve_leaves_out_what_is_between_epochs(scored_store):
    facts = comparison("demo", scored_store)
    assert facts.evidence.curves[1] == {0: 0.9, 1: 0.5, 2: 0.4}
    [row] = by_name(facts)["curves"].rows
    assert row == (1, "8k", "completed", 0.9, 0.5, 0.4)


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
    assert facts.evidence.sets["valid"].unit == "call"
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
    assert (evaluated.unit, evaluated.cluster_count, evaluated.note) == ("speaker", 6, "")
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


def test_a_name_of_each_utterance_by_itself_is_no_slice(make_store):
    lines = hypotheses(range(4), length=20, codec=["gsm", "amr", "gsm", "amr"], noise=list("abcd"))
    trial = stored_trial(
        0, "8k", 1e-3, "completed", (6, 0, 0), metrics={"valid/cer": 6 / 80, "objective": 6 / 80}
    )
    store = make_store([trial], artifacts={("run00", "hypotheses/valid.jsonl"): lines})
    evaluated = comparison("demo", store).evidence.sets["valid"]
    assert {kind for kind, _, _ in cuts(evaluated)} == {"codec"}


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


def test_configs_are_set_side_by_side_where_they_differ(scored_store):
    section = by_name(comparison("demo", scored_store))["configs"]
    assert [column.name for column in section.columns] == [
        "key",
        "8k #1",
        "8k #0 default",
        "severity",
        "effect",
    ]
    assert section.rows == (("optim_conf.lr", 2e-3, 1e-3, "critical", "both"),)


def test_front_is_what_nothing_beats_on_both(demo_store):
    facts = comparison("demo", demo_store)
    assert {row.trial for row in facts.rows if row.front} == {3, 0, 2}


def test_csv_of_a_section_has_numbers(scored_store):
    facts = comparison("demo", scored_store)
    first = next(csv.DictReader(io.StringIO(csv_text(facts, "finalists"))))
    assert float(first["over_baseline_low"]) < float(first["over_baseline"]) < 0
    with pytest.raises(UserError, match=r"--table: got 'none', expected one of .*finalists"):
        csv_text(facts, "none")
    document = json.loads(json_text(facts))
    assert document["tables"]["finalists"][0]["over_baseline_high"] < 0
    assert document["sets"]["valid"]["by"] == "speaker"


@pytest.mark.parametrize("width", [80, 120, 220])
def test_console_never_cuts_a_cell(scored_store, width):
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(Rendering(comparison("demo", scored_store)))
    text = console.file.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


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


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("今天天气", "words"),
        ("幺三八零零", "numbers"),
        ("用wifi上网", "mixed"),
        ("ok", "latin"),
        ("一共八", "numbers"),
        ("。", "silence"),
    ],
)
def test_text_class(text, kind):
    assert text_class(text) == kind
