"""Manifests: both line forms, lists of them, and mistakes with file, line and key."""

import json
import pickle
from pathlib import Path

import numpy
import pytest
import soundfile

from conf.errors import DataError
from tests.benchmarks import manifests
from trainer.data.manifest import (
    Audio,
    Manifest,
    file_name,
    fingerprint,
    read_data_list,
    read_headers,
)

pytestmark = pytest.mark.quick


def _wav(path: Path, samples: int = 8000) -> Path:
    soundfile.write(path, numpy.zeros(samples, dtype=numpy.float32), 8000)
    return path


def _manifest(path: Path, *lines: object) -> Path:
    text = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


def test_reads_plain_and_chat_lines(tmp_path: Path) -> None:
    _wav(tmp_path / "a.wav")
    chat = {
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "语音转写：<|startofspeech|>!a.wav<|endofspeech|>"},
            {"role": "assistant", "content": "你好"},
        ]
    }
    plain = {"key": "k", "source": "a.wav", "target": "再见", "speaker_id": "s1", "snr_db": 12}
    utterances = read_data_list(_manifest(tmp_path / "m.jsonl", plain, chat))
    assert [(u.key, u.source, u.target) for u in utterances] == [
        ("k", tmp_path / "a.wav", "再见"),
        ("m-2", tmp_path / "a.wav", "你好"),
    ]
    assert (utterances[0].speaker, utterances[0].tags) == ("s1", {"snr_db": 12})
    assert [audio.num_frames for audio in read_headers(utterances)] == [100, 100]


def test_a_text_file_lists_manifests(tmp_path: Path) -> None:
    for name in "ab":
        _manifest(tmp_path / f"{name}.jsonl", {"key": name, "source": "x.wav", "target": "好"})
    listing = tmp_path / "train.txt"
    listing.write_text("a.jsonl\n\nb.jsonl\n", encoding="utf-8")
    assert [utterance.key for utterance in read_data_list(listing)] == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "m.jsonl:2: got no JSON"),
        ("[1]", "m.jsonl:2: got list, expected a JSON object"),
        ({"source": "a.wav"}, "m.jsonl:2: target: got source"),
        ({"messages": [{"role": "user", "content": "no audio"}]}, "m.jsonl:2: messages: got no"),
        ({"key": "k", "source": "a.wav", "target": "好"}, "key: got 'k' a second time"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: object, message: str) -> None:
    first = {"key": "k", "source": "a.wav", "target": "你好"}
    with pytest.raises(DataError, match=message.replace("[", r"\[")) as caught:
        read_data_list(_manifest(tmp_path / "m.jsonl", first, line))
    assert len(caught.value.problems) == 1


def test_all_bad_lines_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_data_list(_manifest(tmp_path / "m.jsonl", "{", "[", "{}"))
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("name", ["missing.jsonl", "missing.txt"])
def test_a_missing_list_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name}: got no such file"):
        read_data_list(tmp_path / name)


def test_an_empty_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got no utterances"):
        read_data_list(_manifest(tmp_path / "m.jsonl", ""))


def test_unreadable_audio_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("this is no audio")
    _wav(tmp_path / "empty.wav", samples=0)
    lines = [
        {"key": name, "source": f"{name}.wav", "target": "好"}
        for name in ("missing", "text", "empty")
    ]
    utterances = read_data_list(_manifest(tmp_path / "m.jsonl", *lines))
    with pytest.raises(DataError) as caught:
        read_headers(utterances)
    for number, (problem, reason) in enumerate(
        zip(caught.value.problems, ("no such file", "", "0 samples"), strict=True), start=1
    ):
        assert problem.startswith(f"{tmp_path}/m.jsonl:{number}: source: got ")
        assert reason in problem


def _numbered(path: Path, count: int) -> Manifest:
    lines = [{"key": f"k{i}", "source": f"{i}.wav", "target": f"第{i}"} for i in range(count)]
    return read_data_list(_manifest(path, *lines))


def test_a_manifest_is_a_sequence(tmp_path: Path) -> None:
    utterances = _numbered(tmp_path / "m.jsonl", 3000)
    keys = [f"k{i}" for i in range(3000)]
    assert [utterance.key for utterance in utterances] == keys
    assert [utterances[i].key for i in (0, 1500, -1)] == ["k0", "k1500", "k2999"]
    for part in (slice(5), slice(-3, None), slice(10, 2, -3), slice(9, 9)):
        assert [utterance.key for utterance in utterances[part]] == keys[part]
    assert [each.key for each in utterances[100:200][::-1][5:7]] == ["k194", "k193"]
    assert utterances[100:][7] == utterances[107]
    with pytest.raises(IndexError):
        utterances[3000]
    assert [each.line for each in pickle.loads(pickle.dumps(utterances))[7:9]] == [8, 9]


