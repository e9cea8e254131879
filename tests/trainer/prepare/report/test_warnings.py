"""Each warning: what raises it, and that ordinary data raises none."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Case:
    """A warning, and the change of ordinary data that raises it."""

    name: str
    change: Callable[[Splits], None]
    grave: bool = False


CASES = {
    "There is no validation set": Case("no validation set", _no_valid, grave=True),
    "The training set is empty": Case("no training set", _no_train, grave=True),
    "is small: 20 utterances, 1m20s of speech, 1 speakers.": Case("small validation set", _few),
    "40 calls are in train and in valid": Case("calls in two splits", _copy("call"), grave=True),
    "8 speakers are in train and in valid (160 utterances of valid, 100.0 %)": Case(
        "speakers in two splits", _copy("speaker_id")
    ),
    "160 recordings are in train and": Case("audio in two splits", _copy("sha256"), grave=True),
    "100.0 % of the long texts of valid": Case("texts in two splits", _copy("target")),
    "train: 6 utterances (2.0 %) are clipped": Case("clipping", _set("train", 0.02, clipped=0.001)),
    "16 utterances (10.0 %) are below -45 dBFS": Case(
        "quiet recordings", _set("valid", 0.1, level_dbfs=-50.0)
    ),
    "train: 150 of 150 utterances whose files say 16 kHz or more (100.0 %)": Case(
        "narrow band in wide files", _set("train", 0.5, sample_rate_hz=16000)
    ),
    "270 utterances are of the telephone's band, 30 are wider": Case(
        "mixed bands", _set("train", 0.1, bandwidth_hz=7800.0, domain="meeting")
    ),
    "valid: files are of several sample rates (8000, 16000 Hz)": Case(
        "mixed sample rates", _mixed_rates
    ),
    "6 utterances (2.0 %) are labelled as telephone speech": Case(
        "labelled telephone and is not", _set("train", 0.02, bandwidth_hz=6000.0)
    ),
    "6 utterances (100.0 %) are labelled as wideband speech": Case(
        "labelled wideband and is not", _set("train", 0.02, domain="wideband"), grave=True
    ),
    "6 utterances (2.0 %) say 10 words": Case(
        "more text than time", _set("train", 0.02, duration_s=0.9)
    ),
    "30 utterances (10.0 %) say less than 0.5 words": Case(
        "less text than time", _set("train", 0.1, target="嗯")
    ),
    "3 utterances last 30 s or more, the longest 1m01s": Case(
        "long recordings", _set("train", 0.01, duration_s=61.0)
    ),
    "30 utterances (10.0 %) last less than 0.5 s": Case(
        "short recordings", _set("train", 0.1, duration_s=0.4, target="好")
    ),
    "% of the training set are of one speaker (train-0)": Case(
        "one speaker dominates", _set("train", 0.5, speaker_id="train-0")
    ),
    "train: 300 utterances (100.0 %) name neither": Case(
        "neither speakers nor calls", _without("speaker_id", "call")
    ),
    "train: 5 utterances are recordings that stand there already": Case(
        "repeated recordings", _set("train", 0.02, sha256="ab")
    ),
    "valid has another level than train: -35 dBFS against -24": Case(
        "splits are not alike", _set("valid", 1.0, level_dbfs=-35.0)
    ),
    "test has another band than train: 0 % telephone band against 100 %": Case(
        "splits are not alike", _set("test", 1.0, bandwidth_hz=7800.0, domain="meeting")
    ),
    "Nobody looked at: bandwidth_hz, level_dbfs, peak_dbfs, clipped, sha256": Case(
        "not looked at", _without("bandwidth_hz", "level_dbfs", "peak_dbfs", "clipped", "sha256")
    ),
}
"""Cases by what the warning says."""


def _found(directory: Path, splits: Splits, **values: Any) -> tuple[Concern, ...]:
    return concerns(gather.gather(write_prepared(directory, splits, **values)))


def test_ordinary_data_raise_none(tmp_path: Path) -> None:
    assert _found(tmp_path, ordinary()) == ()


@pytest.mark.parametrize(("said", "case"), CASES.items())
def test_each_warning(tmp_path: Path, said: str, case: Case) -> None:
    splits = ordinary()
    case.change(splits)
    found = [concern for concern in _found(tmp_path, splits) if concern.name == case.name]
    assert any(said in str(concern.found) for concern in found), found
    assert all(concern.grave == case.grave for concern in found)
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
