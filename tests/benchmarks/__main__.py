"""Stock FunASR and our trainer side by side, on the tiny model and the demonstration's corpus.

    python -m tests.benchmarks                                  # all, about 25 minutes on two cores
    python -m tests.benchmarks --only train --repetitions 5 --output results.json
    python -m tests.benchmarks --quick                          # does it run: under two minutes

Each measurement is a fresh process with one thread and a feature cache of its own. The processes
alternate between the two sides, repetition by repetition, so that what else the machine does falls
on both; a ratio is the median of the repetitions' ratios. CPU time is that of the process, so
training is measured without loader workers; with two of them it is wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import soundfile
from rich.console import Console
from rich.table import Table

from conf.load import stage_config_path
from tests.conftest import BASE, ROOT
from trainer.data.manifest import Utterance, read_data_list, read_headers
from trainer.demo.corpus import ensure

VARIANTS = {
    "off": "ours, additions off",
    "ce": "ours without CTC and SpecAug",
    "default": "ours, defaults",
}
FIRST, LATER = "first epoch", "later epochs"
EVALUATED = "recordings decoded and scored"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    stages: tuple[str, ...] = ("8k", "s2", "s3")
    variants: tuple[str, ...] = ("off", "ce", "default")
    factors: tuple[int, ...] = (1, 4, 16)
    train: int = 320
    evaluation: int = 120
    epochs: int = 3
    repetitions: int = 3


QUICK = Size(("8k",), ("off", "default"), (1, 2), train=40, evaluation=16, epochs=2, repetitions=1)


@dataclass(frozen=True)
class Figure:
    """One measured number of one process.

    Attributes:
        measure: What is compared, such as "train 8k, first epoch".
        side: Who did it.
    """

    measure: str
    side: str
    unit: str
    value: float


@dataclass(frozen=True)
class Row:
    """A measure of one side over all repetitions, beside stock's where stock does it too."""

    measure: str
    side: str
    unit: str
    median: float
    spread: tuple[float, float]
    values: list[float] = field(repr=False)
    times_stock: float | None = None
    goal: str = ""
    reached: bool | None = None


GOALS: Mapping[tuple[str, str], float] = {
    ("train 8k, first epoch", VARIANTS["off"]): 1.1,
    ("train s2, first epoch", VARIANTS["off"]): 1.1,
    ("train s3, first epoch", VARIANTS["off"]): 1.1,
    ("train 8k, later epochs", VARIANTS["off"]): 1.5,
    ("train s2, later epochs", VARIANTS["off"]): 1.5,
    ("train s3, later epochs", VARIANTS["off"]): 1.5,
    ("train s2, later epochs", VARIANTS["ce"]): 2.5,
    ("train s3, later epochs", VARIANTS["ce"]): 3.0,
    (f"{EVALUATED}, cached", "ours"): 15.0,
}
"""Times as fast as stock. Where a frozen encoder's output is cached SpecAug has to be off."""

MAX_START_S = 10.0


