"""The demonstration's corpus, made on first use by `ensure` or by `python -m trainer demo`.

Telephone speech for fine-tuning (train, valid, test), clean 16 kHz speech of the valid and test
voices (wideband, which shows what fine-tuning makes the model forget) and lines on which nobody
speaks (silence, where every character is one too many). Sentences are drawn in this process; two
fresh child processes speak them (trainer/demo/speech.py), always the same ones each, so that the
same files come out bit for bit on the same kind of processor.
"""

import dataclasses
import hashlib
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import soundfile

from conf.errors import DataError, UserError, WorkError
from conf.files import file_sha256, write_json
from conf.progress import Progress
from trainer.demo.sentences import sentences

logger = logging.getLogger(__name__)

# Of the made files on x86-64; another processor may round a last bit differently. A corpus that was
# made when another value stood here is made anew.
CHECKSUM = "e48f2c1c1e156cd7da4352555681c40edfdaeddacb3361252ea883c22c619d02"
NUM_SHARDS = 2
RATES_WPM = (160, 210)
PITCHES = (35, 65)  # of 0 to 99; 50 is the voice's own

# Variants of eSpeak NG 1.52 that repeat bit for bit (those with an echo do not) and neither
# whisper nor rush. Variants of one family are on one side; caricatures (a formant removed or
# doubled) are in the base only.
BASE_VOICES = (
    *("klatt", "klatt2", "klatt3", "klatt4", "klatt5", "iven", "iven2", "iven3", "iven4"),
    *("steph", "steph2", "steph3", "edward", "edward2", "Gene", "Gene2", "Mike", "mike2"),
    *("m1", "m3", "m4", "m5", "m6", "Andy", "AnxiousAndy", "Denis", "Lee", "ian", "shelby"),
    *("travis", "david", "grandma", "kaukovalta", "Andrea", "antonio", "max", "Tweaky"),
)
TRAIN_VOICES = (
    *("m7", "m8", "Alex", "Jacky", "Nguyen", "Reed", "benjamin", "caleb", "f1", "gustave"),
    *("john", "marcelo", "pedro", "quincy", "zac", "anika"),
)
VALID_VOICES = ("Annie", "Michael", "Mario", "belinda", "boris", "norbert", "paul", "rob")
TEST_VOICES = ("Mr serious", "adam", "ed", "aunty", "grandpa", "klatt6", "linda", "robert")


@dataclass(frozen=True)
class Part:
    """One manifest of a corpus: whose voices say how many sentences of which split, over what.

    Without voices nothing is said: what is recorded is the line's noise.
    """

    name: str
    split: str | None  # of trainer.demo.sentences
    voices: Sequence[str]
    num_utterances: int
    channel: str  # a key of trainer.demo.speech.CHANNELS
    seed: int = 0
    warps: tuple[float, float] = (1.0, 1.0)  # range of the voice's playing speed


PARTS = (
    Part("train", "train", TRAIN_VOICES, 320, "telephone"),
    Part("valid", "valid", VALID_VOICES, 120, "telephone"),
    Part("test", "test", TEST_VOICES, 120, "telephone"),
    Part("wideband", "wideband", VALID_VOICES + TEST_VOICES, 100, "wideband"),
    Part("silence", None, (), 12, "telephone"),
)
SILENCE_S = (1.0, 4.0)
SILENCE_DBFS = (-55.0, -40.0)

README = """# Made speech, not real calls

Everything in this directory was made by `python -m trainer demo`: random sentences of a telephone
service, read by the speech synthesiser eSpeak NG and, for train, valid and test, put through a
simulated telephone line; silence is the noise of such lines. Nobody said these sentences, and no
name, number or address in them is anyone's. The speech is robotic: a demonstration, not evidence
about real calls.

| manifest | audio | for |
|---|---|---|
| train.jsonl | 8 kHz telephone | fine-tuning |
| valid.jsonl | 8 kHz telephone, other voices | the objective of a sweep |
| test.jsonl | 8 kHz telephone, other voices again | the final figure |
| wideband.jsonl | 16 kHz clean, voices of valid and test | what fine-tuning makes it forget |
| silence.jsonl | 8 kHz telephone, line noise alone | what it writes where nobody speaks |
"""


def _jobs(part: Part) -> Iterator[dict[str, Any]]:
    rng = random.Random(f"{part.name}:{part.seed}:voices")
    texts = repeat("") if part.split is None else sentences(part.split, part.seed)
    for number, text in enumerate(islice(texts, part.num_utterances)):
        key = f"{part.name}-{number:04d}"
        yield {
            "key": key,
            "wav": f"wav/{part.name}/{key}.wav",
            "text": text,
            "variant": part.voices[number % len(part.voices)] if part.voices else None,
            "rate_wpm": rng.randint(*RATES_WPM),
            "pitch": rng.randint(*PITCHES),
            "warp": rng.uniform(*part.warps),
            "seed": part.seed,
            "channel": part.channel,
            "part": part.name,
        }


