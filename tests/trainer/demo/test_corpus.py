"""The demonstration's corpus: who speaks what, and that it is made the same twice."""

import json
import logging
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
import soundfile

from conf.errors import DataError, UserError, WorkError
from trainer.data.manifest import read_data_list, read_headers
from trainer.demo import corpus, speech
from trainer.demo.corpus import BASE_VOICES, CHECKSUM, PARTS, Part, checksum, ensure, make

SMALL = (
    Part("some", "valid", ("m7", "f1"), 5, "telephone"),
    Part("clean", "wideband", ("m7",), 3, "wideband"),
    Part("quiet", None, (), 2, "telephone"),
)


@pytest.fixture
def espeak():
    pytest.importorskip("espeakng_loader", reason="the extra telesweep[demo] is not installed")


@pytest.mark.quick
def test_voices_of_train_valid_test_and_base_do_not_overlap():
    voices = [set(part.voices) for part in PARTS if part.name != "wideband"] + [set(BASE_VOICES)]
    assert all(not one & other for one, other in combinations(voices, 2))
    wideband = next(part for part in PARTS if part.name == "wideband")
    assert set(wideband.voices) == voices[1] | voices[2]


@pytest.mark.quick
def test_small_corpus_is_made_twice_the_same(espeak, tmp_path):
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        make(tmp_path / name, SMALL)
        made.append(checksum(tmp_path / name))
    assert made[0] == made[1]
    utterances = read_data_list(tmp_path / "one" / "some.jsonl")
    assert [utterance.speaker for utterance in utterances] == ["m7", "f1", "m7", "f1", "m7"]
    assert {audio.sample_rate_hz for audio in read_headers(utterances)} == {8000}
    [first, *_] = read_data_list(tmp_path / "one" / "clean.jsonl")
    samples, rate_hz = soundfile.read(first.source)
    assert rate_hz == 16000
    assert soundfile.info(first.source).subtype == "PCM_16"
    assert np.abs(samples).max() > 0.1
    quiet = read_data_list(tmp_path / "one" / "quiet.jsonl")
    assert [(utterance.target, utterance.speaker) for utterance in quiet] == [("", None)] * 2
    for utterance in quiet:
        samples, rate_hz = soundfile.read(utterance.source)
        assert rate_hz == 8000
        assert 0 < np.sqrt(np.mean(samples**2)) < 0.02


def test_corpus_is_made_once_and_has_the_committed_checksum(espeak, tmp_path, monkeypatch, caplog):
    directory = tmp_path / "demo"
    with caplog.at_level(logging.WARNING):
        ensure(directory)
    # Only a processor that rounds differently may differ, and then the user is told.
    assert (checksum(directory) == CHECKSUM) == (not caplog.records)
    assert not [path for path in tmp_path.iterdir() if path != directory]
    for part in PARTS:
        utterances = read_data_list(directory / f"{part.name}.jsonl")
        assert len(utterances) == part.num_utterances
        rates = {audio.sample_rate_hz for audio in read_headers(utterances)}
        assert rates == {16000 if part.name == "wideband" else 8000}
    monkeypatch.setattr(corpus, "make", pytest.fail)
    assert ensure(directory) == directory


@pytest.mark.quick
def test_corpus_out_of_date_is_made_anew_and_a_foreign_directory_is_left_alone(
    espeak, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(corpus, "PARTS", SMALL)
    directory = ensure(tmp_path / "demo")
    assert len(caplog.records) == 1  # the user is told that it is not the documented corpus
    stamp = directory / "corpus.json"
    assert json.loads(stamp.read_text())["checksum"] == checksum(directory) != CHECKSUM
    stamp.write_text(json.dumps({"expected_checksum": "of another version"}))
    ensure(directory)
    assert json.loads(stamp.read_text())["expected_checksum"] == CHECKSUM

    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "call.wav").write_bytes(b"mine")
    with pytest.raises(DataError, match="holds other files, expected an empty or a new one"):
        ensure(foreign)
    assert (foreign / "call.wav").read_bytes() == b"mine"


@pytest.mark.quick
def test_without_espeak_one_line_says_how_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    assert speech.main() == speech.NOT_INSTALLED
    hint = capsys.readouterr().err

    def child(*_args, **_kwargs):
        return subprocess.CompletedProcess([], speech.NOT_INSTALLED, "", hint)

    monkeypatch.setattr(subprocess, "run", child)
    with pytest.raises(UserError, match=r"pip install 'telesweep\[demo\]'$"):
        ensure(tmp_path / "demo")
    assert not list(tmp_path.iterdir())


@pytest.mark.quick
def test_a_child_that_fails_is_named_and_nothing_stays_behind(tmp_path, monkeypatch):
    def child(*_args, **_kwargs):
        return subprocess.CompletedProcess([], 1, "", "Traceback\nOSError: No space left")

    monkeypatch.setattr(subprocess, "run", child)
    with pytest.raises(WorkError, match="speech failed: OSError: No space left"):
        ensure(tmp_path / "demo")
    assert not list(tmp_path.iterdir())