class Bench:
    """A directory with the data, and processes that measure on them."""

    def __init__(self, directory: Path, size: Size) -> None:
        self._directory = directory
        self.size = size
        corpus = ensure(ROOT / "data" / "demo")
        self._corpus = {
            split: read_data_list(corpus / f"{split}.jsonl")[:count]
            for split, count in (
                ("train", size.train),
                ("test", size.evaluation),
                ("valid", 4),
            )
        }
        self.lists = {
            split: self._manifest(split, utterances) for split, utterances in self._corpus.items()
        }
        self._runs = 0

    def enlarged(self, factor: int) -> Path:
        """The training list so many times over, each copy of a recording of other content."""
        utterances = []
        folder = self._directory / f"times-{factor}"
        folder.mkdir(exist_ok=True)
        for utterance in self._corpus["train"]:
            samples, rate_hz = soundfile.read(utterance.source, dtype="int16")
            for copy in range(factor):
                path = folder / f"{utterance.key}-{copy}.wav"
                samples[0] = copy
                soundfile.write(path, samples, rate_hz)
                utterances.append(replace(utterance, key=path.stem, source=path))
        return self._manifest(f"times-{factor}", utterances)

    def measure(self, name: str, **request: Any) -> dict[str, Any]:
        """Runs one measurement of :mod:`tests.benchmarks.child`."""
        directory = self._new_directory()
        output = directory / "found.json"
        request = {
            "data": str(self.lists["train"]),
            "valid": str(self.lists["valid"]),
            "directory": str(directory),
            "epochs": self.size.epochs,
            **request,
        }
        command = (sys.executable, "-m", "tests.benchmarks.child")
        finished = subprocess.run(
            [*command, name, str(output), json.dumps(request)],
            cwd=ROOT,
            env=_environment(),
            capture_output=True,
            text=True,
        )
        if finished.returncode:
            raise SystemExit(f"{name} {request} failed:\n{finished.stderr[-4000:]}")
        found: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
        return found

    def seconds_to_first_step(self) -> float:
        """From the start of `python -m trainer train` to its first update."""
        directory = self._new_directory()
        command = [
            *(sys.executable, "-m", "trainer", "train", "--no_mlflow"),
            *("--config", str(stage_config_path("8k"))),
            *("--init_param", str(BASE / "model.pt")),
            *("--train_data_set_list", str(self.lists["train"])),
            *("--valid_data_set_list", str(self.lists["valid"])),
            *("--output_dir", str(directory / "run")),
            "++train_conf.log_interval=1",
            "++dataset_conf.batch_type=example",
            "++dataset_conf.batch_size=8",
            "++dataset_conf.num_workers=0",
            f"++finetune_conf.feature_cache_dir={directory / 'features'}",
        ]
        started_s = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=_environment(), stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        said = []
        try:
            for line in process.stderr:
                said.append(line)
                if line.startswith("update 1:"):
                    return time.perf_counter() - started_s
        finally:
            process.kill()
            process.wait()
            process.stderr.close()
        raise SystemExit("no update came:\n" + "".join(said))

    def _manifest(self, name: str, utterances: Sequence[Utterance]) -> Path:
        # In chat form, which both sides read.
        from trainer.finetune.stock_engine import write_manifest

        path = self._directory / f"{name}.jsonl"
        return write_manifest(path, utterances, read_headers(utterances), len)

    def _new_directory(self) -> Path:
        self._runs += 1
        directory = self._directory / f"run-{self._runs}"
        directory.mkdir()
        return directory


# What is measured


def train(bench: Bench) -> Iterator[Figure]:
    """CPU time of training with loading, and peak memory."""
    for stage in bench.size.stages:
        found = {"stock": bench.measure("train_stock", stage=stage)}
        for variant in bench.size.variants:
            name = VARIANTS[variant]
            found[name] = bench.measure("train_ours", stage=stage, variant=variant)
        for side, result in found.items():
            first, *later = (epoch["cpu_ms"] for epoch in result["epochs"])
            unit = "CPU ms per utterance"
            yield Figure(f"train {stage}, {FIRST}", side, unit, first)
            yield Figure(f"train {stage}, {LATER}", side, unit, statistics.mean(later))
            yield Figure(f"train {stage}, memory", side, "MB", result["peak_mb"])


def workers(bench: Bench) -> Iterator[Figure]:
    """Wall time of training with two loader workers."""
    found = {"stock": bench.measure("train_stock", num_workers=2)}
    found[VARIANTS["off"]] = bench.measure("train_ours", variant="off", num_workers=2)
    for side, result in found.items():
        first, *later = (epoch["wall_ms"] for epoch in result["epochs"])
        unit = "wall ms per utterance"
        yield Figure(f"train 8k with 2 workers, {FIRST}", side, unit, first)
        yield Figure(f"train 8k with 2 workers, {LATER}", side, unit, statistics.mean(later))


def evaluate(bench: Bench) -> Iterator[Figure]:
    """CPU time of decoding and scoring a set, and how many texts are stock's."""
    request = {"data": str(bench.lists["test"]), "max_new_tokens": 200}
    stock = bench.measure("evaluate_stock", **request)
    ours = bench.measure("evaluate_ours", **request)
    unit = "CPU ms per utterance"
    (one_by_one,) = stock["passes"]
    for name, result in zip(("cold", "cached"), ours["passes"], strict=True):
        yield Figure(f"{EVALUATED}, {name}", "stock", unit, one_by_one["cpu_ms"])
        yield Figure(f"{EVALUATED}, {name}", "ours", unit, result["cpu_ms"])
    same = sum(stock["texts"][key] == text for key, text in ours["texts"].items())
    yield Figure("texts equal to stock's", "ours", "%", 100 * same / len(ours["texts"]))
    for side, found in (("stock", stock), ("ours", ours)):
        yield Figure("decoding, memory", side, "MB", found["peak_mb"])


