"""Pipeline files: what they say, what is refused and where, all steps at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import UserError
from sweeps.directory import sweep_text
from sweeps.pipeline_file import Pipeline, load_pipeline
from sweeps.spec.sweep_file import load_sweep
from tests.sweeps.conftest import PIPELINE, ROOT
from trainer.checks.run_checks import ChecksFailed

pytestmark = pytest.mark.quick

STEPS = PIPELINE[PIPELINE.index("steps:") :]
SHIPPED = sorted((ROOT / "conf/sweep").glob("pipeline*.yaml"))


def load(text: str = PIPELINE, *overrides: str, name: str | None = None) -> Pipeline:
    Path("pipeline.yaml").write_text(text)
    return load_pipeline(Path("pipeline.yaml"), name=name, overrides=overrides)


def problems(text: str, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        load(text, *overrides)
    return caught.value.problems


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_pipelines_are_consistent(path: Path, place: Path) -> None:
    here = [f"data.{split}=data/valid.jsonl" for split in ("train", "valid", "test", "wideband")]
    here += ["base=model", "s3.data.train=data/train.jsonl"]
    text = path.read_text().replace("resources: {cpu: 4, gpu: 1}\n", "")
    pipeline = load(text, *here)
    assert [step.name for step in pipeline.steps] == ["s1", "s2", "s3"]
    assert pipeline.allow == ()
    # Stage 1's own rate is the native one; a pipeline that keeps the base's rate has to say so.
    assert [step.sweep.skip_checks for step in pipeline.steps] == [("fs-stage",), (), ()]
    assert {step.sweep.set["frontend_conf.fs"] for step in pipeline.steps} == {16000}
    load(text, *here, "frontend_conf.fs=8000", "s1.skip_checks=[]")


def test_a_steps_blocks_are_laid_over_the_pipelines(place: Path) -> None:
    text = PIPELINE.replace(
        "  - stages: [s2]\n",
        "  - stages: [s2]\n"
        "    trials: 5\n"
        "    data: {train: data/valid.jsonl}\n"
        "    set: {optim_conf: {weight_decay: 0.02}}\n"
        "    space: {optim_conf: {lr: {choices: [1e-4, 1e-3]}}}\n",
    )
    first, second = (step.sweep for step in load(text).steps)
    assert (first.name, second.name) == ("chain-s1", "chain-s2")
    assert (first.trials, second.trials) == (2, 5)
    assert second.data.train == second.data.valid == first.data.valid == "data/valid.jsonl"
    assert second.set == {**first.set, "optim_conf.weight_decay": 0.02}
    assert second.space["optim_conf.lr"].choices == (1e-4, 1e-3)
    assert second.space.keys() == first.space.keys()


def test_overrides_are_of_all_steps_or_of_one(place: Path) -> None:
    pipeline = load(
        PIPELINE, "trials=3", "s2.trials=4", "optim_conf.lr=2e-3", "s1.seed=7", name="n"
    )
    first, second = (step.sweep for step in pipeline.steps)
    assert (first.trials, second.trials) == (3, 4)
    assert first.set["optim_conf.lr"] == second.set["optim_conf.lr"] == 2e-3
    assert (first.seed, second.seed) == (7, 0)
    assert (first.name, second.name) == ("n-s1", "n-s2")


def test_a_step_written_out_is_the_same_sweep(place: Path) -> None:
    for step in load(PIPELINE.replace("allow: []", "allow: [frontend_conf.fs]")).steps:
        Path("step.yaml").write_text(sweep_text(step.sweep))
        assert load_sweep(Path("step.yaml"))[0] == step.sweep


FS = "  frontend_conf.fs: 8000\n"


def test_the_recipes_rates_contradict_each_other(place: Path) -> None:
    [line] = problems(PIPELINE.replace(FS, ""))
    assert line == (
        "pipeline.yaml:14: step s2: frontend_conf.fs: got 16000 (stage2_adapter_align.yaml:22), "
        "expected 8000 (stage1_encoder_adapt.yaml:22) as in step s1; give all steps one value, or "
        "say `allow: [frontend_conf.fs]`"
    )


def test_rates_may_differ_if_the_file_says_so(place: Path) -> None:
    pipeline = load(PIPELINE.replace(FS, "").replace("allow: []", "allow: [frontend_conf.fs]"))
    # The second step's check against its base would fail by the very thing that is allowed.
    assert [step.sweep.skip_checks for step in pipeline.steps] == [(), ("fs-stage",)]


def test_a_rate_that_is_searched_is_no_rate_for_the_next_step(place: Path) -> None:
    range_ = "  - stages: [s1]\n    space: {frontend_conf.fs: {choices: [8000, 16000]}}\n"
    [line] = problems(PIPELINE.replace("  - stages: [s1]\n", range_))
    assert line.startswith("pipeline.yaml:14: step s1: frontend_conf.fs: got a range, expected one")


def test_stages_of_one_step_must_agree_too(place: Path) -> None:
    found = problems(PIPELINE.replace(FS, "").replace("[s2]", "[s1, s2]\n    name: second"))
    assert [line.split(";")[0] for line in found] == [
        "pipeline.yaml:14: step second: frontend_conf.fs: got 16000 "
        "(stage2_adapter_align.yaml:22), expected 8000 (stage1_encoder_adapt.yaml:22) as in "
        "stage s1"
    ]


def test_another_tokenizer_is_refused(place: Path) -> None:
    [line] = problems(PIPELINE + "    set: {tokenizer_conf.unk_symbol: <no>}\n")
    assert line.startswith(
        "pipeline.yaml:16: set.tokenizer_conf.unk_symbol: got a key that belongs"
    )


def test_another_base_is_refused_unless_said(place: Path) -> None:
    other = PIPELINE + "    base: model\n"
    [line] = problems(other)
    assert line.startswith("pipeline.yaml:16: steps.1.base: got 'model', expected the best of")
    said = other.replace("allow: []", "allow: [base]")
    with pytest.raises(ChecksFailed, match=r"step s2, stage s2: check fs-stage: .* 8000 Hz"):
        load(said)
    steps = load(said, "s2.skip_checks=[fs-stage]").steps
    assert [step.own_base for step in steps] == [False, True]


def test_a_later_step_is_checked_against_what_the_step_before_leaves(place: Path) -> None:
    # At 16000 Hz all the way stage 1 is not what it is for, and the others are.
    with pytest.raises(ChecksFailed) as caught:
        load(PIPELINE.replace("8000", "16000"))
    [line] = str(caught.value).splitlines()
    assert line.startswith("step s1, stage s1: check fs-stage: frontend_conf.fs: got 16000 Hz")
    load(PIPELINE.replace("8000", "16000"), "s1.skip_checks=[fs-stage]")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: chain", "name: a/b", "1: name: got 'a/b', expected letters"),
        ("name: chain\n", "", " name: got nothing, expected this key"),
        ("base: model", "base: 3", "2: base: got 3, expected text"),
        ("base: model", "base: gone", "2: base: got 'gone' (no such directory)"),
        ("allow: []", "allow: x", "4: allow: got x, expected a list"),
        ("allow: []", "allow: [frontend_conf.fz]", "4: allow.0: got frontend_conf.fz"),
        ("trials: 2", "trails: 2", "11: trails: got an unknown key, expected one of name"),
        ("trials: 2\n", "", "13: trials: got nothing, expected this key"),
        ("trials: 2", "trials: 0", "11: trials: got 0, expected a whole number >= 1"),
        ("trials: 2", "stages: [s1]", "11: stages: got a key of one step"),
        ("steps:", "stops:", "13: stops: got an unknown key, expected one of name"),
        (STEPS, "", " steps: got nothing, expected this key"),
        (STEPS, "steps: []\n", "13: steps: got [], expected a list of one or more blocks of keys"),
        ("  - stages: [s1]", "  - s1", "14: steps.0: got s1, expected a block of keys"),
        ("[s2]", "[s1]", "15: steps.1.name: got 's1' a second time"),
        ("[s2]", "[s5]", "15: stages.0: got s5, expected 8k"),
        ("[s2]", "[s2]\n    nome: x", "16: steps.1.nome: got an unknown key"),
        ("[s2]", "[s2]\n    name: x/y", "15: name: got 'chain-x/y', expected letters"),
        ("[s2]", "[s2]\n    data: {valid: no.jsonl}", "16: data.valid: got 'no.jsonl'"),
        ("[s2]", "[s2]\n    set: {optim_conf.l: 1}", "16: set.optim_conf.l: got an unknown key"),
        ("{low: 1e-5,", "{low: 1,", "10: space.optim_conf.lr: got low=1, high=0.01"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(
    place: Path, old: str, new: str, expected: str
) -> None:
    assert old in PIPELINE
    found = problems(PIPELINE.replace(old, new, 1))
    assert f"pipeline.yaml:{expected}" in found[0]
    assert len(set(found)) == len(found)


def test_all_mistakes_of_all_steps_are_told_at_once(place: Path) -> None:
    text = PIPELINE.replace("[s1]", "[s1]\n    data: {train: gone.jsonl}").replace(
        "[s2]", "[s2]\n    set: {optim_conf.lr: fast}\n    data: {test: lost.jsonl}"
    )
    found = problems(text.replace("allow: []", "allow: [fs]"))
    assert [line.split(",")[0] for line in found] == [
        "pipeline.yaml:4: allow.0: got fs",
        "pipeline.yaml:15: data.train: got 'gone.jsonl' (no such file)",
        "pipeline.yaml:18: data.test: got 'lost.jsonl' (no such file)",
        "pipeline.yaml:17: optim_conf.lr: got fast",
    ]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trials=many", "command line: trials: got many, expected a whole number >= 1"),
        ("s2.optim_conf.lr=fast", "command line: optim_conf.lr: got fast, expected"),
        ("steps.1.trials=3", "command line: steps.1.trials: got a step by number"),
        ("base=gone", "base: got 'gone' (no such directory)"),
        ("nonsense", "command line: got 'nonsense', expected KEY=VALUE"),
    ],
)
def test_a_mistake_on_the_command_line_is_said_once(
    place: Path, override: str, expected: str
) -> None:
    [line] = problems(PIPELINE, override)
    assert expected in line
