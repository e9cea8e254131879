"""Sweep files: what they say, what is refused and where, and what is drawn from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from conf.errors import ConfigError
from sweeps.directory import sweep_text
from sweeps.spec.sweep_file import DEMO, Range, load_sweep, stage_configs, suggest
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
        ("trials: 8", "trails: 8", "sweep.yaml:11: trails: got an unknown key"),
        ("trials: 8", "trails: 8", "(nearest: trials)"),
        ("trials: 8", "trials: 2", "sweep.yaml:11: trials: got 2, expected at least one for each"),
        (
            "trials: 8",
            "trials: many",
            "sweep.yaml:11: trials: got many, expected a whole number >= 1",
        ),
        ("low: 1e-5", "low: 1e-1", "sweep.yaml:9: space.optim_conf.lr: got low=0.1, high=0.01"),
        ("low: 1e-5", "low: 0", "sweep.yaml:9: space.optim_conf.lr: got low=0 with log: true"),
        ("[2, 3, 6]", "[]", "sweep.yaml:10: space.train_conf.max_epoch: got choices=[]"),
        ("[2, 3, 6]", "[2, x]", "sweep.yaml:10: train_conf.max_epoch: got x"),
        ("lr: {low", "l: {low", "sweep.yaml:9: space.optim_conf.l: got an unknown key"),
        ("lr: {low", "lr: {lo", "sweep.yaml:9: space.optim_conf.lr.lo: got an unknown key"),
        ("optim_conf.lr: 1e-3", "optim_conf.lr: fast", "sweep.yaml:6: optim_conf.lr: got fast"),
        ("optim_conf.lr: 1e-3", "init_param: x", "sweep.yaml:6: set.init_param: got a key that"),
        ("log: true}", "step: 2e-3}", ":9: space.optim_conf.lr: got step=0.002, expected one that"),
        (
            "{choices: [2, 3, 6]}",
            "{low: 2, high: 6, step: 0.5}",
            "max_epoch: got step=0.5, expected a",
        ),
        ("name: tiny", "name: a/b", "sweep.yaml:1: name: got 'a/b'"),
        (
            "stages: [8k, s1,",
            "stages: [8k, s9,",
            "sweep.yaml:4: stages.1: got s9, expected 8k or s1",
        ),
        ("stages: [8k, s1,", "stages: [8k, 8k,", "sweep.yaml:4: stages: got ['8k', '8k'"),
    ],
)
def test_a_mistake_is_named_with_its_line(place: Path, old: str, new: str, expected: str) -> None:
    (place / "sweep.yaml").write_text(SWEEP.replace(old, new))
    with pytest.raises(ConfigError) as error:
        stage_configs(*load_sweep(Path("sweep.yaml")))
    assert expected in str(error.value)


def test_all_mistakes_at_once(place: Path) -> None:
    text = SWEEP.replace("low: 1e-5", "low: 1").replace("name: tiny", "name: a b")
    (place / "sweep.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_sweep(Path("sweep.yaml"))
    assert len(error.value.problems) == 2


@pytest.mark.parametrize(
    ("range_", "inside", "outside"),
    [
        (Range(low=1, high=5, step=2), [1, 3, 5], [0, 2, 6, None, "3"]),
        (Range(low=1e-5, high=1e-2, log=True), [1e-5, 3e-4], [1e-6]),
        (Range(choices=([0, 10], [0, 15])), [[0, 10]], [[0, 11], 0]),
    ],
)
def test_what_a_range_contains(range_: Range, inside: list[Any], outside: list[Any]) -> None:
    assert all(range_.contains(value) for value in inside)
    assert not any(range_.contains(value) for value in outside)


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


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dataset_conf.num_workers: {choices: [0, 4]}", "changes how fast it runs"),
        ("train_conf.log_interval: {choices: [1, 4]}", "changes how it runs, not what is learnt"),
        ("finetune_conf.feature_cache_mb: {choices: [0, 4]}", "changes how it runs or is scored"),
        ("finetune_conf.feature_cache_dir: {choices: [a, b]}", "changes how it runs or is scored"),
        ("finetune_conf.seed: {choices: [0, 4]}", "replicates repeats the best configs"),
        ("train_conf.keep_nbest_models: {choices: [1, 4]}", "changes what is kept"),
        ("frontend_conf.n_mels: {choices: [40, 80]}", "belongs to the weights"),
        ("audio_encoder_conf.output_size: {choices: [1, 2]}", "belongs to the weights"),
        ("init_param: {choices: [a, b]}", "a key that the sweep sets itself, expected it as base"),
        ("dataset_conf.index_ds: {choices: [a, b]}", "names a class"),
        (
            "train_conf.use_fp16: {choices: [true, false]}",
            "effect stock (it acts in stock FunASR alone), expected one that acts here "
            "(stage 8k, s1, s2, s3)",
        ),
        ("model_conf.lsm_weight: {low: 0.0, high: 0.2}", "effect none (it changes nothing)"),
        (
            "llm_conf.lora_conf.r: {choices: [4, 8]}",
            "it would with llm_conf.use_lora: true, llm_conf.lora_conf.freeze_lora: false "
            "(stage 8k, s1, s2)",
        ),
        (
            "detach_ctc_decoder: {choices: [true, false]}",
            "expected one that acts here (stage s2, s3)",
        ),
        ("specaug_conf.time_warp_window: {choices: [3, 5]}", "specaug_conf.apply_time_warp: true"),
    ],
)
def test_a_search_over_a_key_that_does_nothing_is_refused(
    place: Path, line: str, expected: str
) -> None:
    (place / "sweep.yaml").write_text(SWEEP.replace("space:\n", f"space:\n  {line}\n"))
    with pytest.raises(ConfigError) as error:
        stage_configs(*load_sweep(Path("sweep.yaml")))
    assert len(error.value.problems) == 1
    assert error.value.problems[0].startswith(f"sweep.yaml:9: space.{line.partition(':')[0]}: got")
    assert expected in error.value.problems[0]


@pytest.mark.parametrize(
    "space",
    [
        "specaug_conf.time_warp_window: {choices: [3, 5]}\n"
        "  specaug_conf.apply_time_warp: {choices: [true, false]}",
        "frontend_conf.fs: {choices: [8000, 16000]}",
        "llm_conf.lora_conf.r: {choices: [4, 8]}\n  llm_conf.use_lora: {choices: [true, false]}\n"
        "  llm_conf.lora_conf.freeze_lora: {choices: [true, false]}",
        "audio_encoder_conf.freeze: {choices: [true, false]}\n"
        "  detach_ctc_decoder: {choices: [true, false]}",
    ],
)
def test_a_key_may_act_only_beside_another(place: Path, space: str) -> None:
    (place / "sweep.yaml").write_text(SWEEP.replace("space:\n", f"space:\n  {space}\n"))
    stage_configs(*load_sweep(Path("sweep.yaml")))


def test_a_search_that_can_train_nothing_is_refused(place: Path) -> None:
    (place / "sweep.yaml").write_text(
        SWEEP + "stage_space:\n  s1:\n    audio_encoder_conf.freeze: {choices: [true]}\n"
    )
    with pytest.raises(ConfigError, match="stages: got every part frozen, expected.*stage s1"):
        stage_configs(*load_sweep(Path("sweep.yaml")))


@pytest.mark.parametrize(
    ("range_", "whole", "values"),
    [
        (Range(choices=(4, 6)), True, (4, 6)),
        (Range(low=1, high=5, step=2), True, (1, 3, 5)),
        (Range(low=1, high=3), True, (1, 2, 3)),
        (Range(low=0.1, high=0.3, step=0.1), False, (0.1, 0.2, 0.3)),
        (Range(low=1e-5, high=1e-3, log=True, points=3), False, (1e-5, 1e-4, 1e-3)),
        (Range(low=0.0, high=1.0, points=2), False, (0.0, 1.0)),
        (Range(low=1e-5, high=1e-3, log=True), False, None),
    ],
)
def test_a_grid_goes_through_finite_ranges(
    range_: Range, whole: bool, values: tuple[Any, ...] | None
) -> None:
    assert range_.problem() is None
    assert range_.grid(whole=whole) == values


def test_a_grid_has_as_many_points_as_trials(place: Path) -> None:
    grid = SWEEP + "sampler: grid\n"
    (place / "sweep.yaml").write_text(grid)
    with pytest.raises(ConfigError, match=r"sweep.yaml:9: space.optim_conf.lr: got low=1e-05, .*"):
        load_sweep(Path("sweep.yaml"))
    (place / "sweep.yaml").write_text(grid.replace("log: true", "log: true, points: 4"))
    with pytest.raises(ConfigError, match=r":11: trials: got 8, expected 52: 4 default configs"):
        load_sweep(Path("sweep.yaml"))
    assert load_sweep(Path("sweep.yaml"), overrides=["trials=52"])[0].trials == 52
