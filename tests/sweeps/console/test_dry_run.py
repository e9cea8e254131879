"""A dry run: what a sweep would try, and what it will take, without weights, GPUs or a trace."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from conf.errors import UserError
from sweeps import preflight
from sweeps.console.dry_run import dry_run
from sweeps.console.view import short_number
from sweeps.preflight import check, data_places
from tests.conftest import BASE, ROOT, write_cut
from tests.sweeps.driving import run_command
from tests.sweeps.study_kit import driver, must_ask
from trainer.checks.gpu_forecast import SPARE, memory

TELEPHONE = ROOT / "conf" / "sweep" / "telephone.yaml"


@pytest.mark.quick
def test_a_dry_run_shows_what_would_be_drawn_and_starts_nothing(place: Path) -> None:
    weights = place / "model/model.pt"
    weights.unlink()  # no real ones, which would be looked at
    result = run_command("--dry-run", "trials=5")
    weights.touch()
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
    assert re.search(r"memory for .* \d+ MB in training, \d+ MB in evaluation, which fits", printed)
    assert "on the CPU" not in printed
    assert "operations counted, at 2 TFLOP/s a GPU" in printed
    with pytest.raises(UserError) as caught:
        check(TELEPHONE, overrides=overrides)
    assert len(caught.value.problems) == 2


def test_trials_that_a_card_does_not_hold_are_refused_before_anything_starts(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card that two trials share; then one that holds training and not evaluation."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    for split in ("train", "valid"):
        write_cut(corpus, split, 12, tmp_path / f"{split}.jsonl")
    overrides = [
        *(f"base={BASE}", "data.train=train.jsonl", "data.valid=valid.jsonl", "data.test=null"),
        *("data.wideband=null", "stages=[s3]", "trials=2", "resources.cpu=1", "concurrency=2"),
    ]
    sweep, configs, _ = check(TELEPHONE, overrides=overrides)
    need = memory(configs["s3"].replace(data_places(sweep), "sweep"))
    monkeypatch.setattr(preflight, "card_bytes", lambda: int(1.5 * need.peak / (1 - SPARE)))
    check(TELEPHONE, overrides=overrides)
    with pytest.raises(UserError, match=r"resources.gpu: got 0.5: 2 trials of stage s3 on a GPU"):
        check(TELEPHONE, overrides=[*overrides, "resources.gpu=0.5"], starts=False)
    long_texts = [*overrides, "set.finetune_conf.max_new_tokens=4000"]
    with pytest.raises(UserError, match=r"in evaluation, .* finetune_conf.eval_batch_size needs"):
        check(TELEPHONE, overrides=long_texts)
