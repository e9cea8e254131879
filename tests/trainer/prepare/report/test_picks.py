"""Recordings worth looking at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.prepare.report.made import line, write_prepared
from trainer.prepare.report.gather import gather

pytestmark = pytest.mark.quick


def test_recordings_to_look_at_do_not_depend_on_order(tmp_path: Path) -> None:
    lines = [
        line(f"k{n}", "好", level_dbfs=-20.0 - n, clipped=0.01 * (n == 3), duration_s=1 + n % 7)
        for n in range(30)
    ]
    picked = []
    for name, order in (("a", lines), ("b", lines[::-1])):
        write_prepared(tmp_path / name, {"train": order})
        picked.append([(p.why, p.key) for p in gather(tmp_path / name).picked])
    whys = dict(picked[0])
    assert (whys["loudest"], whys["quietest"], whys["most clipped"]) == ("k0", "k29", "k3")
    assert [p for p in picked[0] if p[0] == "random"] == [p for p in picked[1] if p[0] == "random"]
    assert len({key for _, key in picked[0]}) == len(picked[0])


def test_a_recording_is_picked_once_with_what_its_manifest_says(tmp_path: Path) -> None:
    write_prepared(tmp_path, {"train": [line("a", "你好", clipped=0.5, snr_db=12.0, age="30")]})
    [picked] = gather(tmp_path).picked
    assert (picked.why, picked.split, picked.key, picked.text) == ("loudest", "train", "a", "你好")
    assert picked.source == tmp_path / "a.wav"
    assert picked.values == {
        "duration_s": 3.0,
        "sample_rate_hz": 8000,
        "bandwidth_hz": 3400.0,
        "level_dbfs": -24.0,
        "peak_dbfs": -6.0,
        "clipped": 0.5,
        "snr_db": 12.0,
    }
