"""What opening a manifest of many lines takes, in a process that does nothing else.

    python -m tests.benchmarks.manifests [LINES]

Prints seconds, and megabytes at the peak above what the process had before.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LINES = 1_000_000


def write(path: Path, lines: int) -> Path:
    """A manifest of telephone turns, as long as real ones; the audio is not there."""
    draw = random.Random(1)
    words = ["您好", "请问", "套餐", "流量", "缴费", "宽带", "账单", "查询", "什么时候", "谢谢"]
    with path.open("w", encoding="utf-8") as file:
        for number in range(lines):
            call = number // 20
            record = {
                "key": f"call-{call:06d}-{number:08d}",
                "source": f"wav/2025/{call % 100:02d}/call-{call:06d}/{number:08d}.wav",
                "target": "".join(draw.choices(words, k=draw.randint(2, 9))),
                "source_len": draw.randint(80, 900),
                "speaker_id": f"s{call % 977}",
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return path


def open_and_measure(path: Path) -> dict[str, float]:
    """Seconds and megabytes of ``read_data_list`` in this process."""
    from trainer.data.manifest import read_data_list

    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started_s = time.perf_counter()
    utterances = read_data_list(path)
    opened_s = time.perf_counter() - started_s
    after_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started_s = time.perf_counter()
    for index in range(0, len(utterances), max(1, len(utterances) // 10_000)):
        utterances[index]
    read_s = time.perf_counter() - started_s
    return {
        "lines": len(utterances),
        "file_mb": round(path.stat().st_size / 1e6, 1),
        "opened_s": round(opened_s, 2),
        "above_baseline_mb": round((after_kb - before_kb) / 1024, 1),
        "us_per_line_read": round(1e6 * read_s / min(len(utterances), 10_000), 1),
    }


def measure(lines: int = LINES) -> dict[str, float]:
    """The same in a process of its own, on a manifest made for it."""
    with tempfile.TemporaryDirectory() as directory:
        path = write(Path(directory) / "manifest.jsonl", lines)
        command = [sys.executable, "-m", "tests.benchmarks.manifests", "--open", str(path)]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(printed)
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--open"]:
        print(json.dumps(open_and_measure(Path(sys.argv[2]))))
    else:
        print(json.dumps(measure(int(sys.argv[1]) if sys.argv[1:] else LINES), indent=2))
