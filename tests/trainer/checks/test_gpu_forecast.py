"""What is said of GPUs that are not here: cards that a step fits on, hours, all without weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.errors import WorkError
from conf.load import PRETRAINED, Config, load_config, stage_config_path
from tests.conftest import BASE
from trainer.checks.gpu_forecast import cards, gpu_forecast, memory
from trainer.checks.model_checks import batch_shape
from trainer.checks.step_cost import PROGRAM, QWEN3_06B, forecast


@pytest.mark.quick
def test_cards_keep_a_tenth_free() -> None:
    assert cards(21_600_000_000) == "fits 24, 40 and 80 GB"
    assert cards(21_700_000_000) == "fits 40 and 80 GB"
    assert cards(60_000_000_000) == "fits 80 GB"
    assert cards(80_000_000_000) == "fits none of 24, 40 and 80 GB"


def test_a_tiny_model_is_measured_here(tiny_config: Callable[..., Config]) -> None:
    found = gpu_forecast(tiny_config("s2"))
    assert found.measured_on == "cpu"
    assert found.batches_per_epoch == 3
    assert found.batch.utterances == 8
    assert 0 < found.epoch_s < 60
    assert 0 < found.evaluation.epoch_s < 60
    assert found.full_need is not None
    assert found.full_need.training > 100 * found.need.training
    assert found.full_need.evaluation > 100 * found.need.evaluation
    assert found.need.on_cpu.training > found.need.training + PROGRAM


def test_hours_follow_from_operations_where_somebody_says_the_speed(
    tiny_config: Callable[..., Config],
) -> None:
    config = tiny_config("s3")
    slow, fast = gpu_forecast(config, tflops=1.0), gpu_forecast(config, tflops=4.0)
    assert slow.measured_on == fast.measured_on == ""
    assert slow.epoch_s == pytest.approx(4 * fast.epoch_s)
    longest = batch_shape(config, slow.batch)
    step = forecast(config, longest, llm=BASE / "Qwen3-tiny").flops
    assert slow.epoch_s * 1e12 == pytest.approx(step * slow.batches_per_epoch, rel=0.3)


def test_the_released_model_needs_no_weights(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    """Its config.yaml, the LLM's config.json and the tokenizers are all there is."""
    llm = tmp_path / "MODEL" / "Qwen3-0.6B"
    shutil.copytree(BASE / "Qwen3-tiny", llm)
    (llm / "config.json").write_text(json.dumps(dict(QWEN3_06B)), encoding="utf-8")
    shutil.copy(PRETRAINED, llm.parent / "config.yaml")
    shutil.copy(BASE / "multilingual.tiktoken", llm.parent)
    data = {key: tiny_config("s2")[key] for key in ("train_data_set_list", "valid_data_set_list")}
    config = load_config(stage_config_path("s2"), model=llm.parent, layers=[("data", data)])
    found = gpu_forecast(config)
    assert (found.measured_on, found.full_need) == ("", None)
    shape = batch_shape(config, found.batch)
    step = forecast(config, shape, llm=QWEN3_06B, count_flops=False)
    assert found.need.training == step.peak > 3e9
    assert found.need.evaluation > step.weights + step.moments > 2e9
    assert found.need == memory(config)
    assert found.epoch_s > 0


def test_data_that_leaves_nothing_to_train_on_is_said(tiny_config: Callable[..., Config]) -> None:
    with pytest.raises(WorkError, match="no training utterance is within the limits"):
        gpu_forecast(tiny_config("8k", dataset_conf__max_source_length=10))
