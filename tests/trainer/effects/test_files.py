"""The files of the proof: written, or told to be stale."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from conf.effects import EFFECTS, EFFECTS_FILE, PARAMETERS_FILE
from conf.errors import UserError
from conf.load import STAGES
from trainer.effects import files
from trainer.effects.prove import Row
from trainer.funasr_parts import version


@pytest.mark.quick
def test_the_file_is_of_the_funasr_that_is_installed() -> None:
    for path in (EFFECTS_FILE, PARAMETERS_FILE):
        proven = yaml.safe_load(path.read_text(encoding="utf-8"))["funasr"]
        assert proven == version(), f"{path} is of FunASR {proven}: run `python -m trainer effects`"


@pytest.mark.slow
def test_the_committed_files_are_what_the_proof_makes(corpus: Path) -> None:
    assert files.write_or_check(check=True, corpus=corpus) == 0


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of their own, and one row that is proven at once."""
    row = Row(
        {stage: "here" for stage in STAGES}, ("trainer/model/losses.py:Objective",), "changes loss"
    )
    for name in ("EFFECTS_FILE", "PARAMETERS_FILE"):
        monkeypatch.setattr(files, name, tmp_path / f"{name}.yaml")
    monkeypatch.setattr(files, "ensure", lambda directory: directory)
    monkeypatch.setattr(files, "make_scene", lambda *_: None)
    monkeypatch.setattr(files, "prove", lambda *_, **__: {"ctc_weight": row})
    counts = {"8k": {"ctc": {"parameters": 3, "trainable": 2}}}
    monkeypatch.setattr(files, "count_parameters", lambda: counts)
    return tmp_path


@pytest.mark.quick
def test_check_tells_a_stale_file(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert files.write_or_check(check=True) == 1
    assert files.write_or_check() == 0
    assert files.write_or_check(check=True) == 0
    path = places / "EFFECTS_FILE.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("8k: here", "8k: both"))
    capsys.readouterr()
    assert files.write_or_check(check=True) == 1
    assert "stale, expected 'stages: {8k: here" in capsys.readouterr().err


@pytest.mark.quick
def test_what_is_written_is_what_conf_reads(places: Path) -> None:
    files.write_or_check()
    written = yaml.safe_load((places / "EFFECTS_FILE.yaml").read_text(encoding="utf-8"))
    assert written["funasr"] == version()
    assert set(written["keys"]["ctc_weight"]["stages"].values()) <= set(EFFECTS)


@pytest.mark.quick
def test_an_unknown_stage_is_one_line() -> None:
    with pytest.raises(UserError, match="--stage: got 's9', expected one of 8k, s1, s2, s3"):
        files.write_or_check(["s9"])
