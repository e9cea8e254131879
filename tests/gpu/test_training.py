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
from tests.gpu.conftest import Say
from tests.gpu.models import RELEASED
from tests.gpu.toggles import TOGGLES, Toggle

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.timeout(270),
    # Other versions than the locked ones may be there, and warn of other things.
    pytest.mark.filterwarnings("default"),
]


@cache
def _update(device: torch.device, stage: str) -> measure.Update:
    """A stage as it is shipped, measured once: toggles are compared with it."""
    return measure.update(device, RELEASED, stage)


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
    found = _update(gpu, stage)
    say(f"update {stage}: ms", found.ms)
    say(f"update {stage}: kernels", found.kernels)
    say(f"update {stage}: us a kernel", 1000 * found.ms / found.kernels)
    say(f"update {stage}: busy share", found.busy)
    say(f"update {stage}: waits", found.waits, ", ".join(found.places))
    say(f"update {stage}: peak GB", found.peak / 1e9, f"forecast {found.forecast / 1e9:.2f}")
    assert 0 < found.step.loss < 100
    assert found.peak == pytest.approx(found.forecast, rel=0.15)


@pytest.mark.parametrize("toggle", TOGGLES, ids=lambda toggle: toggle.key)
def test_a_toggle_changes_the_time_and_not_the_result(
    gpu: torch.device, say: Say, toggle: Toggle
) -> None:
    assert find_key(toggle.key) is not None
    before = _update(gpu, toggle.stage)
    after = measure.update(gpu, RELEASED, toggle.stage, {toggle.key: toggle.value})
    found = compare.of_steps(before.step, after.step)
    name = f"{toggle.stage} {toggle.key} {toggle.value}"
    say(f"{name}: ms", after.ms, f"without {before.ms:.4g}")
    say(f"{name}: peak GB", after.peak / 1e9, f"without {before.peak / 1e9:.2f}")
    say(f"{name}: difference of the loss", found.loss)
    say(f"{name}: difference of the gradient", found.gradient)
    assert found.loss <= toggle.loss
    assert found.gradient <= toggle.gradient
