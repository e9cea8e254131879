"""The rules that leave out what can be read, by name; each can be switched off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import soundfile

from tests.trainer.prepare.prepared import corpus, kept, left_out, run, write_lines, write_wav
from trainer.prepare import filters
from trainer.prepare.flags import EXAMPLES
from trainer.prepare.settings import Settings

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("你好 <ANNOTATION_ERROR>", "annotation error"),
        ("你好<|nospeech|>", "annotator's mark"),
        ("<SPOKEN_NOISE> 你好", "annotator's mark"),
        ("……", "empty text"),
        ("", "empty text"),
        ("你好\ufffd", "unspeakable characters"),
        ("你好\x07", "unspeakable characters"),
        ("好的😀", "unspeakable characters"),
        ("好的\ue000", "unspeakable characters"),
        ("好的♪", "unspeakable characters"),
    ],
)
def test_texts(text: str, rule: str) -> None:
    plain = Settings(given=())
    found = filters.against_text(text, plain)
    assert found is not None
    assert found[0] == rule
    assert filters.against_text(text, Settings(given=(), keep=(rule,))) is None


@pytest.mark.parametrize(
    "text",
    [
        "今天 25℃，湿度 60%。",
        "请按#号键",
        "é ñ ü ß — “好”《书》",
        "№ 7",
        "90°",
        "ไทย हिन्दी",
        "한국어",
        "a\tb",
        "𠮷野家",
        "10086@qq.com",
    ],
)
def test_what_can_be_said_is_kept(text: str) -> None:
    assert filters.against_text(text, Settings(given=())) is None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("press # now", "symbols without a spoken form"),
        ("in 1999", "numeral that can be read in several ways"),
        ("it is 3.5", "numeral that can be read in several ways"),
        ("option 3", None),
    ],
)
def test_spoken_texts_say_how_they_are_spoken(text: str, rule: str | None) -> None:
    found = filters.against_text(text, Settings(given=(), spoken=True))
    assert (found and found[0]) == rule


@pytest.mark.parametrize(
    ("duration_s", "text", "changes", "rule"),
    [
        (0.09, "好", {}, "too short"),
        (0.1, "好", {}, None),
        (2.0, "好", {"min_s": 2.5}, "too short"),
        (30.01, "好" * 60, {}, "too long"),
        (30.0, "好" * 60, {}, None),
        (1.0, "好" * 31, {}, "characters per second"),
        (1.0, "好" * 13, {"max_chars_per_s": 12}, "characters per second"),
        (20.0, "好，好。" * 1, {}, "characters per second"),
        (20.0, "", {}, None),
        (1.0, "好", {"rates_hz": (16000,)}, "sample rate"),
        (1.0, "好", {"rates_hz": (16000, 8000)}, None),
    ],
)
def test_lengths(duration_s: float, text: str, changes: dict[str, Any], rule: str | None) -> None:
    settings = Settings(given=(), **changes)
    found = filters.against_length(duration_s, 8000, text, settings)
    assert (found and found[0]) == rule
    if rule:
        keep = Settings(given=(), **changes, keep=(rule,))
        assert filters.against_length(duration_s, 8000, text, keep) is None


def test_equal_recordings_and_silent_ones(tmp_path: Path) -> None:
    made = corpus(tmp_path, 2)
    samples, rate_hz = soundfile.read(made[0]["source"])
    copy = tmp_path / "copy.flac"  # the content counts, not the file
    soundfile.write(copy, samples, rate_hz)
    silent = write_wav(tmp_path / "silent.wav", seed=None)
    more = [
        {"key": key, "source": str(path), "target": "好"}
        for key, path in (("copy", copy), ("silent", silent))
    ]
    given = write_lines(tmp_path / "m.jsonl", *made, *more)
    run(tmp_path / "out", given, valid_share=0.0)
    assert [(line["key"], line["rule"]) for line in left_out(tmp_path / "out")] == [
        ("copy", "duplicate content"),
        ("silent", "no sound"),
    ]
    assert f"got it also at {given}:1" in left_out(tmp_path / "out")[0]["why"]
    run(tmp_path / "out", given, keep=("duplicate content", "no sound"))
    assert len(kept(tmp_path / "out")) == 4
    run(tmp_path / "out", given, scan=False)
    assert len(kept(tmp_path / "out")) == 4


def test_stereo_may_be_mixed_where_that_is_asked(tmp_path: Path) -> None:
    write_wav(tmp_path / "stereo.wav", channels=2)
    line = {"key": "k", "source": "stereo.wav", "target": "你好"}
    given = write_lines(tmp_path / "m.jsonl", line)
    run(tmp_path / "out", given, keep=("stereo without a side",))
    found = kept(tmp_path / "out")["k"]
    assert found["source"] == str(tmp_path / "stereo.wav")
    mono = soundfile.read(tmp_path / "stereo.wav")[0].mean(axis=1)
    rms = 20 * numpy.log10(numpy.sqrt((mono**2).mean()))
    assert found["level_dbfs"] == pytest.approx(rms, abs=0.01)


@pytest.mark.parametrize(("cutoff_hz", "rate_hz"), [(3400, 16000), (7000, 16000), (3400, 44100)])
def test_bandwidth_is_that_of_the_sound(tmp_path: Path, cutoff_hz: int, rate_hz: int) -> None:
    noise = numpy.random.default_rng(1).standard_normal(2 * rate_hz)
    spectrum = numpy.fft.rfft(noise)
    spectrum[numpy.fft.rfftfreq(len(noise), 1 / rate_hz) > cutoff_hz] = 0
    soundfile.write(tmp_path / "a.wav", 0.1 * numpy.fft.irfft(spectrum), rate_hz)
    given = write_lines(tmp_path / "m.jsonl", {"key": "k", "source": "a.wav", "target": "你好吗"})
    run(tmp_path / "out", given)
    assert kept(tmp_path / "out")["k"]["bandwidth_hz"] == pytest.approx(cutoff_hz, abs=130)


def test_clipped_samples_are_counted(tmp_path: Path) -> None:
    samples = numpy.clip(2 * numpy.sin(numpy.arange(8000)), -1, 1)
    # G.711 does not reach full scale.
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype="ULAW")
    given = write_lines(tmp_path / "m.jsonl", {"key": "k", "source": "a.wav", "target": "你好吗"})
    run(tmp_path / "out", given)
    assert kept(tmp_path / "out")["k"]["clipped"] == pytest.approx(2 / 3, abs=0.02)


def test_the_help_names_every_rule_that_can_be_switched_off() -> None:
    for rule in filters.CHOICES:
        assert filters.flag_name(rule) in EXAMPLES
    assert not set(filters.CHOICES) & set(filters.BAD_INPUT)
