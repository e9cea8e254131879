"""Each warning: what raises it, and that ordinary data raises none."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from conf.document.language import CHINESE, ENGLISH
from tests.trainer.prepare.report.made import line, write_prepared
from trainer.prepare.report import gather
from trainer.prepare.report.pages import html, markdown
from trainer.prepare.report.warnings import Concern, concerns

pytestmark = pytest.mark.quick

Lines = list[dict[str, Any]]
Splits = dict[str, Lines]


def ordinary() -> Splits:
    """Calls of many speakers, of which nothing is to be said."""
    return {
        split: [
            line(
                f"{split}-{n}",
                f"请问{day}第{n}号套餐多少钱",
                duration_s=4.0,
                speaker_id=f"{split}-{n % 8}",
                call=f"{split}-{n // 4}",
            )
            for n in range(count)
        ]
        for split, count, day in (("train", 300, "今天"), ("valid", 160, "明天"), ("test", 160, ""))
    }


def _set(split: str, share: float, **values: Any) -> Callable[[Splits], None]:
    """Changes a share of a split's lines."""

    def change(splits: Splits) -> None:
        lines = splits[split]
        for record in lines[: int(share * len(lines))]:
            record.update(values)

    return change


def _no_valid(splits: Splits) -> None:
    del splits["valid"]


def _no_train(splits: Splits) -> None:
    splits["train"].clear()


def _few(splits: Splits) -> None:
    del splits["valid"][20:]
    for record in splits["valid"]:
        record["speaker_id"] = "v"


def _copy(*names: str) -> Callable[[Splits], None]:
    """The validation set takes some values of the training set's lines."""

    def change(splits: Splits) -> None:
        for mine, theirs in zip(splits["valid"], splits["train"], strict=False):
            mine.update({name: theirs[name] for name in names})

    return change


def _without(*names: str) -> Callable[[Splits], None]:
    def change(splits: Splits) -> None:
        for lines in splits.values():
            for record in lines:
                for name in names:
                    del record[name]

    return change


def _mixed_rates(splits: Splits) -> None:
    _without("bandwidth_hz")(splits)
    _set("valid", 0.5, sample_rate_hz=16000)(splits)


CASES: Mapping[str, tuple[str, bool, Callable[[Splits], None], str]] = {
    "no validation set": ("no validation set", True, _no_valid, "There is no validation set"),
    "no training set": ("no training set", True, _no_train, "The training set is empty"),
    "few utterances": (
        "small validation set",
        False,
        _few,
        "is small: 20 utterances, 1m20s of speech, 1 speakers.",
    ),
    "calls": ("calls in two splits", True, _copy("call"), "40 calls are in train and in valid"),
    "speakers": (
        "speakers in two splits",
        False,
        _copy("speaker_id"),
        "8 speakers are in train and in valid (160 utterances of valid, 100.0 %)",
    ),
    "audio": ("audio in two splits", True, _copy("sha256"), "160 recordings are in train and"),
    "texts": ("texts in two splits", False, _copy("target"), "100.0 % of the long texts of valid"),
    "clipping": (
        "clipping",
        False,
        _set("train", 0.02, clipped=0.001),
        "train: 6 utterances (2.0 %) are clipped",
    ),
    "quiet": (
        "quiet recordings",
        False,
        _set("valid", 0.1, level_dbfs=-50.0),
        "16 utterances (10.0 %) are below -45 dBFS",
    ),
    "narrow in wide": (
        "narrow band in wide files",
        False,
        _set("train", 0.5, sample_rate_hz=16000),
        "train: 150 of 150 utterances whose files say 16 kHz or more (100.0 %)",
    ),
    "mixed bands": (
        "mixed bands",
        False,
        _set("train", 0.1, bandwidth_hz=7800.0, domain="meeting"),
        "270 utterances are of the telephone's band, 30 are wider",
    ),
    "mixed rates": (
        "mixed sample rates",
        False,
        _mixed_rates,
        "valid: files are of several sample rates (8000, 16000 Hz)",
    ),
    "no telephone": (
        "labelled telephone and is not",
        False,
        _set("train", 0.02, bandwidth_hz=6000.0),
        "6 utterances (2.0 %) are labelled as telephone speech",
    ),
    "no wideband": (
        "labelled wideband and is not",
        True,
        _set("train", 0.02, domain="wideband"),
        "6 utterances (100.0 %) are labelled as wideband speech",
    ),
    "fast": (
        "more text than time",
        False,
        _set("train", 0.02, duration_s=0.9),
        "6 utterances (2.0 %) say 10 words",
    ),
    "slow": (
        "less text than time",
        False,
        _set("train", 0.1, target="嗯"),
        "30 utterances (10.0 %) say less than 0.5 words",
    ),
    "long": (
        "long recordings",
        False,
        _set("train", 0.01, duration_s=61.0),
        "3 utterances last 30 s or more, the longest 1m01s",
    ),
    "short": (
        "short recordings",
        False,
        _set("train", 0.1, duration_s=0.4, target="好"),
        "30 utterances (10.0 %) last less than 0.5 s",
    ),
    "one speaker": (
        "one speaker dominates",
        False,
        _set("train", 0.5, speaker_id="train-0"),
        "% of the training set are of one speaker (train-0)",
    ),
    "nobody": (
        "neither speakers nor calls",
        False,
        _without("speaker_id", "call"),
        "train: 300 utterances (100.0 %) name neither",
    ),
    "repeated": (
        "repeated recordings",
        False,
        _set("train", 0.02, sha256="ab"),
        "train: 5 utterances are recordings that stand there already",
    ),
    "level": (
        "splits are not alike",
        False,
        _set("valid", 1.0, level_dbfs=-35.0),
        "valid has another level than train: -35 dBFS against -24",
    ),
    "band": (
        "splits are not alike",
        False,
        _set("test", 1.0, bandwidth_hz=7800.0, domain="meeting"),
        "test has another band than train: 0 % telephone band against 100 %",
    ),
    "not scanned": (
        "not looked at",
        False,
        _without("bandwidth_hz", "level_dbfs", "peak_dbfs", "clipped", "sha256"),
        "Nobody looked at: bandwidth_hz, level_dbfs, peak_dbfs, clipped, sha256",
    ),
}


