"""Keys that a sweep may search: what does nothing in a stage, or trains nothing, is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import ConfigError
from conf.load import load_config, stage_config_path
from sweeps.spec.sweep_file import load_sweep, stage_configs
from sweeps.spec.tunable import leaves_nothing, not_tunable
from tests.sweeps.conftest import SWEEP

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("key", ["optim_conf.lr", "frontend_conf.fs", "finetune_conf.channel"])
def test_what_changes_what_is_learnt_may_be_searched(key: str) -> None:
    assert not_tunable(key) is None


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


@pytest.mark.parametrize("stage", ["8k", "s1", "s2", "s3"])
def test_every_stage_trains_something(stage: str) -> None:
    config = load_config(stage_config_path(stage), find_model=False)
    assert not leaves_nothing(config)
    every = ("audio_encoder_conf", "audio_adaptor_conf", "ctc_decoder_conf", "llm_conf")
    frozen = {f"{part}.freeze": True for part in every}
    assert leaves_nothing(config.replace({**frozen, "llm_conf.use_lora": False}, "test"))
