"""A sweep's base and its trials without Ray: real fine-tunes, one decoding of the base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sweeps.directory import SweepDirectory
from sweeps.execute.base_scores import BaseScores
from sweeps.spec.sweep_file import load_sweep
from sweeps.trial import run_trial
from sweeps.trial_state import TrialState
from tests.conftest import BASE, write_cut

SWEEP = f"""\
name: small
base: {BASE}
data: {{train: train.jsonl, valid: valid.jsonl, test: test.jsonl, wideband: wideband.jsonl}}
stages: [8k, s1, s3]
set:
  dataset_conf.batch_type: example
  dataset_conf.batch_size: 8
  dataset_conf.num_workers: 0
  train_conf.max_epoch: 1
  finetune_conf.max_new_tokens: 32
space:
  optim_conf.lr: {{low: 1e-4, high: 1e-2, log: true}}
trials: 3
"""
COUNTS = {"train": 8, "valid": 6, "test": 3, "wideband": 4}


def test_the_base_is_decoded_once_for_its_own_scores_and_all_trials(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once more at the rate of s1; whoever comes first, all have the same figures."""
    monkeypatch.chdir(tmp_path)
    for split, count in COUNTS.items():
        write_cut(corpus, split, count, tmp_path / f"{split}.jsonl")
    Path("sweep.yaml").write_text(SWEEP, encoding="utf-8")
    sweep, _ = load_sweep(Path("sweep.yaml"))
    directory = SweepDirectory.of(sweep.name)
    directory.create(sweep)
    before = {}
    with BaseScores(directory, sweep) as base:
        for number, stage in enumerate(sweep.stages):
            state = TrialState(number, stage, baseline=True, epochs=1, values={})
            directory.write_trial(state, {})
            reports: list[dict[str, Any]] = []
            run_trial(directory.root, number, reports.append)
            assert reports[-1]["outcome"] == "completed", reports
            before[stage] = reports[0]["value"]
        base.wait()
        assert before["8k"] == before["s3"] == base.metrics()["valid/cer"] != before["s1"]
    texts = [json.loads(path.read_text())["texts"] for path in directory.shared.glob("*.json")]
    sets = [COUNTS[split] for split in ("valid", "valid", "wideband", "wideband", "test")]
    assert sorted(map(len, texts)) == sorted(sets)
    said = (directory.trial(2) / "trial.log").read_text(encoding="utf-8")
    assert "6 texts of the untouched model: read from" in said