def _found(directory: Path, splits: Splits, **values: Any) -> tuple[Concern, ...]:
    return concerns(gather.gather(write_prepared(directory, splits, **values)))


def test_ordinary_data_raise_none(tmp_path: Path) -> None:
    assert _found(tmp_path, ordinary()) == ()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_warning(
    tmp_path: Path, case: tuple[str, bool, Callable[[Splits], None], str]
) -> None:
    name, grave, change, said = case
    splits = ordinary()
    change(splits)
    found = [concern for concern in _found(tmp_path, splits) if concern.name == name]
    assert any(said in str(concern.found) for concern in found), found
    assert all(concern.grave == grave for concern in found)
    for concern in found:
        for part in (concern.found, concern.means, concern.advice):
            assert re.search(r"[\u4e00-\u9fff]", CHINESE(part)), str(part)


def test_much_left_out(tmp_path: Path) -> None:
    out = [{"rule": "a rule of tomorrow", "text": "x", "why": "{y}", "place": "z"}] * 100
    [found] = _found(tmp_path, ordinary(), left_out=out)
    assert found.name == "much was left out"
    assert "100 lines (13.9 %) were left out, most of them by one rule: a rule of tomorrow" in str(
        found.found
    )
    # A rule without a translation keeps its name.
    assert "a rule of tomorrow" in CHINESE(found.found)


def test_characters_that_a_model_cannot_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").touch()
    monkeypatch.setattr(gather, "unspelt_by", lambda _, counts: {"LLM": (), "CTC": (("号", 9),)})
    [found] = _found(tmp_path, ordinary(), settings={"model": str(tmp_path)})
    assert found.grave
    assert str(found.found) == "The CTC tokenizer does not give back 1 characters (9 times): 号"


def test_grave_ones_come_first_in_both_forms(tmp_path: Path) -> None:
    splits = ordinary()
    _few(splits)
    _copy("call")(splits)
    known = gather.gather(write_prepared(tmp_path, splits))
    found = concerns(known)
    assert [concern.grave for concern in found] == sorted(
        (concern.grave for concern in found), reverse=True
    )
    for words in (ENGLISH, CHINESE):
        page = html(known, found, [], [], words)
        text = markdown(known, found, words, "data_report.html")
        for said in (page, text):
            places = [said.index(words(concern.found)) for concern in found]
            assert places == sorted(places)
            assert said.count(words("[grave] ")) == sum(concern.grave for concern in found)
            assert places[-1] < said.index("| :--" if said is text else "<table")
