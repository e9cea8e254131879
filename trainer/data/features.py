"""Audio to features, exactly as stock FunASR's ``generate`` computes them.

Audio is read by soundfile as float32, averaged to mono, resampled by torchaudio to the frontend's
rate and turned into fbank with stacked frames by FunASR's own ``WavFrontend``. With ``dither`` 0
the result depends on the file's content and the frontend alone, so it is computed once and kept
in a store that all trials and processes share (:mod:`trainer.data.array_store`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy
import numpy.typing
import soundfile
import torch
import torchaudio

from conf.errors import DataError
from conf.files import file_sha256
from trainer import funasr_parts
from trainer.data.array_store import ArrayStore, key_of
from trainer.data.manifest import Utterance, one_line
from trainer.funasr_parts import registered

_MAX_FILTERS = 50_000_000


class FeatureExtractor:
    """FunASR's frontend behind a store.

    Args:
        frontend: The registered name, ``WavFrontend``.
        conf: ``frontend_conf`` with absolute paths.
        store: Where features that cannot change (``dither`` 0) are kept; None computes each time.
    """

    def __init__(
        self, frontend: str, conf: Mapping[str, Any], store: ArrayStore | None = None
    ) -> None:
        self._frontend = registered("frontend_classes", frontend)(**conf)
        self.sample_rate_hz: int = self._frontend.fs
        self.num_features: int = self._frontend.output_size()
        self.store = store if self._frontend.dither == 0.0 else None
        self.identity = _identity(frontend, conf)

    @property
    def frontend(self) -> Any:
        return self._frontend

    def __call__(self, utterance: Utterance) -> torch.Tensor:
        """Features of one utterance, ``features_TF``; the caller's own.

        Raises:
            DataError: The file cannot be read or is too short; names manifest and line.
        """
        if self.store is None:
            return self._extract(utterance, None)
        digest, content = self._content(utterance)
        key = key_of(digest, self.identity)
        features_TF = self.store.get(key)
        if features_TF is None:
            features_TF = self._extract(utterance, content)
            self.store.put(key, features_TF)
        return features_TF

    def cache_key(self, utterance: Utterance) -> bytes | None:
        """What the features are kept under: a digest of all that decides them.

        None if they are not kept: no store, or ``dither`` draws them anew each time. It also
        identifies what is computed from them, with :func:`trainer.data.array_store.key_of`.

        Raises:
            DataError: The file cannot be read; names manifest and line.
        """
        if self.store is None:
            return None
        return key_of(self._content(utterance)[0], self.identity)

    def of_samples(
        self, utterance: Utterance, samples: numpy.typing.NDArray[numpy.float32], rate_hz: int
    ) -> torch.Tensor:
        """Features of samples that stand in the place of an utterance's own; nothing is kept.

        Args:
            utterance: For messages.
            samples: Mono.
            rate_hz: Their sample rate.

        Returns:
            What a file with these samples would give.
        """
        with _one_thread():
            waveform = _resample(torch.from_numpy(samples), rate_hz, self.sample_rate_hz)
            return self._features(utterance, waveform)

    def _content(self, utterance: Utterance) -> tuple[bytes, BinaryIO | None]:
        assert self.store is not None
        try:
            return self.store.content(utterance.source)
        except OSError as error:
            raise unreadable(utterance, error) from error

    def _extract(self, utterance: Utterance, content: BinaryIO | None) -> torch.Tensor:
        with _one_thread():
            return self._compute(utterance, content)

    def _compute(self, utterance: Utterance, content: BinaryIO | None) -> torch.Tensor:
        try:
            waveform = load_waveform(utterance.source, self.sample_rate_hz, content)
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            raise unreadable(utterance, error) from error
        return self._features(utterance, waveform)

    def _features(self, utterance: Utterance, waveform: torch.Tensor) -> torch.Tensor:
        # FunASR's frontend shortens its window to the recording, down to two samples.
        if waveform.numel() < 2:
            raise unreadable(utterance, ValueError(f"{waveform.numel()} samples"))
        if not torch.isfinite(waveform).all():
            raise unreadable(utterance, ValueError("samples that are no numbers"))
        features_BTF, _ = self._frontend(waveform[None, :], [waveform.numel()])
        features_TF: torch.Tensor = features_BTF[0].to(torch.float32)
        return features_TF


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums are rounded in another way with another number of threads; workers have one."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _identity(frontend: str, conf: Mapping[str, Any]) -> str:
    """All that decides features beside the audio: contents of files count, not their paths."""
    values = dict(conf)
    if cmvn := values.get("cmvn_file"):
        values["cmvn_file"] = file_sha256(Path(cmvn))
    versions = {
        "funasr": funasr_parts.version(),
        "torchaudio": importlib.metadata.version("torchaudio"),
        "torch": torch.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
        # Other instructions may round in another way.
        "cpu": f"{os.uname().machine} {torch.backends.cpu.get_cpu_capability()}",
    }
    return json.dumps({"frontend": frontend, "conf": values, **versions}, sort_keys=True)


def load_waveform(path: Path, sample_rate_hz: int, content: BinaryIO | None = None) -> torch.Tensor:
    """Mono samples in [-1, 1] at the asked rate.

    Args:
        path: The file.
        sample_rate_hz: Of the result.
        content: The file's bytes where they were read before.

    Raises:
        OSError, RuntimeError, TypeError, ValueError: It cannot be read, in soundfile's words, or
            has a rate that is not for resampling.
    """
    samples, rate_hz = soundfile.read(content or str(path), dtype="float32", always_2d=True)
    waveform = torch.from_numpy(samples)
    waveform = waveform[:, 0] if waveform.shape[1] == 1 else waveform.mean(-1)
    return _resample(waveform, rate_hz, sample_rate_hz)


def _resample(waveform: torch.Tensor, source_hz: int, target_hz: int) -> torch.Tensor:
    if source_hz == target_hz or not waveform.numel():
        return waveform
    resampled: torch.Tensor = _resampler(source_hz, target_hz)(waveform[None, :])[0]
    return resampled


@functools.lru_cache(maxsize=8)
def _resampler(source_hz: int, target_hz: int) -> torch.nn.Module:
    common = math.gcd(source_hz, target_hz)
    if source_hz // common * (target_hz // common) > _MAX_FILTERS:
        # torchaudio would make a filter for each pair of phases: gigabytes.
        raise ValueError(f"{source_hz} Hz, no simple ratio to {target_hz} Hz")
    resampler: torch.nn.Module = torchaudio.transforms.Resample(source_hz, target_hz)
    return resampler


def unreadable(utterance: Utterance, error: BaseException) -> DataError:
    return DataError(
        f"{utterance.place}: source: got {str(utterance.source)!r} of utterance "
        f"{utterance.key!r} ({one_line(error)}), expected readable audio"
    )
