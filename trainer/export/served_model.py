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
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import threading
from collections.abc import Mapping
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
_LOUDEST = 4.0
"""Floating-point recordings may exceed 1 a little; 16-bit integers exceed it by thousands."""


class Transcriber(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
    """Stock FunASR behind MLflow's interface."""

    def load_context(self, context: Any) -> None:
        """Load the model directory; on a GPU where there is one."""
        import torch
        from funasr import AutoModel

        self._model = AutoModel(
            model=context.artifacts["model"],
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
            MlflowException: A row is no recording; the message names it. Nothing is transcribed.
        """
        if not set(COLUMNS) & set(model_input.columns):
            raise _bad("input", f"got none of these columns, {FORMS}")
        rows = model_input.to_dict("records")
        recordings = [_recording(row, f"row {number}") for number, row in enumerate(rows)]
        return [self._transcribe(*recording) for recording in recordings]

    def _transcribe(self, samples: Any, rate_hz: int) -> str:
        import torch

        # A tensor goes the way of a file from here on: FunASR resamples it from `audio_fs`.
        with self._lock:
            [heard] = self._model.generate(input=torch.from_numpy(samples), audio_fs=rate_hz)
        text: str = heard["text"]
        return text


def _recording(row: Mapping[str, Any], place: str) -> tuple[Any, int]:
    """Mono float32 samples and their rate."""
    given = {name: row[name] for name in COLUMNS if name in row and not _missing(row[name])}
    if ("audio" in given) == ("samples" in given):
        raise _bad(place, f"got {' and '.join(given) or 'no recording'}, {FORMS}")
    if "audio" in given:
        if "sample_rate_hz" in given:
            raise _bad(place, "sample_rate_hz: got one with audio, expected it with samples alone")
        samples, rate_hz = _read(given["audio"], f"{place}: audio")
    elif "sample_rate_hz" not in given:
        raise _bad(place, "sample_rate_hz: got none, expected the rate of samples")
    else:
        samples = _floats(given["samples"], f"{place}: samples")
        rate_hz = _whole(given["sample_rate_hz"], f"{place}: sample_rate_hz")
    return _checked(samples, rate_hz, place), rate_hz


def _read(audio: Any, place: str) -> tuple[Any, int]:
    """As FunASR reads a file: float32, its channels averaged."""
    import soundfile

    if isinstance(audio, Path):
        source: Any = str(audio)
        if not audio.is_file():
            raise _bad(place, f"got {str(audio)!r}, which is no file")
    elif isinstance(audio, str):
        try:
            source = io.BytesIO(base64.b64decode("".join(audio.split()), validate=True))
        except (binascii.Error, ValueError):
            raise _bad(
                place,
                "got a text that is no base64, expected that of an audio file "
                "(a path is taken in process alone, as a pathlib.Path)",
            ) from None
    else:
        raise _bad(place, f"got a {type(audio).__name__}, expected base64 text or a pathlib.Path")
    try:
        samples, rate_hz = soundfile.read(source, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        what = repr(source) if isinstance(source, str) else "bytes"
        raise _bad(
            place, f"got {what} that cannot be read as audio ({type(error).__name__})"
        ) from None
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(-1), rate_hz


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
        raise _bad(place, f"got {value!r}, expected a rate in Hz")
    if value != int(value):
        raise _bad(place, f"got {value}, expected a whole number of Hz")
    return int(value)


def _checked(samples: Any, rate_hz: int, place: str) -> Any:
    low, high = RATES_HZ
    # FunASR resamples to a multiple of 8 kHz; an odd ratio would take gigabytes of filters.
    ratio = math.gcd(rate_hz, 16_000)
    if not low <= rate_hz <= high or rate_hz // ratio * (16_000 // ratio) > _MAX_FILTERS:
        raise _bad(place, f"got {rate_hz} Hz, expected a common rate from {low} to {high} Hz")
    if samples.size < 2:
        raise _bad(place, f"got {samples.size} samples, expected a recording")
    if samples.size > MAX_DURATION_S * rate_hz:
        seconds = samples.size / rate_hz
        raise _bad(place, f"got {seconds:.0f} s, expected at most {MAX_DURATION_S:.0f} s; cut it")
    loudest = float(numpy.abs(samples).max())
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
