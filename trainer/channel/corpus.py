"""A manifest's utterances over telephone lines, in parallel: new audio and a new manifest.

What comes out hangs on seed, keys, ranges and manifest alone, not on how many processes worked, or
on interruptions: an utterance whose file is there already is not computed again.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soundfile

from conf.channels import ChannelRange, check_installed
from conf.errors import DataError
from conf.files import file_sha256, replacing, write_json
from trainer.channel.codecs import to_pcm
from trainer.channel.draws import draw_line
from trainer.channel.levels import RATE_HZ
from trainer.channel.noise import OtherSpeakers
from trainer.channel.telephone_line import simulate
from trainer.data.audio import read_mono
from trainer.data.manifest import (
    Audio,
    Manifest,
    Utterance,
    file_name,
    one_line,
    read_data_list,
    read_header,
)
from trainer.data.parallel import ordered

_VERSION = 1
"""Of what a line does to samples; another one computes everything anew."""
_CHUNK = 64
"""Utterances that a process gets at once."""
_MARK = ".channel.json"
_STALE = ("bandwidth_hz", "level_dbfs", "peak_dbfs", "clipped", "sha256")
"""What a manifest says of audio's content, and no longer holds."""
_RULE = "channel"


@dataclass
class Simulated:
    """What became of a manifest.

    Attributes:
        written: Utterances in the new one.
        left_out: Those whose audio could not be read: key, place, source, text, rule and why.
    """

    written: int = 0
    left_out: list[dict[str, str]] = field(default_factory=list)


def simulate_manifest(
    manifest: Path,
    output: Path,
    audio_dir: Path,
    channel: ChannelRange,
    *,
    voices: Path | None = None,
    seed: int = 0,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Simulated:
    """Sends a manifest's utterances over telephone lines.

    Interrupted and called again it goes on, and gives the same bytes. Another channel, seed or
    manifest begins anew.

    Args:
        manifest: Whose audio is sent.
        output: The new manifest; paths in it are relative to its folder where the audio lies below.
        audio_dir: For the new audio, `KEY.wav` at 8 kHz; what it holds belongs to this function.
        channel: What lines are drawn from.
        voices: Manifest of those who speak in babble; None takes the one that is sent.
        seed: Of all draws.
        workers: Processes; None takes as many as there are cores.
        on_progress: Gets how many utterances are done, and of how many.

    Raises:
        DataError: The manifest is not one, `audio_dir` holds files of somebody else, or there is
            babble to mix and one speaker.
        ConfigError: A codec needs the extra `av`.
        WorkError: A worker died.
    """
    check_installed(channel)
    utterances = read_data_list(manifest)
    if output.exists() and output.samefile(manifest):
        raise DataError(f"{output}: got the manifest itself, expected another file to write")
    others = utterances if voices is None else read_data_list(voices)
    OtherSpeakers(others).check(channel)
    _take(audio_dir, _identity([manifest, voices or manifest], channel, seed))
    job = _Job(utterances, others, audio_dir, output.parent, channel, seed)
    done = Simulated()
    with replacing(output) as partial, partial.open("w", encoding="utf-8") as file:
        for number, line in enumerate(_lines(job, workers or _cores()), start=1):
            if "why" in line:
                done.left_out.append(line)
            else:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                done.written += 1
            if number % _CHUNK == 0 or number == len(utterances):
                on_progress(number, len(utterances))
    return done


@dataclass(frozen=True)
class _Job:
    """What all workers are to do; each gets a copy."""

    utterances: Manifest
    voices: Manifest
    audio_dir: Path
    root: Path
    channel: ChannelRange
    seed: int

    def __call__(self, chunk: range) -> list[dict[str, Any]]:
        others = OtherSpeakers(self.voices)
        return [self._line(self.utterances[index], others) for index in chunk]

    def _line(self, utterance: Utterance, others: OtherSpeakers) -> dict[str, Any]:
        path = self.audio_dir / file_name(utterance.key)
        try:
            if not _is_done(path, utterance.source):
                self._write(path, utterance, others)
        except (DataError, OSError, RuntimeError, TypeError, ValueError) as error:
            return {
                "key": utterance.key,
                "place": utterance.place,
                "source": str(utterance.source),
                "text": utterance.target,
                "rule": _RULE,
                "why": one_line(error),
            }
        audio, _ = read_header(os.fspath(path))
        return _manifest_line(utterance, path, audio, self)

    def _write(self, path: Path, utterance: Utterance, others: OtherSpeakers) -> None:
        samples, rate_hz = read_mono(utterance.source)
        sent, _ = simulate(
            *(samples, rate_hz),
            seed=self.seed,
            key=utterance.key,
            ranges=self.channel,
            babble=others.all_but(utterance),
        )
        with replacing(path) as partial:
            soundfile.write(partial, to_pcm(sent), RATE_HZ, format="WAV", subtype="PCM_16")


def _lines(job: _Job, workers: int) -> Iterator[dict[str, Any]]:
    """The new lines in the manifest's order."""
    total = len(job.utterances)
    chunks = (range(first, min(first + _CHUNK, total)) for first in range(0, total, _CHUNK))
    num_workers = 1 if total <= _CHUNK else workers
    what = f"{job.audio_dir}: simulating"
    return itertools.chain.from_iterable(ordered(job, chunks, num_workers, what=what))


def _is_done(path: Path, source: Path) -> bool:
    """Whether a file was made from this source, as it is now."""
    try:
        return path.stat().st_mtime_ns >= source.stat().st_mtime_ns
    except FileNotFoundError:
        return False


def _manifest_line(utterance: Utterance, path: Path, audio: Audio, job: _Job) -> dict[str, Any]:
    source = path.relative_to(job.root) if path.is_relative_to(job.root) else path.resolve()
    kept = {name: value for name, value in utterance.tags.items() if name not in _STALE}
    line: dict[str, Any] = {
        "key": utterance.key,
        "source": source.as_posix(),
        "target": utterance.target,
        **kept,
        "source_len": audio.num_frames,
        "duration_s": round(audio.duration_s, 6),
        "sample_rate_hz": audio.sample_rate_hz,
    }
    if utterance.speaker is not None:
        line["speaker_id"] = utterance.speaker
    return line | draw_line(job.seed, utterance.key, job.channel).fields()


def _take(audio_dir: Path, identity: dict[str, Any]) -> None:
    """Makes the folder ours, emptied if it holds the audio of something else."""
    mark = audio_dir / _MARK
    if mark.is_file():
        if json.loads(mark.read_text(encoding="utf-8")) == identity:
            return
        for path in audio_dir.iterdir():  # the mark last: interrupted, the folder stays ours
            if path != mark:
                path.unlink()
    elif audio_dir.exists() and any(audio_dir.iterdir()):
        raise DataError(
            f"{audio_dir}: got a folder with other files, expected none, an empty one, or one that "
            "an earlier simulation wrote"
        )
    write_json(mark, identity, indent=None)


def _identity(manifests: Sequence[Path], channel: ChannelRange, seed: int) -> dict[str, Any]:
    digests = [file_sha256(manifest) for manifest in manifests]
    channel_digest = channel.fingerprint()
    return {"version": _VERSION, "channel": channel_digest, "seed": seed, "manifests": digests}


def _cores() -> int:
    return len(os.sched_getaffinity(0))
