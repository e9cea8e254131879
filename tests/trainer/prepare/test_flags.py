"""The command's flags, and the settings that they say."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from conf.errors import UserError
from trainer.__main__ import main
from trainer.prepare import filters
from trainer.prepare.flags import EXAMPLES, add_to, settings
from trainer.prepare.settings import Given, Settings

pytestmark = pytest.mark.quick


def said(*flags: str) -> Settings:
    parser = argparse.ArgumentParser()
    add_to(parser)
    return settings(parser.parse_args(["--output_dir", "out", *flags]))


def test_without_flags_the_settings_are_the_usual_ones() -> None:
    assert said("--input", "a.jsonl") == Settings(given=(Given(Path("a.jsonl")),))


def test_every_kind_of_input() -> None:
    found = said(
        *("--input", "a.jsonl", "b.csv", "--test", "c.jsonl"),
        *("--wav_dir", "sounds", "--transcripts", "names.txt"),
        *("--wav_scp", "wav.scp", "--text", "text", "--utt2spk", "speakers"),
    )
    beside = (("text", Path("text")), ("utt2spk", Path("speakers")))
    assert found.given == (
        Given(Path("a.jsonl")),
        Given(Path("b.csv")),
        Given(Path("c.jsonl"), "test"),
        Given(Path("names.txt"), wav_dir=Path("sounds")),
        Given(Path("wav.scp"), beside=beside),
    )


def test_flags_that_are_read_before_they_are_settings() -> None:
    found = said(
        *("--input", "x", "--column", "target=text", "--map_path", "D:\\calls=/srv"),
        *("--keep", "too_long", "annotators_mark", "--rate", "8000", "--encoding", "GBK"),
        "--no_scan",
    )
    assert found.columns == (("target", "text"),)
    assert found.map_paths == (("D:\\calls", "/srv"),)
    assert found.keep == ("annotator's mark", "too long")
    assert (found.rates_hz, found.encoding, found.scan) == ((8000,), "gbk", False)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "prepare: got nothing to read"),
        (["--wav_scp", "x"], "one of --wav_scp and --text"),
        (["--wav_dir", "x"], "one of --wav_dir and --transcripts"),
        (["--input", "x", "--column", "target"], "--column: got 'target'"),
        (["--input", "x", "--encoding", "utf-16"], "--encoding: got 'utf-16'"),
        (["--input", "x", "--encoding", "no-such"], "--encoding: got 'no-such'"),
        (["--input", "x", "--valid_share", "1"], "--valid_share: got 1.0"),
        (["--input", "x", "--valid_share", "0.5", "--test_share", "0.5"], "below 1 together"),
        (["--input", "x", "--keep", "everything"], "--keep: got 'everything', expected one of"),
        (["--input", "x", "--workers", "0"], "--workers: got 0, expected 1 or more"),
        (["--input", "x", "--min_s", "2", "--max_s", "1"], "--min_s: got 2, expected less than"),
    ],
)
def test_flags(tmp_path: Path, flags: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        main(["prepare", "--output_dir", str(tmp_path / "out"), *flags])
    assert message in str(caught.value)


def test_the_help_names_every_rule_that_can_be_switched_off() -> None:
    for rule in filters.CHOICES:
        assert filters.flag_name(rule) in EXAMPLES
    assert not set(filters.CHOICES) & set(filters.BAD_INPUT)
