"""The demonstration sweep beside a plain shell loop over FunASR's own commands, on the same trials.

    python -m tests.benchmarks.shell_loop ours D                  # the sweep, minutes
    python -m tests.benchmarks.shell_loop ours D --again          # with the features of the first
    python -m tests.benchmarks.shell_loop loop D --trials 0-3     # four of its trials by hand
    python -m tests.benchmarks.shell_loop loop D --as-pruned      # those pruned, ended as ours were
    python -m tests.benchmarks.shell_loop table D                 # what was found

`ours` runs `conf/sweep/demo.yaml` with empty caches.
`loop` does each of its trials as one would by hand, one after the other: `funasr-train-ds` with the
trial's config in a process, then a process that decodes valid, test and wideband with `AutoModel`,
recording by recording. Stock trains on GPUs alone: its device is forced to the CPU, all else is as
it is. A shell loop knows no pruning and trains all epochs that were asked for; with `--as-pruned`
it trains as many as ours did.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import NamedTuple

import yaml

from conf.load import load_config
from sweeps.directory import SWEEPS, SweepDirectory
from sweeps.search.study import read_states
from sweeps.trial_state import TrialState
from tests.conftest import BASE, ROOT
from trainer.data.manifest import read_data_list, read_headers
from trainer.demo.corpus import ensure

SETS = ("valid", "test", "wideband")
FOUND = "found.json"
NAME = "demo"
_LOOK_S = 0.2
_MARK = "TELESWEEP_BENCHMARK"
TRAIN = """
from funasr.train_utils.trainer_ds import Trainer
Trainer.device = property(lambda self: "cpu", lambda self, value: None)
from funasr.bin.train_ds import main_hydra
main_hydra()
"""
"""`funasr-train-ds` itself; stock sets a GPU's number whatever it is told."""


class Cost(NamedTuple):
    """Seconds on the wall, and of all processors together."""

    wall_s: float
    cpu_s: float


def main() -> None:
    """Measure a part, or show what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("ours", "loop", "table", "decode"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--again", action="store_true", help="ours anew, its features kept")
    parser.add_argument("--trials", default="", metavar="FIRST-LAST", help="default: all")
    parser.add_argument("--as-pruned", action="store_true", help="the pruned ones, as far as ours")
    parser.add_argument("--threads", type=int, default=1, help="of each of stock's processes")
    arguments = parser.parse_args()
    place = arguments.directory.resolve()
    if arguments.what == "ours":
        name = f"{NAME}-2" if arguments.again else NAME
        note(place, name, sweep(place, name))
    elif arguments.what == "loop":
        first, _, last = arguments.trials.partition("-")
        for state in states(place):
            if first and not int(first) <= state.number <= int(last or first):
                continue
            if arguments.as_pruned and trained(state) == state.epochs:
                continue
            epochs = trained(state) if arguments.as_pruned else state.epochs
            kind = "as pruned" if arguments.as_pruned else "whole"
            found = by_hand(place, state.number, epochs, arguments.threads)
            note(place, f"trial {state.number} {kind}", found)
    elif arguments.what == "decode":
        decode(place)
    else:
        print(table(place))


def sweep(place: Path, name: str) -> dict[str, float]:
    """Run the sweep from the command line, with caches that only its namesakes share."""
    (place / "data").mkdir(parents=True, exist_ok=True)
    if not (place / "data/demo").exists():
        (place / "data/demo").symlink_to(ensure(ROOT / "data/demo"))
    command = ("-m", "sweeps", "run", str(ROOT / "conf/sweep/demo.yaml"))
    caches = {"XDG_CACHE_HOME": str(place / "cache")}
    return timed([*command, "--name", name, f"base={BASE}"], place, caches)._asdict()


def states(place: Path) -> tuple[TrialState, ...]:
    """The trials that our sweep ran."""
    return read_states(SweepDirectory(place / SWEEPS / NAME).study, NAME)


def trained(state: TrialState) -> int:
    """Epochs after which ours ended a trial."""
    return max(state.curve)


def by_hand(place: Path, number: int, epochs: int, threads: int) -> dict[str, float]:
    """Train and decode one trial as a shell loop would; writing its files is not measured."""
    from trainer.finetune import stock_engine

    config = load_config(SweepDirectory(place / SWEEPS / NAME).trial(number) / "config.yaml")
    own = place / "loop" / f"{number:03}-{epochs}"
    own.mkdir(parents=True)
    lists = {}
    for split in ("train", "valid"):
        utterances = read_data_list(config[f"{split}_data_set_list"])
        path = stock_engine.write_manifest(
            own / f"{split}.jsonl", utterances, read_headers(utterances), len
        )
        lists[f"{split}_data_set_list"] = str(path)
    asked = {"train_conf.max_epoch": epochs, "output_dir": str(own / "model")}
    values = stock_engine.arguments(
        config.replace({**stock_engine.HELD, **lists, **asked}, "stock"), num_threads=threads
    )
    (own / "train.yaml").write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    sets = {split: str(ROOT / f"data/demo/{split}.jsonl") for split in SETS}
    (own / "sets.json").write_text(json.dumps(sets), encoding="utf-8")
    threads_of = {"OMP_NUM_THREADS": str(threads)}
    hydra = ["--config-path", str(own), "--config-name", "train.yaml"]
    train = timed(["-c", TRAIN, *hydra], own, threads_of)
    decoding = timed(["-m", "tests.benchmarks.shell_loop", "decode", str(own)], own, threads_of)
    return {
        "epochs": epochs,
        "wall_s": train.wall_s + decoding.wall_s,
        "cpu_s": train.cpu_s + decoding.cpu_s,
        "decoding_wall_s": decoding.wall_s,
        "decoding_cpu_s": decoding.cpu_s,
    }


def decode(own: Path) -> None:
    """Decode the sets with what was trained, as FunASR's users do, a text per recording."""
    import torch
    from funasr import AutoModel

    values = yaml.safe_load((own / "train.yaml").read_text(encoding="utf-8"))
    model = AutoModel(**values, disable_pbar=True)
    (average,) = (own / "model").glob("model.pt.avg*")
    state = torch.load(average, map_location="cpu")["state_dict"]
    model.model.load_state_dict(state, strict=False)  # saved without the frozen LLM
    for split, path in json.loads((own / "sets.json").read_text(encoding="utf-8")).items():
        with (own / f"{split}.txt").open("w", encoding="utf-8") as file:
            for utterance in read_data_list(path):
                (result,) = model.generate(input=str(utterance.source), max_length=48)
                file.write(f"{utterance.key}\t{result['text']}\n")


