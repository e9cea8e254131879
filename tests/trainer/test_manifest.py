"""Manifests: both line forms, lists of them, and mistakes with file, line and key."""

import json
from pathlib import Path

import numpy
import pytest
import soundfile

from conf.errors import DataError
from trainer.manifest import read_data_list, read_headers

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
