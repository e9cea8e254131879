"""Manifests from recordings and transcripts: what is used, what is left out and why."""

import gzip
import json
from pathlib import Path

import numpy
import pytest
import soundfile

from conf.errors import DataError
from trainer.manifest import read_data_list, read_headers
from trainer.prepare import prepare, read_folder, read_kaldi

pytestmark = pytest.mark.quick


def _wav(path: Path, duration_s: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, numpy.zeros(int(8000 * duration_s), dtype=numpy.float32), 8000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    texts = {
        "hello": "Hello, Asterisk!",
        "letters/at": "at [@]",
        "long": "a long story",
        "gone": "no such recording",
        "year": "in 1999",
        "marked": "uh <ANNOTATION_ERROR>",
        "silent": "…",
        **{f"word-{number}": f"Word {number}." for number in range(9)},
    }
    for name in texts:
        if name != "gone":
            _wav(tmp_path / "sounds" / f"{name}.wav", 31 if name == "long" else 1)
    with gzip.open(tmp_path / "names.txt.gz", "wt", encoding="utf-8") as file:
        file.write("; a comment\n\n")
        file.writelines(f"{name}: {text}\n" for name, text in texts.items())
    return tmp_path


def test_a_folder_becomes_manifests_and_nothing_disappears(folder: Path) -> None:
    recordings = read_folder(folder / "sounds", folder / "names.txt.gz")
    prepared = prepare(recordings, folder / "out", valid_share=0.2, spoken=True)
    assert (prepared.train, prepared.valid) == (8, 2)
    assert prepared.left_out == {
        "symbols without a spoken form": 1,
        "longer than 30 s": 1,
        "no readable audio": 1,
        "numeral that can be read in several ways": 1,
        "annotation error": 1,
        "empty text": 1,
    }
    train = read_data_list(folder / "out" / "train.jsonl")
    valid = read_data_list(folder / "out" / "valid.jsonl")
    read_headers([*train, *valid])
    assert {u.target for u in (*train, *valid) if u.key == "hello"} == {"hello asterisk"}
    left_out = (folder / "out" / "left_out.jsonl").read_text(encoding="utf-8").splitlines()
    first = json.loads(left_out[0])
    assert first["place"] == f"{folder}/names.txt.gz:4"
    assert first["rule"] == "symbols without a spoken form"


def test_the_split_does_not_depend_on_order(folder: Path) -> None:
    recordings = read_folder(folder / "sounds", folder / "names.txt.gz")
    for name, order in (("a", recordings), ("b", recordings[::-1])):
        prepare(order, folder / name, valid_share=0.2, spoken=False)
    keys = [
        {utterance.key for utterance in read_data_list(folder / name / "valid.jsonl")}
        for name in "ab"
    ]
    assert keys[0] == keys[1]


def test_kaldi_files(tmp_path: Path) -> None:
    _wav(tmp_path / "a.wav")
    (tmp_path / "wav.scp").write_text("utt1 a.wav\nutt2 a.wav\n")
    (tmp_path / "text").write_text("utt1 你好 世界\nutt2 再见\n", encoding="utf-8")
    recordings = read_kaldi(tmp_path / "wav.scp", tmp_path / "text")
    assert [(r.key, r.text) for r in recordings] == [("utt1", "你好 世界"), ("utt2", "再见")]
    (tmp_path / "text").write_text("utt1 你好\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"wav\.scp:2: got key 'utt2' that the other file lacks"):
        read_kaldi(tmp_path / "wav.scp", tmp_path / "text")


def test_nothing_usable_is_an_error(folder: Path) -> None:
    [marked] = [
        r for r in read_folder(folder / "sounds", folder / "names.txt.gz") if r.key == "marked"
    ]
    with pytest.raises(DataError, match="got no usable utterance"):
        prepare([marked], folder / "out", valid_share=0.1, spoken=False)


def test_a_line_without_a_name_is_refused(tmp_path: Path) -> None:
    _wav(tmp_path / "a.wav")
    (tmp_path / "names.txt").write_text("no colon here\n")
    with pytest.raises(DataError, match=r"names\.txt:1: got 'no colon here', expected NAME:TEXT"):
        read_folder(tmp_path, tmp_path / "names.txt")
