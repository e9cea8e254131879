"""A dry run says what a sweep will take where neither its weights nor its GPUs are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from conf.errors import UserError
from sweeps.console.cost_forecast import _hours
from sweeps.console.dry_run import dry_run
from sweeps.preflight import check
from sweeps.spec.sweep_file import load_sweep
from tests.conftest import BASE, ROOT

TELEPHONE = ROOT / "conf" / "sweep" / "telephone.yaml"


@pytest.mark.quick
def test_hours_of_all_trials_on_so_many_gpus() -> None:
    sweep, _ = load_sweep(TELEPHONE, overrides=["concurrency=3"])
    plan = [("8k", 10), ("8k", 20), ("s3", 5)]
    assert _hours(sweep, plan, {"8k": 360.0, "s3": 36.0}) == (
        "sweep: 3 trials, 35 epochs in 3.0 h if none is pruned (at least 25 min however early they "
        "are pruned); with 1 GPU 3.0 h, 2 GPUs 2.0 h, 3 GPUs 2.0 h"
    ), "the longest trial alone takes two hours"


@pytest.mark.quick
def test_hours_without_pruning_or_gpus() -> None:
    overrides = ["concurrency=1", "pruning.method=none", "resources.gpu=0"]
    sweep, _ = load_sweep(TELEPHONE, overrides=overrides)
    assert _hours(sweep, [("s2", 2)], {"s2": 30.0}) == (
        "sweep: 1 trials, 2 epochs in 60 s if none is pruned; with 1 at once 60 s"
    )


def test_a_dry_run_needs_neither_weights_nor_gpus(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """To start, both are needed, and said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    shutil.copytree(BASE, tmp_path / "model", ignore=shutil.ignore_patterns("model.pt"))
    for split in ("train", "valid"):
        lines = (corpus / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()[:12]
        records = [json.loads(line) for line in lines]
        for record in records:
            record["source"] = str(corpus / record["source"])
        text = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / f"{split}.jsonl").write_text(text, encoding="utf-8")
    overrides = [
        *("base=model", "data.train=train.jsonl", "data.valid=valid.jsonl", "data.test=null"),
        *("data.wideband=null", "stages=[s3]", "trials=2", "resources.cpu=1"),
    ]
    assert dry_run(TELEPHONE, overrides=overrides, tflops=2.0) == 0
    printed = capsys.readouterr().out
    assert "missing here: command line: base: got 'model' (no model.pt)" in printed
    assert "missing here: " in printed.partition("resources.gpu: got 1")[0]
    assert "which fits 24, 40 and 80 GB; at full size" in printed
    assert "operations counted, at 2 TFLOP/s a GPU" in printed
    with pytest.raises(UserError) as caught:
        check(TELEPHONE, overrides=overrides)
    assert len(caught.value.problems) == 2
