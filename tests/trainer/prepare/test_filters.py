"""The rules that leave out what can be read, by name; each can be switched off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trainer.prepare.given import write_lines, write_wav
from tests.trainer.prepare.prepared import kept, run
from trainer.prepare import filters
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


@pytest.mark.parametrize(
    ("text", "settings", "target"),
    [
        ("你 好  世界 hello 世 界", {}, "你好世界 hello 世界"),
        ("你 好", {"keep_spaces": True}, "你 好"),
        ("Hello, it's me!", {"spoken": True}, "hello it's me"),
        ("Hello, it's 10086!", {}, "Hello, it's 10086!"),
    ],
)
def test_targets(tmp_path: Path, text: str, settings: dict[str, bool], target: str) -> None:
    write_wav(tmp_path / "a.wav")
    given = write_lines(tmp_path / "m.jsonl", {"source": "a.wav", "target": text})
    run(tmp_path / "out", given, **settings)
    assert [line["target"] for line in kept(tmp_path / "out").values()] == [target]
