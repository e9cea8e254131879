"""A whole short fine-tune: files, events, and the same numbers from the same seed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.errors import WorkError
from conf.load import Config
from trainer.finetune.result import Evaluation
from trainer.finetune.run import finetune
from trainer.model.checkpoint import load_metadata
from trainer.tracking.event_log import EventLog, NullTracker, read_events


def test_a_fine_tune_writes_what_design_says(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config("8k")
    directory = Path(config["output_dir"])
    evaluations: list[Evaluation] = []
    result = finetune(config, EventLog(directory), evaluations.append)
    assert [(e.epoch, e.step, e.finished) for e in evaluations] == [
        (0, 0, False),
        (1, 3, False),
        (2, 6, True),
    ]
    assert result.objective == result.metrics["valid/cer"]
    assert result.objective == min(e.metrics["valid/cer"] for e in evaluations[1:])
    events = read_events(directory)
    artifacts = {event["artifact"] for event in events if "artifact" in event}
    assert artifacts == {"config.yaml", "deltas.json", "deltas.md", "hypotheses/valid.jsonl"}
    tags = {key: value for event in events for key, value in event.get("tags", {}).items()}
    assert tags["stage"] == "8k"
    assert tags["checkpoint"] == result.checkpoint
    assert "audio_encoder_conf.freeze" in tags["delta.critical"].split(", ")
    params = {key: value for event in events for key, value in event.get("params", {}).items()}
    assert params["optim_conf.lr"] == 1e-3
    hypotheses = [
        json.loads(line)
        for line in (directory / "hypotheses" / "valid.jsonl").read_text("utf-8").splitlines()
    ]
    errors = sum(h["substitutions"] + h["deletions"] + h["insertions"] for h in hypotheses)
    assert errors / sum(h["reference_length"] for h in hypotheses) == result.objective
    checkpoint = load_metadata(directory / "checkpoints" / f"{result.checkpoint}.safetensors")
    assert checkpoint["base.sha256"] == tags["init.sha256"]


def test_the_same_seed_gives_the_same_numbers(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    curves: list[list[Evaluation]] = [[], [], []]
    for curve, seed in zip(curves, (1, 1, 2), strict=True):
        config = tiny_config("8k", finetune_conf__seed=seed, output_dir=str(tmp_path / str(seed)))
        finetune(config, NullTracker(), curve.append)

    def losses(curve: list[Evaluation]) -> list[float]:
        return [evaluation.metrics["valid/loss"] for evaluation in curve]

    assert losses(curves[0]) == losses(curves[1])
    assert losses(curves[0])[0] == losses(curves[2])[0]
    assert losses(curves[0])[1:] != losses(curves[2])[1:]


def test_what_on_eval_raises_ends_the_run(tiny_config: Callable[..., Config]) -> None:
    def prune(evaluation: Evaluation) -> None:
        if evaluation.epoch == 1:
            raise SystemExit

    config = tiny_config("8k")
    with pytest.raises(SystemExit):
        finetune(config, EventLog(Path(config["output_dir"])), prune)
    steps = {event.get("step") for event in read_events(Path(config["output_dir"]))}
    assert max(step for step in steps if step is not None) == 3


def test_a_loss_that_is_not_finite_fails_with_its_place(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config("8k", optim_conf__lr=1e12, scheduler_conf__warmup_steps=1, train=48)
    with pytest.raises(WorkError, match=r"loss is nan at update \d+, in the batch of train-"):
        finetune(config, NullTracker())
