"""A corpus over telephone lines: the same whoever computes it, and however often interrupted."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

from conf.channels import ChannelRange, load_channel
from conf.errors import DataError, WorkError
from trainer.channel import corpus as corpus_module
from trainer.channel.corpus import Simulated, simulate_manifest
from trainer.data.manifest import read_data_list, read_headers

Run = Callable[..., Simulated]
RANGES = load_channel("landline_g711")


@pytest.fixture
def run(cut: Callable[..., Path], tmp_path: Path) -> Run:
    """Simulates some wideband utterances into a folder of its own."""

    def simulate(name: str, manifest: Path | None = None, **options: Any) -> Simulated:
        output = tmp_path / name / "train.jsonl"
        settings = {"channel": RANGES, "seed": 3, "workers": 1, **options}
        return simulate_manifest(
            manifest or cut("wideband", 12), output, tmp_path / name / "wav" / "train", **settings
        )

    return simulate


def contents(directory: Path) -> dict[str, bytes]:
    """Every file's bytes by its relative path."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


@pytest.mark.quick
def test_the_new_manifest_says_what_was_drawn(run: Run, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    done = run("out", on_progress=lambda count, total: seen.append((count, total)))
    assert (done.written, done.left_out, seen[-1]) == (12, [], (12, 12))
    utterances = read_data_list(tmp_path / "out" / "train.jsonl")
    for utterance, audio in zip(utterances, read_headers(utterances), strict=True):
        tags = utterance.tags
        assert utterance.source == tmp_path / "out" / "wav" / "train" / f"{utterance.key}.wav"
        assert tags["channel"] == "landline_g711"
        assert tags["codec"] in RANGES.codecs
        assert tags["noise"] in ("white", "pink", "babble")
        assert audio.sample_rate_hz == tags["sample_rate_hz"] == 8000
        assert audio.num_frames == tags["source_len"]
        assert tags["duration_s"] == pytest.approx(audio.duration_s)
        assert utterance.speaker
    line = (tmp_path / "out" / "train.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert json.loads(line)["source"] == "wav/train/wideband-0000.wav"
    assert soundfile.info(utterances[0].source).subtype == "PCM_16"


def test_the_bytes_are_the_same_with_any_number_of_workers(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "_CHUNK", 5)
    for workers in (1, 2, 3):
        run(str(workers), workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "3")


@pytest.mark.quick
def test_interrupted_and_run_again_it_is_as_if_it_had_not_been(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("unbroken")
    written = soundfile.write
    count = 0

    def interrupted(file: Path, *args: Any, **options: Any) -> None:
        nonlocal count
        count += 1
        if count == 6:
            Path(file).write_bytes(b"half a fi")
            raise KeyboardInterrupt
        written(file, *args, **options)

    monkeypatch.setattr(soundfile, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("broken")
    assert not (tmp_path / "broken" / "train.jsonl").exists()
    run("broken")
    assert count == 6 + 7  # five were whole and are not made again
    assert contents(tmp_path / "broken") == contents(tmp_path / "unbroken")


@pytest.mark.quick
@pytest.mark.parametrize("what", ["seed", "channel", "manifest"])
def test_something_else_begins_anew(
    run: Run, cut: Callable[..., Path], tmp_path: Path, what: str
) -> None:
    run("out", manifest=cut("wideband", 6))
    before = contents(tmp_path / "out")
    others: dict[str, dict[str, Any]] = {
        "seed": {"seed": 4},
        "channel": {"channel": ChannelRange(codecs=["gsm"])},
        "manifest": {"manifest": cut("wideband", 5)},
    }
    other = others[what]
    run("out", **{"manifest": cut("wideband", 6), **other})
    run("fresh", **{"manifest": cut("wideband", 6), **other})
    after = contents(tmp_path / "out")
    assert after == contents(tmp_path / "fresh")
    assert after["train.jsonl"] != before["train.jsonl"]


@pytest.mark.quick
def test_a_recording_that_changed_is_sent_again(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "a.wav"
    soundfile.write(source, [0.1] * 8000, 8000)
    manifest = tmp_path / "in.jsonl"
    manifest.write_text('{"key": "a", "source": "a.wav", "target": "好"}\n', encoding="utf-8")
    ranges = ChannelRange()
    run("out", manifest=manifest, channel=ranges)
    soundfile.write(source, [0.1] * 16000, 8000)
    later = (tmp_path / "out" / "wav" / "train" / "a.wav").stat().st_mtime + 5
    os.utime(source, (later, later))
    run("out", manifest=manifest, channel=ranges)
    line = json.loads((tmp_path / "out" / "train.jsonl").read_text(encoding="utf-8"))
    assert line["duration_s"] == 2.0


@pytest.mark.quick
def test_what_cannot_be_read_is_left_out_and_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    soundfile.write(tmp_path / "empty.wav", [], 8000)
    soundfile.write(tmp_path / "good.wav", [0.1, -0.1] * 4000, 8000)
    manifest = tmp_path / "in.jsonl"
    names = ("missing", "broken", "empty", "good")
    lines = ({"key": name, "source": f"{name}.wav", "target": name} for name in names)
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    done = run("out", manifest=manifest, channel=ChannelRange())
    assert done.written == 1
    assert [(item["key"], item["place"], item["rule"]) for item in done.left_out] == [
        (name, f"{manifest}:{number}", "channel")
        for number, name in enumerate(("missing", "broken", "empty"), start=1)
    ]
    assert all(item["why"] and item["source"].endswith(".wav") for item in done.left_out)


@pytest.mark.quick
def test_what_the_manifest_said_of_the_old_audio_is_dropped(run: Run, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", [0.1, -0.1] * 4000, 8000)
    line = {
        "key": "a",
        "source": "a.wav",
        "target": "好",
        "source_len": 5,
        "target_len": 1,
        "call": "c",
        "bandwidth_hz": 8000,
        "clipped": 0.5,
        "sha256": "x",
        "level_dbfs": -3,
    }
    manifest = tmp_path / "in.jsonl"
    manifest.write_text(json.dumps(line) + "\n", encoding="utf-8")
    run("out", manifest=manifest, channel=ChannelRange())
    new = json.loads((tmp_path / "out" / "train.jsonl").read_text(encoding="utf-8"))
    assert not {"bandwidth_hz", "clipped", "sha256", "level_dbfs", "speaker_id"} & new.keys()
    assert (new["call"], new["target_len"], new["source_len"]) == ("c", 1, 100)


@pytest.mark.quick
def test_a_folder_of_somebody_else_is_left_alone(run: Run, tmp_path: Path) -> None:
    theirs = tmp_path / "out" / "wav" / "train" / "holiday.wav"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"wav/train: got a folder with other files, expected none"):
        run("out")
    assert theirs.read_bytes() == b"mine"


@pytest.mark.quick
def test_one_speaker_makes_no_babble(run: Run, tmp_path: Path) -> None:
    manifest = tmp_path / "in.jsonl"
    lines = ({"key": key, "source": "a.wav", "target": "好", "speaker_id": "Wu"} for key in "abc")
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"in.jsonl: got one speaker \(Wu\), expected several, of"):
        run("out", manifest=manifest)
    assert not (tmp_path / "out").exists()


@pytest.mark.quick
def test_the_manifest_itself_is_not_overwritten(tmp_path: Path, cut: Callable[..., Path]) -> None:
    manifest = cut("wideband", 3)
    before = manifest.read_bytes()
    with pytest.raises(DataError, match="got the manifest itself, expected another file to write"):
        simulate_manifest(manifest, manifest, tmp_path / "wav", RANGES)
    assert manifest.read_bytes() == before


def test_a_process_that_dies_is_said_and_the_same_command_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "_CHUNK", 3)
    with monkeypatch.context() as patch:
        patch.setattr(corpus_module, "simulate", lambda *args, **options: os._exit(9))
        with pytest.raises(WorkError, match="simulating: a worker process was killed"):
            run("out", workers=2)
    assert run("out", workers=2).written == 12


@pytest.mark.slow
def test_g711_with_noise_takes_less_than_a_150th_of_real_time_on_two_cores(
    corpus: Path, tmp_path: Path
) -> None:
    lines = (corpus / "wideband.jsonl").read_text(encoding="utf-8").splitlines()
    manifest = tmp_path / "many.jsonl"
    with manifest.open("w", encoding="utf-8") as file:
        for copy in range(20):
            for line in map(json.loads, lines):
                line |= {"key": f"{line['key']}-{copy}", "source": str(corpus / line["source"])}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    audio_s = read_headers(read_data_list(manifest)).durations_s.sum()
    started_s = time.perf_counter()
    simulate_manifest(manifest, tmp_path / "out" / "a.jsonl", tmp_path / "wav", RANGES, workers=2)
    factor = audio_s / (time.perf_counter() - started_s)
    print(f"{audio_s:.0f} s of speech over landline_g711: {factor:.0f} times real time")
    assert factor >= 150
