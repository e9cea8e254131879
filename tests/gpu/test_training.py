"""Ceilings, the CPU's results, and an update of each stage at the released size.

pytest -m gpu tests/gpu/test_training.py
"""

from __future__ import annotations

from functools import cache

import pytest
import torch

from conf.keys import find_key
from conf.load import STAGES
from tests.gpu import compare, measure
from tests.gpu.conftest import ON_A_GPU, Say
from tests.gpu.models import RELEASED, Training
from tests.gpu.toggles import TOGGLES, Toggle

pytestmark = ON_A_GPU


@cache
def _shipped(device: torch.device, stage: str) -> tuple[measure.Update, measure.Counts]:
    """A stage as it is shipped, measured once: toggles are compared with it."""
    training = Training(RELEASED, stage, device)
    found = measure.update(device, RELEASED, training)
    return found, measure.counts(device, RELEASED, training)


def test_ceilings(gpu: torch.device, say: Say) -> None:
    found = measure.ceilings(gpu, RELEASED)
    say("copy: GB/s", found.copy_gb_s)
    for name, tflops in found.tflops.items():
        say(f"matrix product {name}: TFLOP/s", tflops)
    say("start of an empty kernel: us of the host", found.launch_us)


@pytest.mark.parametrize("stage", STAGES)
def test_results_are_those_of_the_cpu(gpu: torch.device, say: Say, stage: str) -> None:
    found = compare.with_the_cpu(gpu, stage)
    say(f"same as the CPU {stage}: difference of the loss", found.loss)
    say(f"same as the CPU {stage}: difference of the gradient", found.gradient)
    assert found.loss < 1e-5
    assert found.gradient < 1e-4
    assert found.same_ids


@pytest.mark.parametrize("stage", STAGES)
def test_an_update_at_the_released_size(gpu: torch.device, say: Say, stage: str) -> None:
    found, counts = _shipped(gpu, stage)
    say(f"update {stage}: ms", found.ms)
    say(f"update {stage}: kernels", counts.kernels)
    say(f"update {stage}: us a kernel", 1000 * found.ms / counts.kernels)
    say(f"update {stage}: busy share", counts.kernels_ms / found.ms)
    say(f"update {stage}: waits", counts.waits, ", ".join(counts.places))
    say(f"update {stage}: peak GB", found.peak / 1e9, f"forecast {counts.forecast / 1e9:.2f}")
    assert 0 < found.step.loss < 100
    assert found.peak == pytest.approx(counts.forecast, rel=0.15)


@pytest.mark.parametrize("toggle", TOGGLES, ids=lambda toggle: toggle.key)
def test_a_toggle_changes_the_time_and_not_the_result(
    gpu: torch.device, say: Say, toggle: Toggle
) -> None:
    assert find_key(toggle.key) is not None
    before, _ = _shipped(gpu, toggle.stage)
    training = Training(RELEASED, toggle.stage, gpu, {toggle.key: toggle.value})
    after = measure.update(gpu, RELEASED, training)
    found = compare.of_steps(before.step, after.step)
    name = f"{toggle.stage} {toggle.key} {toggle.value}"
    say(f"{name}: ms", after.ms, f"without {before.ms:.4g}")
    say(f"{name}: peak GB", after.peak / 1e9, f"without {before.peak / 1e9:.2f}")
    say(f"{name}: difference of the loss", found.loss)
    say(f"{name}: difference of the gradient", found.gradient)
    assert found.loss <= toggle.loss
    assert found.gradient <= toggle.gradient
