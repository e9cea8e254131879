"""Speak one shard of sentences with eSpeak NG, always as a fresh process.

    python -m trainer.demo.speech JOBS.jsonl

eSpeak NG keeps state between calls, so the same call twice in one process differs; a fresh process
that speaks the same jobs in the same order repeats bit for bit. It is GPL-3 and an optional extra:
nothing but this child process loads it, through ctypes.
"""

import ctypes
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from trainer.channel.draws import generator
from trainer.demo.fixed_line import (
    TELEPHONE_RATE_HZ,
    ChannelRange,
    Samples,
    noise_for,
    rms,
    simulate,
)

INSTALL_HINT = (
    "espeakng_loader: got no such package, expected eSpeak NG, which speaks the demonstration's "
    "corpus: pip install 'telesweep[demo]'"
)
NOT_INSTALLED = 3  # exit code

WIDEBAND_RATE_HZ = 16000
LEVEL_DBFS = -23.0
ROOM_SNR_DB = (12.0, 40.0)
# Quieter lines than the default: a model of half a million weights shall learn them from 280 calls.
LINES = ChannelRange(snr_db=(20.0, 35.0), loss_rate=(0.0, 0.03))

# Of eSpeak NG's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_DO_NOT_EXIT = 0x8000
_POS_CHARACTER = 1
_CHARS_UTF8 = 1
_RATE, _PITCH = 1, 3
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


Job = dict[str, Any]


class Speaker:
    """eSpeak NG's synthesiser; one per process."""

    def __init__(self) -> None:
        import espeakng_loader

        self._chunks: list[npt.NDArray[np.int16]] = []
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.sample_rate_hz = int(
            self._library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, data, _DO_NOT_EXIT)
        )
        if self.sample_rate_hz <= 0:
            raise RuntimeError(f"eSpeak NG did not start: it returned {self.sample_rate_hz}")
        self._callback = _CALLBACK(self._collect)  # ctypes does not keep it alive for us
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: Any, count: int, _events: int) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, text: str, *, variant: str, rate_wpm: int, pitch: int) -> Samples:
        """Mandarin text as mono samples in [-1, 1] at `sample_rate_hz`."""
        voice = f"cmn+{variant}"
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RuntimeError(f"eSpeak NG has no voice {voice}")
        self._library.espeak_SetParameter(_RATE, rate_wpm, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        self._chunks.clear()
        encoded = text.encode()
        self._library.espeak_Synth(
            encoded, len(encoded) + 1, 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None
        )
        if not self._chunks:
            raise RuntimeError(f"eSpeak NG said nothing for {text!r}")
        return np.concatenate(self._chunks).astype(np.float32) / np.float32(32768)


def speak(jobs: Path) -> None:
    """Write the wav of every job in order; relative paths are relative to the jobs' file."""
    speaker = Speaker()
    for line in jobs.read_text(encoding="utf-8").splitlines():
        job = json.loads(line)
        samples = speaker.say(
            job["text"], variant=job["variant"], rate_wpm=job["rate_wpm"], pitch=job["pitch"]
        )
        # Played a little too fast or too slowly, it is a voice with another length of vocal tract.
        rate_hz = speaker.sample_rate_hz * job["warp"]
        sent, sent_rate_hz = CHANNELS[job["channel"]](samples, rate_hz, job)
        sent = np.clip(sent, -1.0, 1.0)
        soundfile.write(jobs.parent / job["wav"], sent, sent_rate_hz, subtype="PCM_16")


def _resampled(samples: Samples, rate_hz: float, output_rate_hz: int) -> Samples:
    output = soxr.resample(samples, rate_hz, output_rate_hz)
    return np.asarray(output * 10 ** (LEVEL_DBFS / 20) / rms(output), dtype=np.float32)


def _wideband(samples: Samples, rate_hz: float, _job: Job) -> tuple[Samples, int]:
    return _resampled(samples, rate_hz, WIDEBAND_RATE_HZ), WIDEBAND_RATE_HZ


def _noisy(samples: Samples, rate_hz: float, job: Job) -> tuple[Samples, int]:
    speech, rng = _resampled(samples, rate_hz, WIDEBAND_RATE_HZ), generator(job["seed"], job["key"])
    snr_db, tilt = rng.uniform(*ROOM_SNR_DB), rng.uniform(0.0, 1.0)
    noise = noise_for(speech, rng, snr_db=snr_db, tilt=tilt).astype(np.float32)
    return np.asarray(speech + noise, dtype=np.float32), WIDEBAND_RATE_HZ


def _narrowband(samples: Samples, rate_hz: float, _job: Job) -> tuple[Samples, int]:
    return _resampled(samples, rate_hz, TELEPHONE_RATE_HZ), TELEPHONE_RATE_HZ


def _telephone(samples: Samples, rate_hz: float, job: Job) -> tuple[Samples, int]:
    line = simulate(samples, rate_hz, seed=job["seed"], key=job["key"], ranges=LINES)
    return line, TELEPHONE_RATE_HZ


# What happens to the samples on their way into the file: each gives samples and their rate.
CHANNELS: dict[str, Callable[[Samples, float, Job], tuple[Samples, int]]] = {
    "wideband": _wideband,
    "noisy": _noisy,
    "narrowband": _narrowband,
    "telephone": _telephone,
}


def main() -> int:
    """Speak the shard named on the command line."""
    try:
        import espeakng_loader  # noqa: F401
    except ImportError:
        print(INSTALL_HINT, file=sys.stderr)
        return NOT_INSTALLED
    speak(Path(sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
