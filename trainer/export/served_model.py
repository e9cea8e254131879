"""A packaged model as MLflow's registry serves it: recordings in, texts out.

This one file travels with the model (MLflow's "models from code") and needs nothing of this
project: stock FunASR loads the model directory, wherever the registry's copy is.

A row is one recording, in one of three forms:

| column | |
|---|---|
| `audio` | text: a whole audio file (WAV, FLAC, ...) in base64; or, in process, a `pathlib.Path` |
| `samples`, `sample_rate_hz` | mono samples between -1 and 1, and how many of them are a second |

A text is never taken for a path. What comes over HTTP (JSON, CSV, Parquet) can hold texts and
numbers but no `Path`, so no request makes a server open a file of its own, however it is served.

How large a request may be is looked at before anything is unpacked: a small file may claim, or
unpack to, more than there is memory.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

COLUMNS = ("audio", "samples", "sample_rate_hz")
FORMS = "expected audio (base64 of an audio file), or samples with sample_rate_hz"
MAX_DURATION_S = 300.0
"""As evaluation takes (finetune_conf.eval_max_s): memory grows with the square of the length."""
RATES_HZ = (1_000, 192_000)
_MAX_FILTERS = 50_000_000
MAX_ROWS = 64
MAX_BASE64_CHARS = 48_000_000
"""Of all rows: 36 MB of files, five minutes of 16 bits at 48 kHz and more."""
MAX_SAMPLES = 30_000_000
"""Of all rows, channels counted: 120 MB as they are computed with."""
MAX_CHANNELS = 8
_BLOCK_FRAMES = 65_536
_OWN_FILES = {"config": "config.yaml", "init_param": "model.pt"}
_FILE_KEYS = re.compile(
    r"jieba_usr_dict|(\w+_conf\.)+(init_param_path|vocab_path|cmvn_file|filters_path|bpemodel|"
    r"token_list|seg_dict|seg_dict_file|jieba_usr_dict|non_linguistic_symbols)"
)
_LOUDEST = 4.0
"""Floating-point recordings may exceed 1 a little; 16-bit integers exceed it by thousands."""


class Transcriber(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
    """Stock FunASR behind MLflow's interface."""

    def load_context(self, context: Any) -> None:
        """Load the model directory; on a GPU where there is one."""
        directory = Path(context.artifacts["model"])
        refuse_foreign_code(directory)
        import torch
        from funasr import AutoModel

        self._model = AutoModel(
            model=str(directory),
            trust_remote_code=False,  # whatever config.yaml says
            device="cuda" if torch.cuda.is_available() else "cpu",
            ncpu=torch.get_num_threads(),
            disable_update=True,
            disable_pbar=True,
        )
        # A server answers requests in threads, and FunASR keeps a call's settings in the model.
        self._lock = threading.Lock()

    # Without type hints: MLflow would make a signature of them, and lists are all that it knows.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Transcribe each row of a table, in order; a list of texts.

        Raises:
            MlflowException: A row is no recording, or there is too much; the message names it.
                Nothing is transcribed.
        """
        if len(model_input) > MAX_ROWS:
            raise _bad("input", f"got {len(model_input)} rows, expected at most {MAX_ROWS}")
        if not set(COLUMNS) & set(model_input.columns):
            raise _bad("input", f"got none of these columns, {FORMS}")
        rows = model_input.to_dict("records")
        recordings = _recordings(rows)
        return [self._transcribe(*recording) for recording in recordings]

    def _transcribe(self, samples: Any, rate_hz: int) -> str:
        import torch

        # A tensor goes the way of a file from here on: FunASR resamples it from `audio_fs`.
        with self._lock:
            [heard] = self._model.generate(input=torch.from_numpy(samples), audio_fs=rate_hz)
        text: str = heard["text"]
        return text


def refuse_foreign_code(directory: Path) -> None:
    """Look at a model directory before FunASR does, as conf/model_dir.py does at every other place.

    Raises:
        MlflowException: Its configuration.json names code, or what lies outside.
    """
    path = directory / "configuration.json"
    if not path.is_file():
        return
    try:
        metas = json.loads(path.read_text(encoding="utf-8")).get("file_path_metas", {})
        bad = next(_foreign(directory.resolve(), metas), None)
    except (ValueError, AttributeError):
        raise _bad(str(path), "got something else, expected a JSON object") from None
    if bad is not None:
        raise _bad(str(path), f"file_path_metas.{bad}: expected files of this directory alone")


def _foreign(directory: Path, metas: Mapping[str, Any], block: str = "") -> Iterator[str]:
    for name, value in metas.items():
        key = f"{block}{name}"
        if isinstance(value, dict):
            yield from _foreign(directory, value, f"{key}.")
        elif not (
            isinstance(value, str)
            and (_OWN_FILES.get(key) == value or _FILE_KEYS.fullmatch(key))
            and not Path(value).is_absolute()
            and ".." not in Path(value).parts
            and "\0" not in value
            and (directory / value).resolve().is_relative_to(directory)
        ):
            yield key


def _recordings(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Any, int]]:
    chars = sum(len(row["audio"]) for row in rows if isinstance(row.get("audio"), str))
    if chars > MAX_BASE64_CHARS:
        raise _bad(
            "input", f"got {chars} characters of base64, expected at most {MAX_BASE64_CHARS}"
        )
    recordings, room = [], MAX_SAMPLES
    for number, row in enumerate(rows):
        samples, rate_hz = _recording(row, f"row {number}", room)
        room -= samples.size
        recordings.append((samples, rate_hz))
    return recordings


def _recording(row: Mapping[str, Any], place: str, room: int) -> tuple[Any, int]:
    """Mono float32 samples, no more than there is room for, and their rate."""
    given = {name: row[name] for name in COLUMNS if name in row and not _missing(row[name])}
    if ("audio" in given) == ("samples" in given):
        raise _bad(place, f"got {' and '.join(given) or 'no recording'}, {FORMS}")
    if "audio" in given:
        if "sample_rate_hz" in given:
            raise _bad(place, "sample_rate_hz: got one with audio, expected it with samples alone")
        return _read(given["audio"], place, room)
    if "sample_rate_hz" not in given:
        raise _bad(place, "sample_rate_hz: got none, expected the rate of samples")
    rate_hz = _whole(given["sample_rate_hz"], f"{place}: sample_rate_hz")
    samples = _floats(given["samples"], f"{place}: samples")
    _check_size(samples.size, 1, rate_hz, place, room)
    return _checked(samples, place), rate_hz


def _read(audio: Any, place: str, room: int) -> tuple[Any, int]:
    """As FunASR reads a file: float32, its channels averaged; but not before its header."""
    import soundfile

    source, what = _source(audio, f"{place}: audio")
    try:
        with soundfile.SoundFile(source) as file:
            rate_hz = file.samplerate
            _check_size(file.frames, file.channels, rate_hz, place, room)
            samples, heard = numpy.empty(file.frames, numpy.float32), 0
            # In blocks: all channels at once would be several times the recording.
            while len(block := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
                mono = block[:, 0] if file.channels == 1 else block.mean(-1)
                samples[heard : heard + len(mono)] = mono
                heard += len(mono)
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        raise _bad(
            f"{place}: audio",
            f"got {what} that cannot be read as audio ({type(error).__name__})",
        ) from None
    return _checked(samples[:heard], place), rate_hz


def _source(audio: Any, place: str) -> tuple[Any, str]:
    """What soundfile opens, and what a message calls it."""
    if isinstance(audio, Path):
        if not audio.is_file():
            raise _bad(place, f"got {str(audio)!r}, which is no file")
        return str(audio), repr(str(audio))
    if not isinstance(audio, str):
        raise _bad(place, f"got a {type(audio).__name__}, expected base64 text or a pathlib.Path")
    try:
        encoded = audio.encode("ascii").translate(None, b" \t\r\n")
        return io.BytesIO(base64.b64decode(encoded, validate=True)), "bytes"
    except (binascii.Error, ValueError):
        raise _bad(
            place,
            "got a text that is no base64, expected that of an audio file "
            "(a path is taken in process alone, as a pathlib.Path)",
        ) from None


def _floats(values: Any, place: str) -> Any:
    try:
        samples = numpy.asarray(values, dtype=numpy.float32)
    except (TypeError, ValueError):
        raise _bad(place, "got values that are no numbers, expected samples") from None
    if samples.ndim != 1:
        raise _bad(place, f"got an array of {samples.ndim} dimensions, expected mono samples")
    return samples


def _whole(value: Any, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | numpy.number):
        raise _bad(place, f"got {value!r:.80}, expected a rate in Hz")
    if not math.isfinite(value) or value != int(value):
        raise _bad(place, f"got {value}, expected a whole number of Hz")
    return int(value)


def _check_size(frames: int, channels: int, rate_hz: int, place: str, room: int) -> None:
    """Say what is wrong with a recording by its header alone."""
    low, high = RATES_HZ
    # FunASR resamples to a multiple of 8 kHz; an odd ratio would take gigabytes of filters.
    ratio = math.gcd(rate_hz, 16_000)
    if not low <= rate_hz <= high or rate_hz // ratio * (16_000 // ratio) > _MAX_FILTERS:
        raise _bad(place, f"got {rate_hz} Hz, expected a common rate from {low} to {high} Hz")
    if frames > MAX_DURATION_S * rate_hz:
        seconds = frames / rate_hz
        raise _bad(place, f"got {seconds:.0f} s, expected at most {MAX_DURATION_S:.0f} s; cut it")
    if channels > MAX_CHANNELS:
        raise _bad(place, f"got {channels} channels, expected at most {MAX_CHANNELS}")
    if frames * channels > room:
        raise _bad(
            place,
            f"got {frames * channels} samples where {room} of {MAX_SAMPLES} are left, expected a"
            " smaller request",
        )


def _checked(samples: Any, place: str) -> Any:
    if samples.size < 2:
        raise _bad(place, f"got {samples.size} samples, expected a recording")
    loudest = float(max(samples.max(), -samples.min()))
    if not loudest <= _LOUDEST:  # NaN, too
        raise _bad(
            place,
            f"got samples up to {loudest:g}, expected them between -1 and 1 "
            "(16-bit integers divided by 32768)",
        )
    return numpy.ascontiguousarray(samples)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _bad(place: str, problem: str) -> MlflowException:
    """What a server answers with status 400, and without the traceback that names its files."""
    return MlflowException(f"{place}: {problem}", error_code=INVALID_PARAMETER_VALUE)


mlflow.models.set_model(Transcriber())
