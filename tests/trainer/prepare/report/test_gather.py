"""The facts of a directory, by equality: nothing is drawn here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conf.errors import DataError
from tests.trainer.prepare.report.made import line, write_prepared
from trainer.prepare.report.facts import Crossing, Rule
from trainer.prepare.report.gather import gather

pytestmark = pytest.mark.quick


def test_a_split_is_counted(tmp_path: Path) -> None:
    write_prepared(
        tmp_path,
        {
            "train": [
                line("a", "你好，OK 12", speaker_id="x", call="1", duration_s=2.0, codec="ULAW"),
                line("b", "再见", speaker_id="y", call="1", duration_s=1.0, codec="ALAW"),
                line("c", "再见", speaker_id="x", duration_s=4.0, bandwidth_hz=7600.0),
                line("d", "Don't go", speaker_id=None, duration_s=1.0, sample_rate_hz=16000),
                line("e", "", duration_s=1.0),
            ]
        },
    )
    facts = gather(tmp_path)
    train = facts.split("train")
    assert train is not None
    assert facts.splits == (train,)
    assert (train.utterances, train.seconds) == (5, 9.0)
    assert (train.speakers, train.without_speaker, train.calls, train.without_call) == (2, 2, 1, 3)
    assert train.largest == (("x", 6.0), ("y", 1.0))
    assert train.scripts == {"chinese": 6, "latin": 8, "digits": 2}
    assert train.kinds == {"chinese": 2, "mixed": 1, "latin": 1, "empty": 1}
    assert train.words == 2 + 1 + 1 + 2 + 2 + 2
    assert train.rates_hz == {(8000, "narrow"): 3, (8000, "wide"): 1, (16000, "narrow"): 1}
    assert train.domains == {("telephone", "narrow"): 4, ("telephone", "wide"): 1}
    assert train.tags == {"domain": {"telephone": 5}, "codec": {"ULAW": 1, "ALAW": 1}}
    assert "snr_db" not in train.spreads
    assert train.spreads["characters_per_s"].count == 4
    assert train.spreads["characters_per_s"].most == 6.0


def test_what_splits_share_is_found(tmp_path: Path) -> None:
    long = "一二三四五六七八"
    write_prepared(
        tmp_path,
        {
            "train": [
                line("a", long, speaker_id="x", call="1", sha256="0a"),
                line("b", "您好", speaker_id="y", call="2", sha256="0b"),
            ],
            "valid": [
                line("c", f"{long}。", speaker_id="x", call="3", sha256="0c"),
                line("d", "您好", speaker_id="z", call="2", sha256="0a"),
                line("e", long, speaker_id="x", call="4", sha256="0d"),
            ],
        },
    )
    assert gather(tmp_path).crossings == (
        Crossing("calls", "train", "valid", 1, 1, 3, ("2",)),
        Crossing("speakers", "train", "valid", 1, 2, 3, ("x",)),
        Crossing("audio", "train", "valid", 1, 1, 3, ("d",)),
        # Short texts recur by chance; punctuation is not what was said.
        Crossing("texts", "train", "valid", 1, 2, 2, (f"{long}。",)),
    )


def test_repetitions_within_a_split(tmp_path: Path) -> None:
    same = [line(key, "一二三四五六七八", sha256="ff") for key in "abc"]
    write_prepared(tmp_path, {"train": same})
    [train] = gather(tmp_path).splits
    assert (train.repeated_texts, train.long_texts) == (2, 3)
    assert (train.repeated_audio, train.hashed) == (2, 3)


def test_characters(tmp_path: Path) -> None:
    write_prepared(
        tmp_path, {"train": [line("a", "好好好 你你 我")], "valid": [line("b", "好他她他")]}
    )
    found = gather(tmp_path).characters
    assert (found.distinct, found.total) == (5, 10)
    assert (found.rare_count, found.rare) == (2, (("我", 1), ("你", 2)))
    assert (found.unseen_count, found.unseen) == (2, (("他", 2), ("她", 1)))
    assert found.unspelt is None


def test_what_was_left_out_stands_by_rule(tmp_path: Path) -> None:
    out = [{"rule": "too long", "place": f"f:{n}", "text": "x", "why": "31 s"} for n in range(5)]
    out.insert(1, {"rule": "no such file", "place": "g:1", "text": None, "why": "gone"})
    write_prepared(tmp_path, {"train": [line("a", "好")]}, out)
    assert gather(tmp_path).left_out == (
        Rule("too long", 5, tuple((f"f:{n}", "x", "31 s") for n in range(3))),
        Rule("no such file", 1, (("g:1", "", "gone"),)),
    )


def test_before_the_content_pass(tmp_path: Path) -> None:
    write_prepared(tmp_path, {"train": [{"key": "a", "source": "a.wav", "target": "好"}]})
    [train] = gather(tmp_path).splits
    assert set(train.spreads) == {"characters"}
    assert (train.rates_hz, train.hashed, train.seconds) == ({}, 0, 0.0)


def test_frames_serve_where_there_are_no_seconds(tmp_path: Path) -> None:
    lines = [{"key": "a", "source": "a.wav", "target": "好", "source_len": 250}]
    write_prepared(tmp_path, {"train": lines})
    assert gather(tmp_path).splits[0].seconds == 2.5


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"got no train\.jsonl, expected what prepare wrote"):
        gather(tmp_path)
    (tmp_path / "train.jsonl").write_text(json.dumps(line("a", "好")) + "\n\n[1]\n")
    with pytest.raises(DataError, match=r"train\.jsonl:3: got list, expected a JSON object"):
        gather(tmp_path)
    (tmp_path / "train.jsonl").write_text("{")
    with pytest.raises(DataError, match=r"train\.jsonl:1: got no JSON"):
        gather(tmp_path)
    (tmp_path / "train.jsonl").write_text("{}\n")
    (tmp_path / "prepare.json").write_text("{")
    with pytest.raises(DataError, match=r"prepare\.json: got no JSON"):
        gather(tmp_path)
