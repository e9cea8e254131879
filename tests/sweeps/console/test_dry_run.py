"""A dry run: what a sweep would try, and what it will take, without weights, GPUs or a trace."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conf.errors import UserError
from sweeps.console.dry_run import dry_run
from sweeps.console.view import short_number
from sweeps.preflight import check
from tests.conftest import BASE, ROOT, write_cut
from tests.sweeps.driving import run_command
from tests.sweeps.study_kit import driver, must_ask

TELEPHONE = ROOT / "conf" / "sweep" / "telephone.yaml"


@pytest.mark.quick
def test_a_dry_run_shows_what_would_be_drawn_and_starts_nothing(place: Path) -> None:
    result = run_command("--dry-run", "trials=5")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(" default") == 4
    assert "5 trials checked" in result.stdout
    assert not (place / "outputs").exists()
    headings, *rows = result.stdout.splitlines()[:6]
    assert headings.split() == ["trial", "stage", "lr", "max_epoch"]
    ledger = driver("trials=5")
    for row in rows:
        state = must_ask(ledger)
        default = ["default"] if state.baseline else []
        values = [short_number(value) for value in state.values.values()]
        assert row.split() == [str(state.number), state.stage, *default, *values]


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
        write_cut(corpus, split, 12, tmp_path / f"{split}.jsonl")
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
