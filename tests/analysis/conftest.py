"""Sweeps to compare and export, and golden files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.analysis.fakes import START_MS, FakeStore, stored_trial
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
def golden() -> Callable[[str, str], None]:
    """Compares a text with a file in tests/golden; `WRITE_GOLDEN=1` writes the file anew."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if os.environ.get("WRITE_GOLDEN"):
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return check
