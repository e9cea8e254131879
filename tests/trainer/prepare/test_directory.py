"""Whose the output directory is, and what is kept in it while the work goes on."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from conf.errors import UserError
from tests.trainer.prepare.given import corpus, write_lines, write_wav
from tests.trainer.prepare.prepared import run
from trainer.prepare.directory import is_ours, take_audio_dir, working

pytestmark = pytest.mark.quick


def test_what_is_read_is_not_overwritten(tmp_path: Path) -> None:
    given = write_lines(tmp_path / "train.jsonl", *corpus(tmp_path, 1))
    with pytest.raises(UserError, match="train.jsonl would be overwritten, which is read"):
        run(tmp_path, given)


@pytest.mark.parametrize(("again", "goes_on"), [({"seed": 1}, True), ({"seed": 2}, False)])
def test_only_the_same_work_goes_on_from_what_was_kept(
    tmp_path: Path, again: dict[str, Any], goes_on: bool
) -> None:
    with contextlib.suppress(KeyboardInterrupt), working(tmp_path, {"seed": 1}) as around:
        (around / "headers").mkdir()
        raise KeyboardInterrupt
    with working(tmp_path, again) as around:
        assert (around / "headers").exists() == goes_on
    assert not around.exists()


def test_audio_of_an_earlier_preparation_goes_where_it_is_made_anew(tmp_path: Path) -> None:
    audio_dir = tmp_path / "wav"
    assert not is_ours(audio_dir)
    take_audio_dir(audio_dir, anew=False)
    assert is_ours(audio_dir)
    ours = write_wav(audio_dir / "train" / "a.wav", 0.1)
    take_audio_dir(audio_dir, anew=False)
    assert ours.exists()
    take_audio_dir(audio_dir, anew=True)
    assert not ours.exists()


def test_manifests_of_somebody_else_are_not_replaced(tmp_path: Path) -> None:
    given = write_lines(tmp_path / "m.jsonl", *corpus(tmp_path, 1))
    write_lines(tmp_path / "out/valid.jsonl", {})
    with pytest.raises(UserError, match=r"whose valid\.jsonl was not prepared here"):
        run(tmp_path / "out", given)


def test_recordings_of_somebody_else_are_not_replaced(tmp_path: Path) -> None:
    write_wav(tmp_path / "wav/train/side.wav", channels=2)
    line = {"key": "side", "source": "wav/train/side.wav", "target": "好", "side": "A"}
    given = write_lines(tmp_path / "all.jsonl", line)
    with pytest.raises(UserError, match="whose wav/ holds recordings that were not written here"):
        run(tmp_path, given)


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    given = write_lines(tmp_path / "m.jsonl", *corpus(tmp_path, 1))
    with (
        working(tmp_path / "out", {}),
        pytest.raises(UserError, match="is being prepared by another process"),
    ):
        run(tmp_path / "out", given)
