"""Sweep files: what they say, what is refused and where, and what is drawn from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from conf.errors import ConfigError
from sweeps.directory import sweep_text
from sweeps.spec.sweep_file import DEMO, load_sweep, stage_configs, suggest
from tests.sweeps.conftest import ROOT, SWEEP

pytestmark = pytest.mark.quick


SHIPPED = sorted(p for p in (ROOT / "conf/sweep").glob("*.yaml") if "pipeline" not in p.stem)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_sweep_fits_every_stage(path: Path, place: Path) -> None:
    sweep, places = load_sweep(path, overrides=["base=model"])
    configs = stage_configs(sweep, places)
    assert list(configs) == ["8k", "s1", "s2", "s3"]
    assert {config.stage for config in configs.values()} == set(configs)


def test_demo_data_is_the_corpus() -> None:
    sweep, _ = load_sweep(ROOT / "conf/sweep/demo.yaml")
    assert sweep.data == DEMO
    assert (sweep.trials, sweep.concurrency) == (16, 2)


def test_the_order_stays_in_its_range() -> None:
    sweep, _ = load_sweep(ROOT / "conf/sweep/telephone.yaml")
    lr = sweep.space["optim_conf.lr"]
    assert (lr.low, lr.high, lr.log) == (5e-5, 1e-4, True)
    assert sweep.resources.gpu == 1


def test_nested_and_dotted_keys_are_the_same(place: Path) -> None:
    nested = SWEEP.replace(
        "  optim_conf.lr: 1e-3\n  train_conf.max_epoch: 3\n",
        "  optim_conf:\n    lr: 1e-3\n  train_conf: {max_epoch: 3}\n",
    ).replace("  optim_conf.lr: {low", "  optim_conf:\n    lr: {low")
    (place / "nested.yaml").write_text(nested)
    assert load_sweep(Path("nested.yaml"))[0] == load_sweep(Path("sweep.yaml"))[0]


def test_written_out_it_is_the_same_sweep(place: Path) -> None:
    sweep, _ = load_sweep(Path("sweep.yaml"), name="other", overrides=["trials=5"])
    (place / "copy.yaml").write_text(sweep_text(sweep))
    assert load_sweep(Path("copy.yaml"))[0] == sweep
    assert (sweep.name, sweep.trials) == ("other", 5)


def test_command_line_reaches_sweep_and_training_keys(place: Path) -> None:
    overrides = [
        "pruning.method=none",
        "optim_conf.lr=2e-4",
        "space.optim_conf.lr.low=1e-4",
        "stages=[s1]",
        "data.test=data/valid.jsonl",
    ]
    sweep, _ = load_sweep(Path("sweep.yaml"), overrides=overrides)
    assert sweep.pruning.method == "none"
    assert sweep.set["optim_conf.lr"] == 2e-4
    assert sweep.space["optim_conf.lr"].low == 1e-4
    assert sweep.stages == ("s1",)
    assert sweep.data.test == "data/valid.jsonl"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "{choices: [2, 3, 6]}",
            "{low: 2, high: 6, step: 0.5}",
            "10: space.train_conf.max_epoch: got step=0.5, expected a",
        ),
        ("trials: 8", "trails: 8", "11: trails: got an unknown key"),
        ("trials: 8", "trials: 2", "11: trials: got 2, expected at least one for each"),
        ("trials: 8", "trials: many", "11: trials: got many, expected a whole number >= 1"),
        ("low: 1e-5", "low: 1e-1", "9: space.optim_conf.lr: got low=0.1, high=0.01"),
        ("low: 1e-5", "low: 0", "9: space.optim_conf.lr: got low=0 with log: true"),
        ("[2, 3, 6]", "[]", "10: space.train_conf.max_epoch: got choices=[]"),
        ("[2, 3, 6]", "[2, x]", "10: train_conf.max_epoch: got x"),
        ("lr: {low", "l: {low", "9: space.optim_conf.l: got an unknown key"),
        ("lr: {low", "lr: {lo", "9: space.optim_conf.lr.lo: got an unknown key"),
        ("optim_conf.lr: 1e-3", "optim_conf.lr: fast", "6: optim_conf.lr: got fast"),
        ("optim_conf.lr: 1e-3", "init_param: x", "6: set.init_param: got a key that"),
        ("log: true}", "step: 2e-3}", "9: space.optim_conf.lr: got step=0.002, expected one that"),
        ("name: tiny", "name: a/b", "1: name: got 'a/b'"),
        ("stages: [8k, s1,", "stages: [8k, s9,", "4: stages.1: got s9, expected 8k or s1"),
        ("stages: [8k, s1,", "stages: [8k, 8k,", "4: stages: got ['8k', '8k'"),
    ],
)
def test_a_mistake_is_named_with_its_line(place: Path, old: str, new: str, expected: str) -> None:
    (place / "sweep.yaml").write_text(SWEEP.replace(old, new))
    with pytest.raises(ConfigError) as error:
        stage_configs(*load_sweep(Path("sweep.yaml")))
    assert f"sweep.yaml:{expected}" in str(error.value)


def test_of_an_unknown_key_the_nearest_one_is_named(place: Path) -> None:
    (place / "sweep.yaml").write_text(SWEEP.replace("trials: 8", "trails: 8"))
    with pytest.raises(ConfigError, match=r"\(nearest: trials\)"):
        stage_configs(*load_sweep(Path("sweep.yaml")))


def test_all_mistakes_at_once(place: Path) -> None:
    text = SWEEP.replace("low: 1e-5", "low: 1").replace("name: tiny", "name: a b")
    (place / "sweep.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_sweep(Path("sweep.yaml"))
    assert len(error.value.problems) == 2


def test_space_depends_on_the_stage(place: Path) -> None:
    (place / "sweep.yaml").write_text(
        SWEEP
        + "stage_space:\n"
        + "  s3:\n"
        + "    llm_conf.lora_conf.r: {choices: [4, 8]}\n"
        + "    optim_conf.lr: {low: 1e-4, high: 1e-3}\n"
        + "    specaug_conf.freq_mask_width_range: {choices: [[0, 8], [0, 15]]}\n"
    )
    sweep, places = load_sweep(Path("sweep.yaml"))
    configs = stage_configs(sweep, places)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = {
        choice.stage: choice.values for choice in (suggest(study.ask(), sweep) for _ in range(30))
    }
    assert set(drawn["8k"]) == {"optim_conf.lr", "train_conf.max_epoch"}
    assert drawn["s3"]["llm_conf.lora_conf.r"] in (4, 8)
    assert isinstance(drawn["s3"]["specaug_conf.freq_mask_width_range"], list)
    for stage, values in drawn.items():
        configs[stage].replace(values, "test")


@pytest.mark.parametrize(
    ("spelt", "beside", "at_most"),
    [
        ("valid/cer_ctc", (), {}),
        ("[valid/cer_ctc, wideband/cer, epochs]", ("wideband/cer", "epochs"), {}),
        (
            "{metric: valid/cer_ctc, at_most: {wideband/cer: +10%, valid/cer: 0.3}}",
            (),
            {"wideband/cer": "+10%", "valid/cer": 0.3},
        ),
    ],
)
def test_an_objective_is_one_several_or_bounded(
    place: Path, spelt: str, beside: tuple[str, ...], at_most: dict[str, Any]
) -> None:
    text = SWEEP.replace("valid.jsonl}", "valid.jsonl, wideband: data/valid.jsonl}")
    (place / "sweep.yaml").write_text(f"{text}objective: {spelt}\nwarm_start: earlier\n")
    sweep, _ = load_sweep(Path("sweep.yaml"))
    assert (sweep.objective, sweep.beside, sweep.at_most) == ("valid/cer_ctc", beside, at_most)
    assert set(sweep.measured) == {*beside, *at_most} - {"epochs"}
    (place / "copy.yaml").write_text(sweep_text(sweep))
    assert load_sweep(Path("copy.yaml"))[0] == sweep


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("objective: test/cer", "objective: got test/cer, expected valid/cer or"),
        ("objective: [valid/cer, valid/cer]", "beside: got ['valid/cer', 'valid/cer'], expected"),
        ("objective: [valid/cer, wideband/cer]", "beside: got wideband/cer without data"),
        (
            "objective: {metric: valid/cer, at_most: {valid/loss: 10 %}}",
            "at_most.valid/loss: got 10 %, expected a number, or a share over that of",
        ),
        ("objective: {metric: valid/cer, atmost: {}}", "objective.atmost: got an unknown key"),
        ("objective: {at_most: {valid/loss: 1}}", "objective: got null, expected valid/cer"),
        ("budget: {epochs: 0}", "budget.epochs: got 0, expected a whole number >= 1 or null"),
        ("budget: {wall_hours: 0}", "budget.wall_hours: got 0, expected a number > 0 or null"),
        ("budget: {hours: 1}", "budget.hours: got an unknown key, expected one of epochs"),
        ("resources: {gpu: 1.5}", "resources.gpu: got 1.5, expected a part of one GPU or a whole"),
        ("budget: {gpu_hours: 1}", "budget.gpu_hours: got 1 for trials without a GPU"),
        ("sampler: grit", "sampler: got grit, expected tpe or random or grid"),
        ("pruning: {method: best}", "pruning.method: got best, expected successive_halving or"),
        ("replicates: -1", "replicates: got -1, expected a whole number >= 0"),
        ("goal: small", "goal: got small, expected a number or null"),
        ("warm_start: {best: 2}", "warm_start.sweep: got nothing, expected this key"),
        ("keep_checkpoints: 0", "keep_checkpoints: got 0, expected"),
        ("trial_timeout_s: 0", "trial_timeout_s: got 0, expected a number > 0"),
    ],
)
def test_a_mistake_about_the_search_is_named(place: Path, line: str, expected: str) -> None:
    (place / "sweep.yaml").write_text(f"{SWEEP}{line}\n")
    with pytest.raises(ConfigError) as error:
        load_sweep(Path("sweep.yaml"))
    assert len(error.value.problems) == 1
    assert error.value.problems[0].startswith(f"sweep.yaml:14: {expected}")


def test_a_grid_has_as_many_points_as_trials(place: Path) -> None:
    grid = SWEEP + "sampler: grid\n"
    (place / "sweep.yaml").write_text(grid)
    with pytest.raises(ConfigError, match=r"sweep.yaml:9: space.optim_conf.lr: got low=1e-05, .*"):
        load_sweep(Path("sweep.yaml"))
    (place / "sweep.yaml").write_text(grid.replace("log: true", "log: true, points: 4"))
    with pytest.raises(ConfigError, match=r":11: trials: got 8, expected 52: 4 default configs"):
        load_sweep(Path("sweep.yaml"))
    assert load_sweep(Path("sweep.yaml"), overrides=["trials=52"])[0].trials == 52
