"""Sweeps to compare and export, and golden files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from analysis.facts.comparison import Comparison, comparison
from tests.analysis.fakes import SPEAKERS, START_MS, FakeStore, hypotheses, stored_trial
from tests.conftest import ROOT
from trainer.tracking.mlflow_store import StoredRun

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def make_store() -> Callable[..., FakeStore]:
    """Builds a store of one sweep from its trials."""

    def build(
        trials: Sequence[StoredRun],
        base: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        artifacts: Mapping[tuple[str, str], str] | None = None,
    ) -> FakeStore:
        parent = StoredRun(
            run_id="parent",
            name="demo",
            status="FINISHED",
            started_ms=START_MS,
            ended_ms=START_MS + 200_000,
            tags={"kind": "sweep", "sweep": "demo", **(tags or {})},
            params={},
            metrics=base if base is not None else {},
        )
        return FakeStore(parent, trials, artifacts or {})

    return build


@pytest.fixture
def demo_store(make_store: Callable[..., FakeStore]) -> FakeStore:
    """Eight trials of three stages that ended in every way there is."""
    oom = {"outcome.reason": "out of memory in epoch 1:\n  tried to allocate 2 GB"}
    return make_store(
        [
            stored_trial(0, "8k", 5e-4, "completed", (90, 20, 10), baseline=True),
            stored_trial(1, "s1", 1e-3, "completed", (150, 30, 20), baseline=True),
            stored_trial(2, "s3", 2e-4, "completed", (200, 60, 40), baseline=True),
            stored_trial(3, "8k", 1.234e-3, "completed", (60, 15, 5), epochs=8),
            stored_trial(4, "8k", 1.1e-5, "pruned", (500, 80, 20), epochs_run=2),
            stored_trial(5, "s1", 9e-3, "failed", tags=oom),
            stored_trial(6, "s3", 4e-3, "killed", (300, 50, 50), epochs_run=3),
            stored_trial(7, "s1", 3e-4, "running", (350, 50, 50), epochs_run=1),
        ],
        base={"base/valid/cer": 0.72, "base/valid/cer_ctc": 0.6, "base/wideband/cer": 0.13}
        | {"base/test/cer": 0.74, "elapsed_s": 200.0}
        | {"base/valid/substitutions": 600.0, "base/valid/deletions": 90.0}
        | {"base/valid/insertions": 30.0},
    )


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Two utterances of each speaker, by telephone and by radio."""
    path = tmp_path / "valid.jsonl"
    lines = (
        {"key": f"valid-{i}", "source": "a.wav", "target": "一", "speaker_id": SPEAKERS[i // 2]}
        | {"codec": ("gsm", "amr")[i % 2], "snr_db": i, "source_len": 100 * (i + 1)}
        for i in range(12)
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def scored_store(make_store: Callable[..., FakeStore], manifest: Path, tmp_path: Path) -> FakeStore:
    """A baseline, a better trial, one of other data, and two repetitions of the baseline."""
    errors = {
        0: [3, 3, 2, 4, 3, 3, 4, 2, 5, 3, 3, 4],
        1: [2, 3, 1, 3, 2, 2, 3, 1, 3, 2, 2, 3],
        2: [0] * 11 + [1],
        3: [3, 3, 2, 4, 3, 3, 4, 2, 5, 3, 3, 3],
        4: [3, 3, 2, 4, 3, 3, 4, 2, 5, 3, 4, 4],
    }
    trials = []
    for number, wrong in errors.items():
        tags = {"data.sha256": ("other" if number == 2 else "usual") * 4, "scoring": "chars-1"}
        if number > 2:
            tags["replicate.of"] = "0"
        cer = sum(wrong) / 120
        trial = stored_trial(
            number,
            "8k",
            1e-3 * (number + 1),
            "completed",
            (sum(wrong), 0, 0),
            baseline=number == 0,
            tags=tags,
            metrics={"valid/cer": cer, "objective": cer, "test/cer": cer},
        )
        trial.params["valid_data_set_list"] = str(manifest)
        trials.append(trial)
    artifacts = {
        (f"run{number:02}", "hypotheses/valid.jsonl"): hypotheses(wrong)
        for number, wrong in errors.items()
    }
    for number in (0, 1):
        artifacts[f"run{number:02}", "hypotheses/test.jsonl"] = hypotheses(
            errors[number], split="test"
        )
    (tmp_path / "base/hypotheses").mkdir(parents=True)
    (tmp_path / "base/hypotheses/valid.jsonl").write_text(hypotheses([6] * 12), encoding="utf-8")
    tags = {"sweep.dir": str(tmp_path)}
    store = make_store(trials, {"base/valid/cer": 0.6, "base/test/cer": 0.6}, tags, artifacts)
    steps = [(0, 0.9), (10, 0.5), (15, 0.45), (20, 0.4), (21, 0.5)]
    store.histories = {
        ("run01", "valid/cer"): steps,
        ("run01", "epoch"): [(0, 0), (10, 1), (20, 2), (21, 2)],
    }
    return store


@pytest.fixture
def demonstration() -> Comparison:
    """The sweep of the README's first command, from what the store held of it."""
    records: list[dict[str, Any]] = json.loads(
        (ROOT / "tests/data/demonstration.json").read_text(encoding="utf-8")
    )
    parent, *trials = [
        StoredRun(run_id=f"run{number}", started_ms=START_MS, ended_ms=START_MS + 1000, **record)
        for number, record in enumerate(records)
    ]
    return comparison("demo", FakeStore(parent, trials, {}))


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compares a text with a file in tests/golden; `WRITE_GOLDEN=1` writes the file anew."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if os.environ.get("WRITE_GOLDEN"):
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return check