def timed(arguments: list[str], directory: Path, environment: dict[str, str]) -> Cost:
    """What a Python process takes, with all that it starts; it must succeed."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "RAY"))}
    mark = f"{_MARK}={uuid.uuid4().hex}"
    plain |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", _MARK: mark.partition("=")[2]}
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=directory,
            env=plain | environment,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        cpu_s: dict[str, float] = {}
        while process.poll() is None:
            cpu_s |= _cpu_seconds(mark.encode())
            time.sleep(_LOOK_S)
        if process.returncode:
            said.seek(0)
            raise SystemExit(said.read()[-4000:])
    return Cost(time.perf_counter() - began, sum(cpu_s.values()))


def _cpu_seconds(mark: bytes) -> dict[str, float]:
    """Of each living process that inherited a mark: Ray's are nobody's children when they end."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (place / "environ").read_bytes().split(b"\0"):
                fields = (place / "stat").read_text().rpartition(")")[2].split()
                found[place.name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def note(place: Path, what: str, found: dict[str, float]) -> None:
    """Keep a figure beside the others, so that a long measurement can be made in parts."""
    path = place / FOUND
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | {what: found}, indent=1) + "\n")
    print(what, {name: round(value, 1) for name, value in found.items()}, flush=True)


def table(place: Path) -> str:
    """Both sides; of a part of the trials ours are charged by their share of our epochs."""
    found = json.loads((place / FOUND).read_text())
    ours = {state.number: trained(state) for state in states(place)}
    whole = {n: found[f"trial {n} whole"] for n in ours if f"trial {n} whole" in found}
    pruned = {n: found.get(f"trial {n} as pruned", entry) for n, entry in whole.items()}
    share = sum(ours[n] for n in whole) / sum(ours.values())
    lines = [f"{len(whole)} of {len(ours)} trials, {share:.0%} of our epochs"]
    for title, loop in (("all epochs", whole), ("ended as ours", pruned)):
        sums = {
            key: sum(entry[key] for entry in loop.values()) for key in next(iter(loop.values()))
        }
        lines.append(f"loop, {title}: " + ", ".join(f"{k} {v:.0f}" for k, v in sums.items()))
        for name in (n for n in (NAME, f"{NAME}-2") if n in found):
            for kind in ("wall_s", "cpu_s"):
                mine = found[name][kind]
                lines.append(
                    f"  {name:7} {kind:6} {mine:5.0f} s: {sums[kind] / share / mine:.2f} x"
                )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
