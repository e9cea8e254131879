"""The event log: whole lines in order, each metric once per step."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.tracking.event_log import EventLog, NullTracker, read_events


@pytest.mark.quick
def test_null_tracker_takes_everything(tmp_path: Path) -> None:
    tracker = NullTracker()
    tracker.log_params({"optim_conf.lr": 1e-4})
    tracker.set_tags({"stage": "s1"})
    tracker.log_metrics({"valid/cer": 0.5}, step=1)
    tracker.log_artifact(tmp_path / "missing")


@pytest.mark.quick
def test_event_log_drops_a_torn_line_and_repeated_steps(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.log_metrics({"valid/cer": 0.5}, step=10)
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"timestamp_ms": 1, "metr')
    assert len(read_events(tmp_path)) == 1

    again = EventLog(tmp_path, resume=True)
    again.log_metrics({"valid/cer": 0.4, "epoch": 1}, step=10)
    again.log_metrics({"valid/cer": 0.3}, step=20)
    recorded = [(e["step"], e["metrics"]) for e in read_events(tmp_path)]
    assert recorded == [(10, {"valid/cer": 0.5}), (10, {"epoch": 1}), (20, {"valid/cer": 0.3})]

    EventLog(tmp_path)
    assert read_events(tmp_path) == []


@pytest.mark.quick
def test_artifacts_lie_under_the_directory(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not in the subpath"):
        EventLog(tmp_path / "trial").log_artifact(tmp_path / "elsewhere.txt")
