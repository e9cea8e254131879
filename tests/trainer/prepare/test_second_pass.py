"""What only the audio shows: it is measured, and parts and sides are cut out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
import soundfile

from tests.trainer.prepare.given import GOOD, corpus, write_lines, write_no_numbers, write_wav
from tests.trainer.prepare.prepared import check, kept, left_out, run

pytestmark = pytest.mark.quick


def test_a_side_of_a_stereo_call_is_cut_out(tmp_path: Path) -> None:
    call = write_wav(tmp_path / "call.wav", 2.0, channels=2)
    given = write_lines(
        tmp_path / "m.jsonl",
        {"key": "a", "source": "call.wav", "target": "你好", "side": "A"},
        {"key": "b", "source": "call.wav", "target": "再见了", "channel_index": 1},
        {"key": "c", "source": "call.wav", "target": "好的"},
        {"key": "d", "source": "call.wav", "target": "好的", "channel_index": 2},
    )
    run(tmp_path / "out", given, valid_share=0.0)
    both, _ = soundfile.read(call)
    found = kept(tmp_path / "out")
    for side, key in enumerate("ab"):
        assert found[key]["source"] == f"wav/train/{key}.wav"
        assert found[key]["call"] == "call.wav"
        cut, rate_hz = soundfile.read(tmp_path / "out" / found[key]["source"])
        assert rate_hz == 8000
        assert cut.tolist() == both[:, side].tolist()
    assert [line["rule"] for line in left_out(tmp_path / "out")] == [
        "stereo without a side",
        "no such side",
    ]


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


def test_clipped_samples_are_counted(tmp_path: Path) -> None:
    samples = numpy.clip(2 * numpy.sin(numpy.arange(8000)), -1, 1)
    # G.711 does not reach full scale.
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype="ULAW")
    given = write_lines(tmp_path / "m.jsonl", {"key": "k", "source": "a.wav", "target": "你好吗"})
    run(tmp_path / "out", given)
    assert kept(tmp_path / "out")["k"]["clipped"] == pytest.approx(2 / 3, abs=0.02)


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


def test_samples_that_are_no_numbers(tmp_path: Path) -> None:
    write_no_numbers(tmp_path / "bad.wav")
    given = write_lines(tmp_path / "m.jsonl", GOOD, {"source": "bad.wav", "target": "好"})
    check(tmp_path, given, "samples that are no numbers", "expected samples that are numbers")


def test_a_recording_that_turns_out_bad_counts_nowhere(tmp_path: Path) -> None:
    write_wav(tmp_path / "good.wav")
    write_no_numbers(tmp_path / "bad.wav")
    bad = {"source": "bad.wav", "target": "好", "speaker": "s", "call": "c"}
    run(tmp_path / "out", write_lines(tmp_path / "m.jsonl", GOOD, bad))
    told = json.loads((tmp_path / "out/prepare.json").read_bytes())
    train = told["splits"]["train"]
    assert (train["utterances"], train["speakers"], train["calls"]) == (1, 0, 0)
