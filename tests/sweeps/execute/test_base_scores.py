"""The base's own scores: evaluated once, in a process beside the sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweeps.directory import SweepDirectory
from sweeps.execute.base_scores import BaseScores, evaluate_command
from sweeps.execute.orphans import end_marked, marked
from sweeps.spec.sweep_file import load_sweep
from tests.conftest import until

pytestmark = pytest.mark.quick


def test_the_base_is_decoded_as_the_trials_are(place: Path) -> None:
    """The sets that trials are scored on, and what decides how; not what they train with."""
    overrides = ["data.wideband=data/train.jsonl", "finetune_conf.max_new_tokens=32"]
    sweep, _ = load_sweep(Path("sweep.yaml"), overrides=overrides)
    directory = SweepDirectory(place / "tiny")
    command = evaluate_command(sweep, directory)
    assert command[2:6] == ["trainer", "evaluate", "--model", "model"]
    asked = command[command.index("--data") + 1 : command.index("--output_dir")]
    assert asked == ["valid=data/valid.jsonl", "wideband=data/train.jsonl"]
    assert command[command.index("--shared") + 1] == str(directory.shared)
    assert command[-2:] == ["++frontend_conf.dither=0.0", "++finetune_conf.max_new_tokens=32"]


def test_scores_that_are_there_are_not_made_again(place: Path) -> None:
    directory = SweepDirectory.of("tiny")
    directory.base.mkdir(parents=True)
    scores = {"valid": {"cer": 0.5, "normalization": "none"}, "wideband": {"cer": 0.1}}
    (directory.base / "scores.json").write_text(json.dumps(scores))
    with BaseScores(directory, load_sweep(Path("sweep.yaml"))[0]) as base:
        assert base.metrics() == {"valid/cer": 0.5, "wideband/cer": 0.1}
        base.wait()
        assert marked(directory.root) == []


def test_an_evaluation_that_was_killed_is_started_again(place: Path) -> None:
    """As a failed start of Ray does, which is cleared of all the sweep's processes."""
    directory = SweepDirectory.of("tiny")
    directory.root.mkdir(parents=True)
    with BaseScores(directory, load_sweep(Path("sweep.yaml"))[0]) as base:
        until(lambda: marked(directory.root))
        assert end_marked(directory.root) == 1
        base.wait()
    assert "model" in (directory.base / "evaluate.log").read_text(), "the second says what it lacks"


def test_an_evaluation_under_way_ends_with_the_sweep(place: Path) -> None:
    directory = SweepDirectory.of("tiny")
    directory.root.mkdir(parents=True)
    with BaseScores(directory, load_sweep(Path("sweep.yaml"))[0]) as base:
        until(lambda: marked(directory.root))
        assert base.metrics() == {}
    assert marked(directory.root) == []