def test_lines_are_as_editors_and_other_programs_write_them(tmp_path: Path) -> None:
    """A mark in front, Windows' line ends, empty lines, NaN, a line separator within a text."""
    path = tmp_path / "m.jsonl"
    lines = [
        '{"key": "a", "source": "a.wav", "target": "一"}',
        "",
        '{"key": "b", "source": "b.wav", "target": "二\u2028三", "snr_db": NaN}',
        "   ",
        '{"key": 7, "source": "c.wav", "target": ""}',
    ]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    utterances = read_data_list(path)
    assert [(u.key, u.line, u.target) for u in utterances] == [
        ("a", 1, "一"),
        ("b", 3, "二\u2028三"),
        ("7", 5, ""),
    ]


def test_lines_longer_than_what_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.data.manifest._CHUNK_BYTES", 16)
    utterances = _numbered(tmp_path / "m.jsonl", 20)
    assert [utterances[i].target for i in (0, 7, 19)] == ["第0", "第7", "第19"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"\xff", "m.jsonl:2: got text that is not UTF-8"),
        (b'{"source": "a.wav", "target": "\\ud800"}', "m.jsonl:2: got text that is not UTF-8"),
        (b"[" * 100_000, "m.jsonl:2: got JSON nested too deeply"),
        (b"null", "m.jsonl:2: got NoneType, expected a JSON object"),
        (b'{"source": 1, "target": "x"}', "m.jsonl:2: source: got source, target, expected"),
        (b'{"messages": {}}', "m.jsonl:2: messages: got no user turn"),
    ],
)
def test_a_line_that_is_not_what_it_should_be(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"source": "a.wav", "target": "x"}\n' + line + b"\n")
    with pytest.raises(DataError) as caught:
        read_data_list(path)
    [problem] = caught.value.problems
    assert message in problem


def test_keys_of_equal_hash_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.data.manifest._hash", lambda key: 7)
    assert len(_numbered(tmp_path / "m.jsonl", 50)) == 50


def test_keys_are_unique_over_all_manifests_of_a_list(tmp_path: Path) -> None:
    for name in "ab":
        _manifest(tmp_path / f"{name}.jsonl", {"key": "k", "source": "x.wav", "target": "好"})
    (tmp_path / "list.txt").write_text("a.jsonl\nb.jsonl\n")
    with pytest.raises(
        DataError, match=r"b.jsonl:1: key: got 'k' a second time \(first at .*a.json"
    ):
        read_data_list(tmp_path / "list.txt")


def test_a_manifest_that_is_replaced_meanwhile_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    utterances = _numbered(path, 20)
    _manifest(tmp_path / "new", {"source": "x", "target": "y"}).replace(path)
    assert [utterance.key for utterance in utterances] == [f"k{i}" for i in range(20)]
    with pytest.raises(DataError, match="m.jsonl: got other lines than at the start"):
        list(pickle.loads(pickle.dumps(utterances)))


def test_a_manifest_that_is_written_over_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    utterances = _numbered(path, 20)
    path.write_text("short\n")
    with pytest.raises(DataError, match="m.jsonl: got other lines than at the start"):
        utterances[7]


def test_headers_are_a_sequence_of_arrays(tmp_path: Path) -> None:
    for number in range(5):
        _wav(tmp_path / f"{number}.wav", samples=8000 + 123 * number)
    utterances = _numbered(tmp_path / "m.jsonl", 5)
    audios = read_headers(utterances)
    assert list(audios) == [Audio(8000, 8000 + 123 * number) for number in range(5)]
    assert audios[1:3][1] == audios[-3] == Audio(8000, 8246)
    assert audios.num_frames.tolist() == [audio.num_frames for audio in audios]
    assert audios.durations_s.tolist() == [audio.duration_s for audio in audios]
    (tmp_path / "2.wav").unlink()
    audios = read_headers(utterances, leave_out=True)
    assert dict(audios.problems) == {2: "no such file"}
    assert dict(audios[::-2].problems) == {1: "no such file"}
    assert fingerprint(utterances[:2], audios[:2]) == fingerprint(
        list(utterances[:2]), list(audios[:2])
    )


@pytest.mark.slow
def test_a_million_lines() -> None:
    measured = manifests.measure(1_000_000)
    assert measured["lines"] == 1_000_000
    assert measured["opened_s"] < 5
    assert measured["above_baseline_mb"] < 150


def test_any_key_makes_a_file_name() -> None:
    keys = [
        "call-7",
        "通话.1",
        "../../etc/passwd",
        "a/b",
        "a b",
        ".hidden",
        "",
        "长" * 300,
        "𠀀" * 60,
        "a/B",
    ]
    names = [file_name(key) for key in keys]
    assert names[:2] == ["call-7.wav", "通话.1.wav"]
    assert len(set(names)) == len(keys)
    assert all("/" not in name and not name.startswith(".") for name in names)
    assert all(len(name.encode()) < 255 for name in names)