def _speak(shard: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    process = subprocess.run(
        [sys.executable, "-m", "trainer.demo.speech", str(shard)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if process.returncode != 0:
        reason = (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        from trainer.demo.speech import NOT_INSTALLED

        if process.returncode == NOT_INSTALLED:
            raise UserError(reason)
        raise WorkError(f"making the demonstration's speech failed: {reason}")


def _record_silence(path: Path, job: dict[str, Any]) -> None:
    """Write what a telephone line sounds like while nobody speaks: noise, hum and lost packets."""
    import numpy as np

    from trainer.channel.draws import generator
    from trainer.demo.fixed_line import TELEPHONE_RATE_HZ, noise_for, simulate
    from trainer.demo.speech import LINES

    rng = generator(job["seed"], f"{job['key']}:silence")
    length = round(rng.uniform(*SILENCE_S) * TELEPHONE_RATE_HZ)
    room = noise_for(np.ones(length), rng, snr_db=0.0, tilt=rng.uniform(0.0, 1.0))
    line = simulate(
        room.astype(np.float32),
        TELEPHONE_RATE_HZ,
        seed=job["seed"],
        key=job["key"],
        ranges=dataclasses.replace(LINES, level_dbfs=SILENCE_DBFS),
    )
    soundfile.write(path, np.clip(line, -1.0, 1.0), TELEPHONE_RATE_HZ, subtype="PCM_16")


def make(directory: Path, parts: Sequence[Part]) -> None:
    """Speak `parts` into `directory`: a manifest for each, and the audio under wav/."""
    jobs = [job for part in parts for job in _jobs(part)]
    for part in parts:
        (directory / "wav" / part.name).mkdir(parents=True, exist_ok=True)
    spoken = [job for job in jobs if job["text"]]
    shards = [directory / f"shard-{index}.jsonl" for index in range(NUM_SHARDS)]
    for index, shard in enumerate(shards):
        lines = (json.dumps(job, ensure_ascii=False) for job in spoken[index::NUM_SHARDS])
        shard.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with ThreadPoolExecutor(NUM_SHARDS) as pool:
        list(pool.map(_speak, shards))
    for job in jobs:
        if not job["text"]:
            _record_silence(directory / job["wav"], job)
    for shard in shards:
        shard.unlink()
    for part in parts:
        with (directory / f"{part.name}.jsonl").open("w", encoding="utf-8") as manifest:
            for job in jobs:
                if job["part"] == part.name:
                    line = json.dumps(_manifest_line(directory, job), ensure_ascii=False)
                    manifest.write(line + "\n")


def _manifest_line(directory: Path, job: dict[str, Any]) -> dict[str, Any]:
    info = soundfile.info(str(directory / job["wav"]))
    speaker = {} if job["variant"] is None else {"speaker_id": job["variant"].replace(" ", "_")}
    return {
        "key": job["key"],
        "source": job["wav"],
        "target": job["text"],
        "source_len": int(info.duration * 100),  # 10 ms frames
        "target_len": len(job["text"]),
        **speaker,
        "domain": job["channel"],
    }


def checksum(directory: Path) -> str:
    """SHA-256 over names and contents of the manifests and the audio."""
    total = hashlib.sha256()
    files = [*directory.glob("*.jsonl"), *directory.glob("wav/**/*.wav")]
    for path in sorted(files, key=lambda path: path.relative_to(directory).as_posix()):
        name = path.relative_to(directory).as_posix()
        total.update(f"{name} {file_sha256(path)}\n".encode())
    return total.hexdigest()


def _is_current(directory: Path) -> bool:
    try:
        stamp = json.loads((directory / "corpus.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(stamp.get("expected_checksum") == CHECKSUM)


def ensure(directory: Path) -> Path:
    """The corpus in `directory`, made if it is not there or out of date.

    It appears complete or not at all: two processes may ask at once, and an interrupted one leaves
    nothing half made.

    Raises:
        UserError: eSpeak NG is not installed.
        DataError: `directory` holds something else.
    """
    directory = Path(directory)
    if _is_current(directory):
        return directory
    if directory.exists() and any(directory.iterdir()) and not (directory / "corpus.json").exists():
        raise DataError(
            f"{directory}: got a directory that holds other files, expected an empty or a new one"
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        with Progress().step(f"making the demonstration's speech in {directory}"):
            make(new, PARTS)
        (new / "README.md").write_text(README, encoding="utf-8")
        found = checksum(new)
        stamp = {
            "checksum": found,
            "expected_checksum": CHECKSUM,
            "parts": [dataclasses.asdict(part) for part in PARTS],
        }
        write_json(new / "corpus.json", stamp, indent=1)
        if found != CHECKSUM:
            logger.warning(
                "%s: this processor makes the demonstration's speech slightly differently "
                "(checksum %s, expected %s); figures may differ from the documented ones",
                *(directory, found[:12], CHECKSUM[:12]),
            )
        if directory.exists() and not _is_current(directory):
            shutil.move(str(directory), str(Path(scratch) / "old"))
        try:
            new.rename(directory)
        except OSError:
            if not _is_current(directory):  # not another process that was faster
                raise
    return directory
