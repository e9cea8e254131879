"""Whoever trains, our loop or stock FunASR's: a fine-tune has the same course, judged the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.load import Config
from trainer.finetune.run import finetune
from trainer.tracking.event_log import EventLog, read_events


@pytest.mark.parametrize("engine", ["here", "stock"])
def test_a_fine_tune_has_the_same_course_with_either_engine(
    tiny_config: Callable[..., Config], engine: str
) -> None:
    config = tiny_config(
        "8k",
        train=8,
        valid=2,
        dataset_conf__batch_size=4,
        dataset_conf__num_workers=0,
        train_conf__log_interval=1,
        finetune_conf__engine=engine,
    )
    directory = Path(config["output_dir"])
    course: list[tuple[int, int, bool]] = []
    result = finetune(
        config, EventLog(directory), lambda e: course.append((e.epoch, e.step, e.finished))
    )
    assert course == [(0, 0, False), (1, 2, False), (2, 4, True)]
    assert (directory / "checkpoints" / f"{result.checkpoint}.safetensors").exists()
    assert result.objective == result.metrics["valid/cer"]
    assert all(math.isfinite(result.metrics[f"train/{name}"]) for name in ("loss", "lr"))
    logged = {e["step"] for e in read_events(directory) if "train/lr" in e.get("metrics", {})}
    assert logged >= {1, 2, 3, 4}
