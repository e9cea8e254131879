"""What the data report of many lines takes, in a process that does nothing else.

    python -m tests.benchmarks.data_report [LINES]

Prints seconds, those of the processor, and megabytes at the peak above what the process had before;
the audio is not there.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

LINES = 1_000_000


def write(directory: Path, lines: int) -> Path:
    """Telephone turns as `prepare` writes them after its content pass, in three splits."""
    draw = random.Random(1)
    words = ["您好", "请问", "套餐", "流量", "缴费", "宽带", "账单", "什么时候", "OK", "wifi"]
    with ExitStack() as stack:
        train, valid, test = (
            stack.enter_context((directory / f"{split}.jsonl").open("w", encoding="utf-8"))
            for split in ("train", "valid", "test")
        )
        for number in range(lines):
            call = number // 20
            duration_s = round(draw.uniform(0.8, 9.0), 3)
            record = {
                "key": f"call-{call:06d}-{number:08d}",
                "source": f"wav/2025/{call % 100:02d}/call-{call:06d}/{number:08d}.wav",
                "target": "".join(draw.choices(words, k=draw.randint(2, 9))),
                "source_len": int(100 * duration_s),
                "duration_s": duration_s,
                "sample_rate_hz": 8000 if call % 3 else 16000,
                "speaker_id": f"s{call % 977}",
                "call": f"call-{call:06d}",
                "domain": "telephone",
                "bandwidth_hz": draw.randint(3200, 3600),
                "level_dbfs": round(draw.gauss(-25, 5), 2),
                "peak_dbfs": round(draw.uniform(-12, 0), 2),
                "clipped": 0.0 if draw.random() < 0.99 else 0.004,
                "sha256": f"{draw.getrandbits(256):064x}",
            }
            file = train if call % 10 else valid if call % 20 else test
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return directory


def report_and_measure(directory: Path) -> dict[str, float]:
    """Seconds and megabytes of the whole report in this process."""
    from trainer.prepare.report import write as write_report

    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    files = write_report(directory)
    seconds, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    after_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "files": len(files),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_s, 2),
        "above_baseline_mb": round((after_kb - before_kb) / 1024, 1),
    }


def measure(lines: int = LINES) -> dict[str, float]:
    """The same in a process of its own, on a directory made for it."""
    with tempfile.TemporaryDirectory() as name:
        directory = write(Path(name), lines)
        command = [sys.executable, "-m", "tests.benchmarks.data_report", "--of", str(directory)]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(printed)
    return {"lines": lines, **found}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--of"]:
        print(json.dumps(report_and_measure(Path(sys.argv[2]))))
    else:
        print(json.dumps(measure(int(sys.argv[1]) if sys.argv[1:] else LINES), indent=2))
