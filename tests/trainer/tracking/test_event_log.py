"""The event log: whole lines in order, each metric once per step."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import signal
from pathlib import Path

import pytest

from conf.errors import WorkError
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


def _log_until_the_disk_is_full(directory: Path) -> None:
    """Exits with the number of whole lines that the log says it took."""
    # The limit on a file's size cuts a write short before it is an error, as a full disk does.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
    log = EventLog(directory)
    for step in range(100):
        try:
            log.log_metrics({"train/loss": 0.5}, step=step)
        except WorkError as error:
            os._exit(step if "events.jsonl: the disk is full" in str(error) else 255)


@pytest.mark.quick
def test_a_full_disk_leaves_whole_lines_and_the_number_can_be_logged_again(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=_log_until_the_disk_is_full, args=(tmp_path,)
    )
    process.start()
    process.join()
    assert process.exitcode
    content = (tmp_path / "events.jsonl").read_bytes()
    assert content.endswith(b"\n")
    assert content.count(b"\n") == process.exitcode
    log = EventLog(tmp_path, resume=True)
    for step in range(100):
        log.log_metrics({"train/loss": 0.5}, step=step)
    assert [event["step"] for event in read_events(tmp_path)] == list(range(100))


@pytest.mark.quick
@pytest.mark.parametrize(
    "damaged",
    [
        b'{"timestamp_ms": 1, "metr{"timestamp_ms": 2, "step": 2, "metrics": {"valid/cer": 0.4}}',
        b"\0\0\0\0",
        b"\xff",
        b"[]",
        b'{"timestamp_ms": 2, "stop": 2, "metrics": {"valid/cer": 0.4}}',
        b'{"timestamp_ms": 2, "step": 2, "metrics": {"valid/cer": "0.4"}}',
        b'{"timestamp_ms": 2, "step": 2, "metrics": 4}',
        b'{"timestamp_ms": 2, "tags": ["stage"]}',
        b'{"timestamp_ms": 2, "artifact": "config.yaml"}',
    ],
)
def test_a_damaged_line_is_named_and_passed_over(
    tmp_path: Path, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    log = EventLog(tmp_path)
    for step in (1, 2, 3):
        log.log_metrics({"valid/cer": 0.4}, step=step)
    first, _, third = (tmp_path / "events.jsonl").read_bytes().splitlines()
    (tmp_path / "events.jsonl").write_bytes(b"\n".join([first, damaged, third, b""]))
    with caplog.at_level(logging.WARNING):
        again = EventLog(tmp_path, resume=True)
    assert [record.getMessage().split(": ")[0] for record in caplog.records] == [
        f"{tmp_path / 'events.jsonl'}:2"
    ]
    for step in (1, 2, 3):
        again.log_metrics({"valid/cer": 0.4}, step=step)
    assert [event["step"] for event in read_events(tmp_path)] == [1, 3, 2]
