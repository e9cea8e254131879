"""What a fine-tune writes about itself, without training one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conf.load import Config, load_config, stage_config_path
from trainer.data.batch import LeftOut
from trainer.data.manifest import Utterance
from trainer.data.sets import Data
from trainer.finetune.record import Record, log_config
from trainer.finetune.result import Evaluation
from trainer.tracking.event_log import EventLog, read_events

pytestmark = pytest.mark.quick

BASE = Path("trainer/demo/base")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(
        stage_config_path("8k"),
        init_param=BASE / "model.pt",
        layers=[("test", {"output_dir": str(tmp_path), "optim_conf.lr": 0.5})],
    )


def utterance(key: str) -> Utterance:
    return Utterance(key, Path(f"{key}.wav"), "你好", Path("train.jsonl"), 1)


def metrics(directory: Path) -> dict[int, dict[str, float]]:
    """What the event log holds, by step."""
    found: dict[int, dict[str, float]] = {}
    for event in read_events(directory):
        if "metrics" in event:
            found.setdefault(event["step"], {}).update(event["metrics"])
    return found


def test_the_configuration_is_written_and_logged_with_its_deltas(
    config: Config, tmp_path: Path
) -> None:
    tags = log_config(config, EventLog(tmp_path))
    assert (tmp_path / "config.yaml").read_text("utf-8") == config.to_yaml()
    deltas = {delta["key"]: delta for delta in json.loads((tmp_path / "deltas.json").read_text())}
    assert deltas["optim_conf.lr"]["value"] == 0.5
    assert "optim_conf.lr" in (tmp_path / "deltas.md").read_text("utf-8")
    assert "audio_encoder_conf.freeze" in tags["delta.critical"].split(", ")
    assert tags["config.sha256"] == config.fingerprint()
    [params] = [event["params"] for event in read_events(tmp_path) if "params" in event]
    assert params["optim_conf.lr"] == 0.5


def test_epochs_are_evaluations_and_the_end_is_a_step_later(config: Config, tmp_path: Path) -> None:
    """So the last value that MLflow shows is that of the checkpoint that would be exported."""
    updates = 0
    record = Record(config, EventLog(tmp_path), step=lambda: updates)
    record.metrics["valid/cer"] = 0.5
    record.log_epoch(0)
    updates = 7
    record.metrics["valid/cer"] = 0.3
    record.log_epoch(1)
    assert not record.finished
    record.metrics["valid/cer"] = 0.25
    record.log_end()
    assert record.finished
    assert record.evaluations == [
        Evaluation(0, 0, {"valid/cer": 0.5}, finished=False),
        Evaluation(1, 7, {"valid/cer": 0.3}, finished=False),
        Evaluation(1, 7, {"valid/cer": 0.25}, finished=True),
    ]
    assert metrics(tmp_path) == {
        0: {"valid/cer": 0.5, "epoch": 0.0},
        7: {"valid/cer": 0.3, "epoch": 1.0},
        8: {"valid/cer": 0.25, "epoch": 1.0},
    }
    restored = Record(config, EventLog(tmp_path, resume=True), step=lambda: 7)
    restored.restore(json.loads(json.dumps(record.state())))
    assert restored.evaluations == record.evaluations
    assert restored.metrics == record.metrics


def test_each_skipped_utterance_is_counted_once_and_named_in_the_file(
    config: Config, tmp_path: Path
) -> None:
    a, b = utterance("a"), utterance("b")
    record = Record(config, EventLog(tmp_path), step=lambda: 3)
    record.log_skipped([LeftOut(a, "no audio")])
    record.describe(
        Data([a, b], [], {"valid": [a, b]}, [b], "data"), "weights", device="cpu", trainable="llm 1"
    )
    record.log_epoch(0)
    record.log_skipped([LeftOut(a, "no audio"), LeftOut(b, "too long")])
    lines = (tmp_path / "left_out.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["a", "b"]
    counts = {step: found.get("train/left_out") for step, found in metrics(tmp_path).items()}
    assert counts == {0: 1.0, 3: 2.0}
    [tags] = [event["tags"] for event in read_events(tmp_path) if "tags" in event]
    assert tags["valid.subset"] == "1 of 2"
    assert tags["init.sha256"] == "weights"
