"""Every form of input that `trainer prepare` reads."""

from pathlib import Path

import numpy
import pytest
import soundfile

from tests.trainer.prepare.prepared import corpus, kept, left_out, run, write_lines, write_wav
from trainer.data.manifest import chat_line
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
    others = (("text", kaldi / "text"), ("spk2utt", kaldi / "speakers"))
    run(tmp_path / "out", Given(kaldi / "wav.scp", other_files=others))
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


def test_funasrs_chat_form(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav")
    line = chat_line("k", "a.wav", "你好", num_frames=1, num_tokens=1)
    run(tmp_path / "out", write_lines(tmp_path / "m.jsonl", {**line, "speaker_id": "s"}))
    found = kept(tmp_path / "out")["k"]
    assert (found["target"], found["source_len"], found["speaker_id"]) == ("你好", 100, "s")
    assert "messages" not in found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'file,说话人,text\na.wav,张,"你好, 世界"\n'),
        ("a.csv", '\ufefffile;说话人;text\r\na.wav;张;"你好, 世界"\r\n'),
        ("a.tsv", "file\t说话人\ttext\na.wav\t张\t你好, 世界\n"),
        ("a.txt", 'file,说话人,text\na.wav,张,"你好, 世界"\n'),
    ],
)
def test_tables_by_the_names_of_their_columns(tmp_path: Path, name: str, text: str) -> None:
    write_wav(tmp_path / "a.wav")
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    columns = (("source", "file"), ("target", "text"), ("speaker", "说话人"))
    run(tmp_path / "out", tmp_path / name, columns=columns)
    [(key, line)] = kept(tmp_path / "out").items()
    assert (key, line["target"], line["speaker_id"]) == ("a-2", "你好, 世界", "张")


def test_a_row_over_several_lines(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav")
    text = 'key,source,target\nk1,a.wav,"one\ntwo"\nk2,a.wav,\n'
    (tmp_path / "a.csv").write_text(text)
    run(tmp_path / "out", tmp_path / "a.csv")
    assert kept(tmp_path / "out")["k1"]["target"] == "one two"
    assert [line["place"] for line in left_out(tmp_path / "out")] == [f"{tmp_path}/a.csv:4"]


def test_a_list_of_manifests(tmp_path: Path) -> None:
    made = corpus(tmp_path, 2)
    write_lines(tmp_path / "one.jsonl", made[0])
    write_lines(tmp_path / "two.jsonl", made[1])
    (tmp_path / "all.txt").write_text("one.jsonl\n\ntwo.jsonl\n")
    run(tmp_path / "out", tmp_path / "all.txt")
    assert sorted(kept(tmp_path / "out")) == ["u0", "u1"]


def test_paths_by_home_root_and_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for number, place in enumerate(("home/a.wav", "root/sub/b.wav", "in/c.wav", "d.wav")):
        write_wav(tmp_path / place, seed=number)
    monkeypatch.chdir(tmp_path)

    def keys(*sources: str, **changes: object) -> list[str]:
        lines = [{"key": s[-5:], "source": s, "target": "好"} for s in sources]
        run(tmp_path / "out", write_lines(tmp_path / "in/m.jsonl", *lines), **changes)
        return sorted(kept(tmp_path / "out"))

    assert keys("~/a.wav", "c.wav", "d.wav") == ["a.wav", "c.wav", "d.wav"]
    assert keys("sub/b.wav", "../d.wav", "c.wav", root=tmp_path / "root") == ["b.wav"]
    rules = [line["rule"] for line in left_out(tmp_path / "out")]
    assert rules == ["outside --root", "no such file"]
    mapped = (("D:\\calls\\", str(tmp_path) + "/"), ("/srv", str(tmp_path / "in")))
    assert keys("D:\\calls\\d.wav", "/srv/c.wav", map_paths=mapped) == ["c.wav", "d.wav"]


def test_texts_in_another_encoding(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav")
    (tmp_path / "a.csv").write_text("source,target\na.wav,你好\n", encoding="gb18030")
    run(tmp_path / "out", tmp_path / "a.csv", encoding="gb18030")
    assert [line["target"] for line in kept(tmp_path / "out").values()] == ["你好"]


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


def test_a_given_test_set_and_the_rest_to_be_split(tmp_path: Path) -> None:
    made = corpus(tmp_path, 20)
    rest = write_lines(tmp_path / "rest.jsonl", *made)
    test = write_lines(tmp_path / "test.jsonl", *made[:2])
    prepared = run(tmp_path / "out", rest, Given(test, "test"))
    assert prepared.utterances == {"train": 16, "valid": 2, "test": 2}
    assert prepared.left_out == {"duplicate key": 2}
