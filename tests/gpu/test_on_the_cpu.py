"""What is measured on a GPU runs: every measurement, on the CPU, with a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from conf.keys import find_key
from conf.load import STAGES
from tests.gpu import compare, measure
from tests.gpu.figures import PREDICTED, Figures, default_path
from tests.gpu.models import RELEASED, TINY, Training, examples_of
from tests.gpu.toggles import TOGGLES, Toggle

CPU = torch.device("cpu")


def test_ceilings() -> None:
    found = measure.ceilings(CPU, TINY)
    assert found.copy_gb_s > 0
    assert found.launch_us > 0
    assert found.tflops.keys() == {"bf16", "tf32", "fp32"}


@pytest.mark.parametrize("stage", STAGES)
def test_an_update_of_each_stage(stage: str) -> None:
    training = Training(TINY, stage, CPU)
    found = measure.update(CPU, TINY, training)
    counts = measure.counts(CPU, TINY, training)
    assert found.ms > 0
    assert counts.kernels > 500
    assert counts.kernels_ms > 0
    assert counts.waits >= 1
    # The input, which is nothing next to the released model, is a fifth here.
    assert found.peak == pytest.approx(counts.forecast, rel=0.25)
    assert 0 < found.step.loss < 100
    assert found.step.gradient.abs().max() > 0


@pytest.mark.parametrize("toggle", TOGGLES, ids=lambda toggle: toggle.key)
def test_toggles(toggle: Toggle) -> None:
    assert find_key(toggle.key) is not None
    before = measure.step(Training(TINY, toggle.stage, CPU))
    training = Training(TINY, toggle.stage, CPU, {toggle.key: toggle.value})
    found = compare.of_steps(before, measure.step(training))
    training.run(1)
    assert found.loss <= toggle.loss
    assert found.gradient <= toggle.gradient


@pytest.mark.parametrize("stage", ["8k", "s3"])
def test_the_same_device_gives_the_same(stage: str) -> None:
    assert compare.with_the_cpu(CPU, stage) == compare.Difference(0.0, 0.0)


def test_texts_that_are_compared_hang_on_no_rounding() -> None:
    """A hundred times what fp32 rounds to changes none of them."""
    config, examples = measure.tiny_config("s2"), examples_of(TINY, 12)
    exact, shaken = (measure.results(CPU, config, examples, noise) for noise in (0.0, 1e-4))
    assert exact.ids == shaken.ids
    assert len(set(exact.ids)) == 12


def test_decoding() -> None:
    nano = measure.decoder(CPU, TINY)
    for rows in TINY.rows:
        assert measure.decoding(CPU, TINY, rows, nano).encoder_ms > 0


def test_adapters() -> None:
    assert measure.adapters(CPU, TINY, "fp32").moved > 0.99
    assert measure.adapters(CPU, TINY, "llm").moved < 0.5


def test_processes_side_by_side() -> None:
    assert measure.updates_per_s(CPU, "tiny", "s2", 2) > 0


def test_figures_are_written_next_to_their_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUT", str(tmp_path))
    path = default_path()
    assert path == tmp_path / "gpu.json"
    line = Figures(path, CPU).add("update 8k: ms", 118.0)
    assert line.endswith("] update 8k: ms 118, predicted 125")
    Figures(path, CPU).add("copy: GB/s", 4000.0, "of 4,800")
    found = json.loads(path.read_text())["figures"]
    assert found == {
        "update 8k: ms": {"measured": 118.0, "predicted": 125},
        "copy: GB/s": {"measured": 4000.0, "note": "of 4,800"},
    }


def test_every_prediction_is_of_something_measured() -> None:
    of_update = ("ms", "kernels", "us a kernel", "busy share", "waits")
    measured = {
        *(f"update {stage}: {what}" for stage in STAGES for what in of_update),
        *(f"decoding {rows} rows: ms a step" for rows in RELEASED.rows),
        *(f"decoding {rows} rows: encoder ms" for rows in RELEASED.rows),
        "4 processes: times one",
    }
    assert PREDICTED.keys() <= measured