def start(bench: Bench) -> Iterator[Figure]:
    """Wall time from the start of a process to its first update."""
    yield Figure("start to first update", "ours", "s", bench.seconds_to_first_step())


def scale(bench: Bench) -> Iterator[Figure]:
    """Cost and memory against the size of the corpus."""
    for factor in bench.size.factors:
        data = bench.enlarged(factor)
        found = bench.measure("train_ours", variant="ce", data=str(data), epochs=2)
        first, later = (epoch["cpu_ms"] for epoch in found["epochs"])
        name, unit = f"corpus x {factor}", "CPU ms per utterance"
        yield Figure(f"{name}, {FIRST}", VARIANTS["ce"], unit, first)
        yield Figure(f"{name}, {LATER}", VARIANTS["ce"], unit, later)
        yield Figure(f"{name}, memory", VARIANTS["ce"], "MB", found["peak_mb"])


MEASURES: Mapping[str, Callable[[Bench], Iterator[Figure]]] = {
    function.__name__: function for function in (train, workers, evaluate, start, scale)
}


# What comes of it


def summarise(repetitions: Sequence[Sequence[Figure]]) -> list[Row]:
    """One row per measure and side; all sides of a measure together, stock first."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for figure in (figure for figures in repetitions for figure in figures):
        values[figure.measure, figure.side, figure.unit].append(figure.value)
    order = list(dict.fromkeys(measure for measure, _, _ in values))
    return [
        _row(measure, side, unit, found, values.get((measure, "stock", unit), []))
        for (measure, side, unit), found in sorted(
            values.items(), key=lambda item: order.index(item[0][0])
        )
    ]


def _row(measure: str, side: str, unit: str, values: list[float], stocks: Sequence[float]) -> Row:
    row = Row(measure, side, unit, statistics.median(values), (min(values), max(values)), values)
    if side != "stock" and stocks:
        ratio = statistics.median(
            stock / value for stock, value in zip(stocks, values, strict=True)
        )
        row = replace(row, times_stock=ratio)
        if goal := GOALS.get((measure, side)):
            row = replace(row, goal=f"{goal:g} x stock", reached=ratio >= goal)
    if measure == "start to first update":
        row = replace(row, goal=f"< {MAX_START_S:g} s", reached=row.median < MAX_START_S)
    return row


def table(rows: Sequence[Row]) -> Table:
    drawn = Table("measure", "side", "unit", "median", "from - to", "x stock", "goal")
    before = ""
    for row in rows:
        if before and row.measure != before:
            drawn.add_section()
        mark = {None: "", True: " reached", False: " missed"}[row.reached]
        drawn.add_row(
            "" if row.measure == before else row.measure,
            row.side,
            row.unit,
            f"{row.median:.2f}",
            f"{row.spread[0]:.2f} - {row.spread[1]:.2f}" if len(row.values) > 1 else "",
            "" if row.times_stock is None else f"{row.times_stock:.2f}",
            row.goal + mark,
        )
        before = row.measure
    return drawn


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small: does it run")
    parser.add_argument("--only", nargs="+", choices=list(MEASURES), metavar="NAME")
    parser.add_argument("--repetitions", type=int, metavar="N")
    parser.add_argument("--output", type=Path, metavar="JSON")
    arguments = parser.parse_args(argv)
    size = QUICK if arguments.quick else Size()
    if arguments.repetitions:
        size = replace(size, repetitions=arguments.repetitions)
    chosen = arguments.only or list(MEASURES)
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), size)
        repetitions = []
        for number in range(size.repetitions):
            figures: list[Figure] = []
            for name in chosen:
                console.print(f"repetition {number + 1} of {size.repetitions}: {name}")
                figures += MEASURES[name](bench)
            repetitions.append(figures)
    rows = summarise(repetitions)
    Console(width=None if sys.stdout.isatty() else 140).print(table(rows))
    if arguments.output:
        results = {
            "machine": _machine(),
            "size": asdict(size),
            "rows": [asdict(row) for row in rows],
        }
        arguments.output.write_text(
            json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return 0


def _machine() -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("torch", "funasr", "transformers")},
    }


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "true",
        "PYTHONHASHSEED": "0",
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
