"""What the checks see of the model: weights, trainable counts, room and time."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conf.load import STAGES, Config, load_config, stage_config_path
from tests.conftest import base_without_ctc
from tests.trainer.checks.results import by_id, status
from trainer.checks import model_checks
from trainer.checks.data_checks import survey
from trainer.checks.run_checks import run_checks


@pytest.mark.parametrize("stage", STAGES)
def test_tiny_model(stage: str, tiny_config: Callable[..., Config]) -> None:
    """Counted in the built model; everything is forecast; nothing fails."""
    results = by_id(run_checks(tiny_config(stage)))
    assert status(list(results.values()), "failed") == set()
    trainable = results["trainable"]
    wanted = {
        "8k": "audio_encoder, ctc_decoder, ctc trains",
        "s1": "audio_encoder trains",
        "s2": "audio_adaptor, ctc_decoder, ctc trains",
        "s3": "llm trains",
    }
    assert trainable.expected == wanted[stage]
    assert re.search(r"SHA-256 [0-9a-f]{64}$", results["coverage"].found)
    assert "ms on cpu" in results["time"].found
    assert re.search(r"^\d\.\d MB needed, \d", results["disk"].found)


def test_a_checkpoint_without_ctc(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    """As one hub's copy has it: the component is named; nothing else is forecast."""
    directory = base_without_ctc(tmp_path / "base")
    config = tiny_config()
    config = load_config(stage_config_path("8k"), model=directory, layers=[("test", config.flat())])
    config = config.replace({"init_param": str(directory / "model.pt")}, "test")
    results = by_id(run_checks(config, parts=["model"]))
    assert status(list(results.values()), "failed") == {"coverage"}
    assert "ctc_decoder: got 0 of" in results["coverage"].found
    assert results["memory"].status == "not run"


def test_no_room(tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    """Disk and memory are compared with what is there."""

    class Usage:
        free = 1000

    monkeypatch.setattr(model_checks.shutil, "disk_usage", lambda path: Usage)
    monkeypatch.setattr(model_checks, "_free_memory", lambda device: (1e6, "a small one"))
    results = run_checks(tiny_config(), parts=["model"])
    assert status(results, "failed") == {"disk", "memory"}


def test_a_device_too_small_for_evaluation_but_not_for_training(
    tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_checks, "_free_memory", lambda device: (2e9, "a small one"))
    config = tiny_config("s2")
    assert by_id(run_checks(config, parts=["data", "model"]))["memory"].status == "passed"
    config = config.replace({"finetune_conf.max_new_tokens": 1_000_000}, "test")
    found = by_id(run_checks(config, parts=["data", "model"]))["memory"]
    assert (found.status, found.key) == ("failed", "finetune_conf.eval_batch_size")
    assert re.match(r"about 9\d\d MB in training, \d+\.\d GB in evaluation of 2.0 GB", found.found)


def test_a_gpu_is_looked_at_before_a_model_is_built(
    tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `train` does: the first evaluation comes before the first update."""
    config = tiny_config("s2", finetune_conf__max_new_tokens=1_000_000)
    monkeypatch.setattr(model_checks, "_free_memory", lambda device: (2e9, "a small one"))
    monkeypatch.setattr(model_checks, "build", None)
    before = by_id(run_checks(config, parts=["config", "data"], of_gpu=True))["memory"]
    assert (before.status, before.found) == ("not run", "no GPU")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = by_id(run_checks(config, parts=["config", "data"], of_gpu=True))["memory"]
    assert (found.status, found.key) == ("failed", "finetune_conf.eval_batch_size")
    assert re.match(r"about \d+ MB in training, \d+\.\d GB in evaluation of 2.0 GB", found.found)
    assert "memory" not in by_id(run_checks(config, parts=["config", "data"]))


def test_the_largest_batch_of_evaluation_is_of_all_its_sets(
    tiny_config: Callable[..., Config],
) -> None:
    data = survey(tiny_config("s2", finetune_conf__eval_batch_size=4))
    frames = max(
        audios.num_frames.max() for split, audios in data.audios.items() if split != "train"
    )
    largest = data.largest_evaluated
    assert largest.utterances == 4
    assert frames <= largest.num_frames < frames + 6
