"""The forecast of a step is what a real step takes."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from conf.load import Config
from tests.conftest import BASE, ROOT
from trainer.checks.step_cost import BatchShape, StorageMeter, evaluation_forecast, fits, forecast
from trainer.data.batch import Example, collate, num_audio_tokens
from trainer.evaluation.decode import decode
from trainer.model import stages
from trainer.model.build import build
from trainer.model.encoded import encode_examples, parts
from trainer.model.losses import Objective

SHAPE = BatchShape(utterances=3, num_frames=70, text_tokens=12)
TINY_LLM = BASE / "Qwen3-tiny"


def _real_step(config: Config) -> tuple[int, int, int]:
    """Bytes kept and at the peak of one step, and its operations."""
    nano = build(config)
    stages.apply(nano.model, config)
    stages.set_training_mode(nano.model)
    # A little padding, as batches have: without any, attention needs no mask.
    targets = [list(range(SHAPE.text_tokens - (n == 0))) for n in range(SHAPE.utterances)]
    examples = [
        Example("k", torch.randn(SHAPE.num_frames, 560), ([1] * 20, [2] * 10), target, target)
        for target in targets
    ]
    batch = collate(examples)
    objective = Objective(nano.model, config)
    meter = StorageMeter({*nano.model.parameters(), *nano.model.buffers()})
    operations = FlopCounterMode(display=False)
    half = torch.autocast("cpu", torch.bfloat16, enabled=config["train_conf.use_bf16"])
    gc.collect()  # as the forecast does, and for its reason
    with operations, meter:
        with half:
            loss = objective(batch, training=True).total
        kept = meter.now
        loss.backward()  # type: ignore[no-untyped-call]
    return kept, meter.peak, operations.get_total_flops()


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        ("8k", {}),
        ("s1", {}),
        ("s2", {}),
        ("s3", {}),
        ("s1", {"train_conf__use_bf16": True}),
        ("s2", {"train_conf__use_bf16": True}),
        ("s3", {"train_conf__use_bf16": True}),
        ("s1", {"llm_conf__llm_dtype": "bf16"}),
        ("s1", {"audio_encoder_conf__activation_checkpoint": True}),
        ("s3", {"llm_conf__activation_checkpoint": True}),
    ],
    ids=str,
)
def test_a_tiny_step_takes_what_was_forecast(
    tiny_config: Callable[..., Config], stage: str, settings: dict[str, Any]
) -> None:
    config = tiny_config(stage, **settings)
    expected = forecast(config, SHAPE, llm=TINY_LLM)
    kept, peak, flops = _real_step(config)
    # Autocast's own copies are not followed one by one. With recomputed layers the peak depends on
    # when the collector runs within the step (2.68 to 2.99 MB seen, forecast 2.62).
    recomputed = any(name.endswith("activation_checkpoint") for name in settings)
    near = 0.15 if recomputed else 0.1 if config["train_conf.use_bf16"] else 0.05
    assert expected.kept == pytest.approx(kept, rel=near)
    assert expected.step == pytest.approx(peak, rel=near)
    # The counter does not know the CPU's attention kernel: 7 products in each of 3 layers,
    # and 2 of them again where a layer is computed again.
    length = 30 + num_audio_tokens(SHAPE.num_frames) + SHAPE.text_tokens
    products = 9 if config.get("llm_conf.activation_checkpoint") else 7
    attention = 3 * products * 2 * SHAPE.utterances * 4 * length**2 * 16
    assert expected.flops == pytest.approx(flops + attention, rel=0.05)


@pytest.mark.parametrize("settings", [{}, {"llm_conf__llm_dtype": "bf16"}], ids=str)
@pytest.mark.parametrize("utterances", [3, 40])
def test_a_tiny_evaluation_takes_what_was_forecast(
    tiny_config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    utterances: int,
    settings: dict[str, Any],
) -> None:
    """Texts that never end, and a head that never holds all rows."""
    config = tiny_config("s3", finetune_conf__max_new_tokens=150, **settings)
    shape = replace(SHAPE, utterances=utterances)
    expected = evaluation_forecast(config, shape, llm=TINY_LLM, device="cpu")
    nano = build(config)
    monkeypatch.setattr(nano.model.llm.generation_config, "eos_token_id", [])
    objective = Objective(nano.model, config)
    target = list(range(SHAPE.text_tokens))

    def encoded() -> Iterator[list[Example]]:
        """Two batches, as evaluation makes them."""
        for number in range(2):
            features = torch.randn(utterances, SHAPE.num_frames, 560)
            examples = [
                Example(f"{number}", each_TF, ([1] * 20, [2] * 10), target, target)
                for each_TF in features
            ]
            examples = encode_examples(nano, examples)
            for part in parts(nano, examples):
                objective(collate(part), training=False)
            yield examples

    meter = StorageMeter({*nano.model.parameters(), *nano.model.buffers()})
    gc.collect()
    with torch.inference_mode(), meter:
        assert all(said.capped for said in decode(nano, encoded(), 150, utterances))
    assert expected == pytest.approx(meter.peak, rel=0.15)


def test_counting_operations_changes_nothing_else(tiny_config: Callable[..., Config]) -> None:
    counted = forecast(tiny_config(), SHAPE, llm=TINY_LLM)
    plain = forecast(tiny_config(), SHAPE, llm=TINY_LLM, count_flops=False)
    assert plain.flops == 0 < counted.flops
    assert (plain.peak, plain.kept) == (counted.peak, counted.kept)


def test_what_fits(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config("s3")
    none, number = fits(config, SHAPE, (1e6, 1e8), llm=TINY_LLM)
    batch = replace(SHAPE, utterances=number)
    assert forecast(config, batch, llm=TINY_LLM).peak == pytest.approx(1e8, rel=0.02)
    assert none == 0


@pytest.mark.slow
def test_full_size_steps_take_what_was_forecast() -> None:
    """Stage 1 on 5 s of speech, in a process of its own: about 7 GB, and a minute."""
    # Freed memory goes back at once, else the C library's gaps would be measured as well.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**18), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.trainer.finetune.full_size_step", "s1", "2"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["peaks"][0] == pytest.approx(found["forecast_first"], rel=0.15)
    assert found["peaks"][1] == pytest.approx(found["forecast"], rel=0.15)
    assert all(loss > 0 for loss in found["losses"])
