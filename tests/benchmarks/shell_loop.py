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
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import yaml

from conf.load import load_config
from sweeps.state import SWEEPS, SweepDirectory, TrialState
from sweeps.study import read_states
from tests.conftest import BASE, ROOT
from trainer.demo.corpus import ensure
from trainer.manifest import read_data_list, read_headers

SETS = ("valid", "test", "wideband")
FOUND = "found.json"
NAME = "demo"
TRAIN = """
from funasr.train_utils.trainer_ds import Trainer
Trainer.device = property(lambda self: "cpu", lambda self, value: None)
from funasr.bin.train_ds import main_hydra
main_hydra()
"""
"""`funasr-train-ds` itself; stock sets a GPU's number whatever it is told."""


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
    return {"wall_s": timed([*command, "--name", name, f"base={BASE}"], place, caches)}


def states(place: Path) -> tuple[TrialState, ...]:
    """The trials that our sweep ran."""
    return read_states(SweepDirectory(place / SWEEPS / NAME).study, NAME)


def trained(state: TrialState) -> int:
    """Epochs after which ours ended a trial."""
    return max(state.curve)


def by_hand(place: Path, number: int, epochs: int, threads: int) -> dict[str, float]:
    """Train and decode one trial as a shell loop would; writing its files is not measured."""
    from trainer import stock

    config = load_config(SweepDirectory(place / SWEEPS / NAME).trial(number) / "config.yaml")
    own = place / "loop" / f"{number:03}-{epochs}"
    own.mkdir(parents=True)
    lists = {}
    for split in ("train", "valid"):
        utterances = read_data_list(config[f"{split}_data_set_list"])
        path = stock.write_manifest(
            own / f"{split}.jsonl", utterances, read_headers(utterances), len
        )
        lists[f"{split}_data_set_list"] = str(path)
    asked = {"train_conf.max_epoch": epochs, "output_dir": str(own / "model")}
    values = stock.arguments(
        config.replace({**stock.HELD, **lists, **asked}, "stock"), num_threads=threads
    )
    (own / "train.yaml").write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    sets = {split: str(ROOT / f"data/demo/{split}.jsonl") for split in SETS}
    (own / "sets.json").write_text(json.dumps(sets), encoding="utf-8")
    threads_of = {"OMP_NUM_THREADS": str(threads)}
    hydra = ["--config-path", str(own), "--config-name", "train.yaml"]
    train_s = timed(["-c", TRAIN, *hydra], own, threads_of)
    decode_s = timed(["-m", "tests.benchmarks.shell_loop", "decode", str(own)], own, threads_of)
    return {"epochs": epochs, "train_s": train_s, "decode_s": decode_s}


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


def timed(arguments: list[str], directory: Path, environment: dict[str, str]) -> float:
    """Wall seconds of a Python process, which must succeed."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "RAY"))}
    plain |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "1"}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=plain | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-4000:])
    return seconds


def note(place: Path, what: str, found: dict[str, float]) -> None:
    """Keep a figure beside the others, so that a long measurement can be made in parts."""
    path = place / FOUND
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | {what: found}, indent=1) + "\n")
    print(what, {name: round(value, 1) for name, value in found.items()}, flush=True)


def table(place: Path) -> str:
    """Both sides, over the trials that the loop has done."""
    found = json.loads((place / FOUND).read_text())
    whole = {s.number: found.get(f"trial {s.number} whole") for s in states(place)}
    pruned = {n: found.get(f"trial {n} as pruned", loop) for n, loop in whole.items()}
    lines = []
    for title, loop in (("all epochs", whole), ("ended as ours", pruned)):
        done = [entry for entry in loop.values() if entry is not None]
        total = sum(entry["train_s"] + entry["decode_s"] for entry in done)
        lines.append(
            f"loop, {title:14} {len(done):3} trials {sum(e['epochs'] for e in done):4.0f} epochs "
            f"{total:7.0f} s (decoding {sum(e['decode_s'] for e in done):.0f} s)"
        )
        for name in (n for n in (NAME, f"{NAME}-2") if n in found):
            ours = found[name]["wall_s"]
            lines.append(f"  {name:10} {ours:6.0f} s: {total / ours:.2f} x")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
