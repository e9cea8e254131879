"""What a served model takes and refuses; FunASR itself is replaced by one that notes its input."""

from __future__ import annotations

import base64
import io
import math
import multiprocessing
import resource
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
import soundfile
from mlflow.exceptions import MlflowException

from conf.errors import DataError
from conf.model_dir import file_paths
from tests.conf.test_model_dir import FOREIGN, RELEASED_METAS, described
from trainer.export import served_model as module
from trainer.export.served_model import Transcriber, refuse_foreign_code

pytestmark = pytest.mark.quick


class Heard:
    """Stands in for `funasr.AutoModel`."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, int]] = []

    def generate(self, input: Any, audio_fs: int) -> list[dict[str, str]]:
        self.calls.append((input.numpy(), audio_fs))
        return [{"text": f"text {len(self.calls)}"}]


@pytest.fixture
def transcriber() -> Transcriber:
    made = Transcriber()
    made._model, made._lock = Heard(), threading.Lock()
    return made


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "call.wav"
    soundfile.write(path, numpy.sin(numpy.arange(4000) / 7) / 2, 8000)
    return path


def predict(transcriber: Transcriber, *rows: dict[str, Any]) -> list[str]:
    texts: list[str] = transcriber.predict(None, pandas.DataFrame(list(rows)))
    return texts


def test_path_base64_and_samples_are_the_same_recording(
    transcriber: Transcriber, wav: Path
) -> None:
    samples, rate_hz = soundfile.read(wav, dtype="float32")
    rows: list[dict[str, Any]] = [
        {"audio": wav},
        {"audio": base64.b64encode(wav.read_bytes()).decode()},
        {"audio": base64.encodebytes(wav.read_bytes()).decode()},  # in lines
        {"samples": samples, "sample_rate_hz": rate_hz},
        {"samples": samples.astype("float64").tolist(), "sample_rate_hz": 8000.0},
    ]
    assert [predict(transcriber, row) for row in rows] == [[f"text {n}"] for n in range(1, 6)]
    for heard, rate_hz in transcriber._model.calls:
        assert rate_hz == 8000
        assert heard.dtype == numpy.float32
        numpy.testing.assert_array_equal(heard, samples)


def test_channels_are_averaged(transcriber: Transcriber, tmp_path: Path) -> None:
    both = numpy.stack([numpy.full(100, 0.5), numpy.full(100, -0.25)], axis=1)
    soundfile.write(tmp_path / "two.wav", both, 16000)
    predict(transcriber, {"audio": tmp_path / "two.wav"})
    [(heard, rate_hz)] = transcriber._model.calls
    assert rate_hz == 16000
    numpy.testing.assert_allclose(heard, numpy.full(100, 0.125), atol=1e-4)


def test_no_text_is_ever_a_path(transcriber: Transcriber, wav: Path, tmp_path: Path) -> None:
    (tmp_path / "wave").write_bytes(wav.read_bytes())  # its name is good base64
    names = [str(wav), wav.as_uri(), "/etc/passwd", "file:///etc/passwd", "wave", "abcd", ""]
    names += ["http://localhost/call.wav", "data:audio/wav;base64,AAAA"]
    for name in names:
        with pytest.raises(MlflowException, match=r"^row 0: audio: got ") as error:
            predict(transcriber, {"audio": name})
        assert error.value.get_http_status_code() == 400
    assert transcriber._model.calls == []


TONE = numpy.zeros(800, "float32")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"sample_rate_hz": 8000}, "got sample_rate_hz, expected audio"),
        ({"audio": None}, "got no recording"),
        ({"samples": TONE}, "sample_rate_hz: got none, expected the rate of samples"),
        ({"audio": "AAAA", "samples": TONE}, "got audio and samples, expected audio"),
        ({"audio": "AAAA", "sample_rate_hz": 8000}, "got one with audio"),
        ({"audio": 5}, "audio: got a float, expected base64 text or a pathlib.Path"),
        ({"audio": Path("none.wav")}, "got 'none.wav', which is no file"),
        ({"audio": Path(__file__)}, "that cannot be read as audio"),
        ({"samples": ["a"], "sample_rate_hz": 8000}, "samples: got values that are no numbers"),
        ({"samples": [TONE], "sample_rate_hz": 8000}, "samples: got an array of 2 dimensions"),
        ({"samples": TONE, "sample_rate_hz": "8k"}, "sample_rate_hz: got '8k', expected a rate"),
        ({"samples": TONE, "sample_rate_hz": 0.5}, "got 0.5, expected a whole number of Hz"),
        ({"samples": TONE, "sample_rate_hz": math.inf}, "got inf, expected a whole number of Hz"),
        ({"samples": TONE, "sample_rate_hz": -math.inf}, "got -inf, expected a whole number"),
        ({"samples": TONE, "sample_rate_hz": math.nan}, "sample_rate_hz: got none"),
        ({"samples": TONE, "sample_rate_hz": 1e30}, "Hz, expected a common rate"),
        ({"samples": TONE, "sample_rate_hz": 0}, "got 0 Hz, expected a common rate"),
        ({"samples": TONE, "sample_rate_hz": 44101}, "got 44101 Hz, expected a common rate"),
        ({"samples": TONE[:1], "sample_rate_hz": 8000}, "got 1 samples"),
        ({"samples": TONE + 3000, "sample_rate_hz": 8000}, r"got samples up to 3000, .*32768"),
        ({"samples": TONE * numpy.nan, "sample_rate_hz": 8000}, "got samples up to nan"),
        ({"samples": numpy.zeros(301_000), "sample_rate_hz": 1000}, "got 301 s, .* at most 300 s"),
    ],
)
def test_what_is_no_recording_is_told(
    transcriber: Transcriber, row: dict[str, Any], message: str
) -> None:
    good = {"samples": TONE, "sample_rate_hz": 8000}
    with pytest.raises(MlflowException, match=rf"^row 1: .*{message}") as error:
        predict(transcriber, good, row)
    assert error.value.get_http_status_code() == 400
    assert transcriber._model.calls == []  # not even the good one


def test_a_table_of_something_else(transcriber: Transcriber) -> None:
    with pytest.raises(MlflowException, match=r"^input: got none of these columns, expected audio"):
        predict(transcriber, {"path": "call.wav"})


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def silence(seconds: float, channels: int, rate_hz: int = 8000, form: str = "FLAC") -> bytes:
    content = io.BytesIO()
    with soundfile.SoundFile(
        content, "w", rate_hz, channels, format=form, subtype="PCM_16"
    ) as file:
        block = numpy.zeros((rate_hz, channels), "int16")
        for _ in range(int(seconds)):
            file.write(block)
    return content.getvalue()


def claims(samples: int) -> bytes:
    """A FLAC file of a second whose header tells of more."""
    content = bytearray(silence(1, 1))
    before = int.from_bytes(content[18:26], "big") >> 36 << 36
    content[18:26] = (before | samples).to_bytes(8, "big")
    return bytes(content)


def riff(data_bytes: int, channels: int = 1, rate_hz: int = 8000) -> bytes:
    """A WAV header alone."""
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36, b"WAVE", b"fmt ", 16, 1, channels, rate_hz),
        *(2 * channels * rate_hz & 0xFFFFFFFF, 2 * channels, 16, b"data", data_bytes),
    )


BOMBS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "silence of hours in 8 channels": lambda: [{"audio": encoded(silence(1000, 8))}],
    "a header of 60e9 samples": lambda: [{"audio": encoded(claims(60_000_000_000))}],
    "a header of gigabytes": lambda: [{"audio": encoded(riff(0xFFFFFFFF, 8))}],
    "a thousand channels": lambda: [{"audio": encoded(silence(1, 1000, form="WAV"))}],
    "a rate of gigahertz": lambda: [{"audio": encoded(riff(8, rate_hz=4_000_000_000))}],
    "half a minute of 8 channels at 192 kHz": lambda: [{"audio": encoded(silence(30, 8, 192_000))}],
    "base64 without an end": lambda: [{"audio": "A" * (module.MAX_BASE64_CHARS + 4)}],
    "nothing but spaces": lambda: [{"audio": " A" * (module.MAX_BASE64_CHARS // 2)}],
    "many rows": lambda: [{"audio": "AAAA"}] * 100_000,
    "five minutes again and again": lambda: [{"audio": encoded(silence(299, 1, 48_000))}] * 60,
    "more samples than there is room for": lambda: [
        {"samples": numpy.zeros(module.MAX_SAMPLES + 1, "float32"), "sample_rate_hz": 192_000}
    ],
    "an endless rate": lambda: [{"samples": [0.0, 0.1], "sample_rate_hz": math.inf}],
}
MAX_GROWTH_BYTES = 300_000_000


@pytest.mark.attack
@pytest.mark.parametrize("name", BOMBS)
def test_what_would_unpack_to_more_than_there_is_memory_is_told(name: str) -> None:
    """In a process of its own, whose memory at most is that of the one request."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        status, message, grown = pool.apply(_refused, (name,))
    assert status == 400
    assert len(message.splitlines()) == 1
    assert len(message) < 300
    assert grown < MAX_GROWTH_BYTES


def _refused(name: str) -> tuple[int, str, int]:
    """Status, message, and by how many bytes this process has grown."""
    made = Transcriber()
    made._model, made._lock = Heard(), threading.Lock()
    table = pandas.DataFrame(BOMBS[name]())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MlflowException) as refused:
        made.predict(None, table)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return refused.value.get_http_status_code(), str(refused.value), grown


@pytest.mark.attack
@pytest.mark.parametrize("metas", FOREIGN)
def test_a_foreign_directory_is_refused_as_at_every_other_place(
    metas: dict[str, Any], tmp_path: Path
) -> None:
    directory = described(tmp_path, metas)
    with pytest.raises(DataError):
        file_paths(directory)
    with pytest.raises(MlflowException, match=r"configuration\.json: file_path_metas"):
        refuse_foreign_code(directory)


@pytest.mark.parametrize("name", RELEASED_METAS)
def test_whatever_released_models_name_is_served(name: str, tmp_path: Path) -> None:
    refuse_foreign_code(described(tmp_path, RELEASED_METAS[name]))
