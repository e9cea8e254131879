"""Kaldi's data directories: segments, speakers and sides, and what they lack."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import soundfile

from tests.trainer.prepare.given import write_wav
from tests.trainer.prepare.prepared import kept, left_out, run
from trainer.prepare.settings import Given

pytestmark = pytest.mark.quick


@pytest.fixture
def kaldi(tmp_path: Path) -> Path:
    directory = tmp_path / "kaldi"
    write_wav(directory / "call.wav", 10.0, seed=1)
    write_wav(directory / "two.wav", 10.0, channels=2, seed=2)
    (directory / "wav.scp").write_text("call call.wav\ntwo-a\ttwo.wav\ntwo-b two.wav\nlone x.wav\n")
    (directory / "text").write_text("u1 你好 世界\nu3 hello world\nu2 再见\n", encoding="utf-8")
    (directory / "segments").write_text("u1 call 1.00 2.5\nu2 two-a 0 3\nu3 two-b 4.25 -1\n")
    (directory / "utt2spk").write_text("u1 s1\nu2 s2\nu3 s3\n")
    (directory / "reco2file_and_channel").write_text("call call A\ntwo-a two A\ntwo-b two B\n")
    return directory


def test_kaldis_directory_with_segments_speakers_and_sides(kaldi: Path, tmp_path: Path) -> None:
    prepared = run(tmp_path / "out", kaldi, valid_share=0.0)
    assert prepared.utterances == {"train": 3, "valid": 0}
    found = kept(tmp_path / "out")
    assert list(found) == ["u1", "u3", "u2"]
    assert [found[key]["target"] for key in ("u1", "u2", "u3")] == [
        "你好世界",
        "再见",
        "hello world",
    ]
    assert [found[key]["speaker_id"] for key in ("u1", "u2", "u3")] == ["s1", "s2", "s3"]
    assert [found[key]["call"] for key in ("u1", "u2", "u3")] == ["call", "two", "two"]
    assert [found[key]["duration_s"] for key in ("u1", "u2", "u3")] == [1.5, 3.0, 5.75]
    samples, _ = soundfile.read(kaldi / "two.wav")
    cut, _ = soundfile.read(tmp_path / "out" / found["u3"]["source"])
    assert numpy.array_equal(cut, samples[34000:, 1])
    cut, _ = soundfile.read(tmp_path / "out" / found["u1"]["source"])
    assert numpy.array_equal(cut, soundfile.read(kaldi / "call.wav")[0][8000:20000])


def test_kaldis_files_by_name(kaldi: Path, tmp_path: Path) -> None:
    (kaldi / "segments").unlink()
    (kaldi / "text").write_text("call 你好\n", encoding="utf-8")
    (kaldi / "speakers").write_text("s9 call other\n")
    beside = (("text", kaldi / "text"), ("spk2utt", kaldi / "speakers"))
    run(tmp_path / "out", Given(kaldi / "wav.scp", beside=beside))
    assert kept(tmp_path / "out")["call"]["speaker_id"] == "s9"
    assert [(line["key"], line["rule"]) for line in left_out(tmp_path / "out")] == [
        ("two-a", "no transcript"),
        ("two-b", "no transcript"),
        ("lone", "no transcript"),
    ]


def test_what_kaldis_files_lack_is_left_out_by_name(kaldi: Path, tmp_path: Path) -> None:
    with (kaldi / "text").open("a") as file:
        file.write("u4 not in segments\nu5 said in nothing\n")
    with (kaldi / "segments").open("a") as file:
        file.write("u5 nowhere 0 1\nu6 call 8 9\n")
    run(tmp_path / "out", kaldi)
    found = {line["key"]: line for line in left_out(tmp_path / "out")}
    assert {key: line["rule"] for key, line in found.items()} == {
        "u4": "no recording",
        "u5": "no recording",
        "u6": "no transcript",
    }
    assert found["u4"]["place"] == f"{kaldi}/text:4"
    assert found["u4"]["why"] == f"got 'u4', which {kaldi}/segments lacks, expected it there"
    assert found["u6"]["place"] == f"{kaldi}/segments:5"


def test_a_command_in_wav_scp_is_named(kaldi: Path, tmp_path: Path) -> None:
    (kaldi / "wav.scp").write_text(
        "call sph2pipe -f wav call.sph |\ntwo-a two.wav\ntwo-b two.wav\n"
    )
    run(tmp_path / "out", kaldi)
    [line] = left_out(tmp_path / "out")
    assert (line["key"], line["rule"]) == ("u1", "command instead of a file")
