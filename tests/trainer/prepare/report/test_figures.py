"""The data report's figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.document.language import ENGLISH
from tests.trainer.prepare.report.made import line, write_prepared
from trainer.prepare.report.facts import Facts, Picked
from trainer.prepare.report.figures import caption, figures, spectrogram
from trainer.prepare.report.gather import gather
from trainer.prepare.report.spectrograms import Sound

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """Two splits, one of them with a recording that is far longer than the others."""
    splits = {
        "train": [line(f"t{n}", "好", duration_s=2.0 + n % 20 / 10) for n in range(2000)],
        "valid": [line(f"v{n}", "好", duration_s=3.0) for n in range(10)],
    }
    splits["train"][0]["duration_s"] = 55.0
    return gather(write_prepared(tmp_path_factory.mktemp("figures"), splits))


def test_one_for_each_quantity_that_was_measured(facts: Facts) -> None:
    drawn = figures(facts, ENGLISH)
    assert list(drawn) == [
        "duration_s",
        "characters",
        "characters_per_s",
        "bandwidth_hz",
        "level_dbfs",
        "peak_dbfs",
    ]
    [train, valid] = drawn["duration_s"]["data"]
    assert (train["name"], valid["name"]) == ("train (2000)", "valid (10)")


def test_of_each_split_all_is_shown_but_for_a_thousandth_at_the_upper_end(facts: Facts) -> None:
    train, valid = figures(facts, ENGLISH)["duration_s"]["data"]
    # The last value is drawn twice, so that the last step has a width.
    assert sum(train["y"][:-1]) == pytest.approx(100 - 0.05, abs=0.01)
    assert sum(valid["y"][:-1]) == pytest.approx(100)
    assert max(train["x"]) < 10


def sound(step_hz: float, **values: float) -> Sound:
    picked = Picked("loudest", "train", "k", Path("k.wav"), "你好", values)
    return Sound(picked, [[-80, 0]] * 4, 0.1, step_hz, -80, 0)


@pytest.mark.parametrize(("step_hz", "lines"), [(1000.0, 0), (2000.0, 1)])
def test_the_telephones_limit_is_drawn_where_there_is_more_above(
    step_hz: float, lines: int
) -> None:
    figure = spectrogram(sound(step_hz), ENGLISH)
    shapes = figure["layout"].get("shapes", [])
    assert [shape["y0"] for shape in shapes] == [4000] * lines
    assert figure["data"][0]["z"] == [[-80, 0]] * 4
    assert figure["title"] == "loudest: k"


def test_a_caption_says_what_the_manifest_does() -> None:
    assert caption(sound(1000.0), ENGLISH) == "train · 你好"
    said = caption(sound(1000.0, snr_db=12.4, clipped=0.05, sample_rate_hz=8000), ENGLISH)
    assert said == "train · rate 8000 Hz · SNR 12 dB · 5.00 % at full scale · 你好"
