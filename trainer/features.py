"""Audio to features, exactly as stock FunASR's ``generate`` computes them.

Audio is read by soundfile as float32, averaged to mono, resampled by torchaudio to the frontend's
rate and turned into fbank with stacked frames by FunASR's own ``WavFrontend``. With ``dither`` 0
the result depends on the file and the frontend alone, so a process keeps it in memory and shares
it among all the trials that it runs.
"""

from __future__ import annotations

import functools
import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import soundfile
import torch
import torchaudio

from conf.errors import DataError
from trainer.funasr_parts import registered
from trainer.manifest import Utterance


class FeatureCache:
    """Least recently used features of this process, bounded by size.

    Args:
        max_bytes: What may be kept; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._features: OrderedDict[tuple[Any, ...], torch.Tensor] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[Any, ...]) -> torch.Tensor | None:
        if (features := self._features.get(key)) is not None:
            self._features.move_to_end(key)
        return features

    def put(self, key: tuple[Any, ...], features: torch.Tensor) -> None:
        if (old := self._features.pop(key, None)) is not None:
            self._bytes -= old.nbytes
        self._features[key] = features
        self._bytes += features.nbytes
        while self._bytes > self.max_bytes:
            self._bytes -= self._features.popitem(last=False)[1].nbytes


_SHARED_CACHE = FeatureCache(max_bytes=0)


class FeatureExtractor:
    """FunASR's frontend behind a cache.

    Args:
        frontend: The registered name, ``WavFrontend``.
        conf: ``frontend_conf`` with absolute paths.
        cache_mb: Memory for features that cannot change (``dither`` 0), shared in the process.
    """

    def __init__(self, frontend: str, conf: Mapping[str, Any], cache_mb: int = 512) -> None:
        self._frontend = registered("frontend_classes", frontend)(**conf)
        self.sample_rate_hz: int = self._frontend.fs
        self.num_features: int = self._frontend.output_size()
        self._identity = json.dumps({"frontend": frontend, **conf}, sort_keys=True)
        self._cacheable = self._frontend.dither == 0.0
        _SHARED_CACHE.max_bytes = max(_SHARED_CACHE.max_bytes, cache_mb * 2**20)

    @property
    def frontend(self) -> Any:
        return self._frontend

    def __call__(self, utterance: Utterance) -> torch.Tensor:
        """Features of one utterance, ``features_TF``; callers must not write into them.

        Raises:
            DataError: The file cannot be read or holds no samples; names manifest and line.
        """
        if not self._cacheable:
            return self._extract(utterance)
        try:
            stat = utterance.source.stat()
        except OSError as error:
            raise _unreadable(utterance, error) from error
        key = (str(utterance.source), stat.st_mtime_ns, stat.st_size, self._identity)
        features = _SHARED_CACHE.get(key)
        if features is None:
            features = self._extract(utterance)
            _SHARED_CACHE.put(key, features)
        return features

    def _extract(self, utterance: Utterance) -> torch.Tensor:
        try:
            waveform = load_waveform(utterance.source, self.sample_rate_hz)
        except (OSError, RuntimeError) as error:
            raise _unreadable(utterance, error) from error
        if waveform.numel() == 0:
            raise _unreadable(utterance, ValueError("0 samples"))
        features_BTF, _ = self._frontend(waveform[None, :], [waveform.numel()])
        features_TF: torch.Tensor = features_BTF[0].to(torch.float32)
        return features_TF


def load_waveform(path: Path, sample_rate_hz: int) -> torch.Tensor:
    """Mono samples in [-1, 1] at the asked rate."""
    samples, rate_hz = soundfile.read(str(path), dtype="float32", always_2d=True)
    waveform = torch.from_numpy(samples)
    waveform = waveform[:, 0] if waveform.shape[1] == 1 else waveform.mean(-1)
    if rate_hz != sample_rate_hz and waveform.numel():
        waveform = _resampler(rate_hz, sample_rate_hz)(waveform[None, :])[0]
    return waveform


@functools.lru_cache(maxsize=8)
def _resampler(source_hz: int, target_hz: int) -> torch.nn.Module:
    resampler: torch.nn.Module = torchaudio.transforms.Resample(source_hz, target_hz)
    return resampler


def _unreadable(utterance: Utterance, error: BaseException) -> DataError:
    return DataError(
        f"{utterance.place}: source: got {str(utterance.source)!r} of utterance "
        f"{utterance.key!r} ({' '.join(str(error).split())}), expected readable audio"
    )
