"""Searches: `python -m sweeps run conf/sweep/demo.yaml`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from conf.command_line import add_flag, command_line
from conf.errors import run_command

_EXAMPLES = """examples:
  python -m sweeps run conf/sweep/demo.yaml                     the demonstration
  python -m sweeps run conf/sweep/demo.yaml --name demo-2       once more, under another name
  python -m sweeps run conf/sweep/telephone.yaml --name calls --dry-run
  python -m sweeps status demo --watch                          from another terminal
  python -m sweeps run SWEEP.yaml trials=32 optim_conf.lr=1e-4  overrides of the sweep file
  python -m sweeps pipeline conf/sweep/pipeline_demo.yaml       stages, each from the best before
  python -m sweeps pipeline PIPELINE.yaml trials=8 s3.trials=16 overrides of all steps, of one step

The same command again goes on where the sweep stopped; a finished sweep shows its table.
"""


_LOOKS = {
    "status": "how a sweep stands, also while it runs elsewhere",
    "list": "the sweeps of this working directory",
    "stop": "end a sweep that runs in another terminal, in order",
}


def main(argv: Sequence[str]) -> int:
    """Parse the command line and run the command; returns its exit code."""
    parser = _parser()
    arguments, overrides = parser.parse_known_args(argv)
    if arguments.command in _LOOKS:
        if overrides:
            parser.error(f"unrecognized arguments: {' '.join(overrides)}")
        return _look(arguments)
    # A system that reads people's phone calls asks nobody on the network, unless told to.
    for name, value in {
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
    }.items():
        os.environ.setdefault(name, value)
    if arguments.command == "pipeline":
        from sweeps.pipeline import run_pipeline

        return run_pipeline(
            arguments.pipeline,
            name=arguments.name,
            overrides=overrides,
            dry_run=arguments.dry_run,
        )
    if arguments.dry_run:
        from sweeps.console.dry_run import dry_run

        return dry_run(
            arguments.sweep, name=arguments.name, overrides=overrides, tflops=arguments.tflops
        )
    from sweeps.run import run_sweep

    return run_sweep(arguments.sweep, name=arguments.name, overrides=overrides)


def _look(arguments: argparse.Namespace) -> int:
    """Say how sweeps stand, or stop one: nothing that takes longer than a moment."""
    from sweeps.console import status

    if arguments.command == "list":
        return status.list_sweeps()
    if arguments.command == "stop":
        return status.stop(arguments.name)
    return status.status(arguments.name, watch=arguments.watch)


def _parser() -> argparse.ArgumentParser:
    description = "Searches over fine-tunes: Ray Tune runs trials that Optuna chooses."
    parser, commands = command_line("sweeps", description, _EXAMPLES)
    run = commands.add_parser(
        "run",
        help="run or resume a sweep",
        usage="%(prog)s SWEEP.yaml [--name N] [key=value ...] [--dry-run [--tflops X]]",
        epilog="key=value: a key of the sweep file (trials=4) or a training key (for set:)",
        allow_abbrev=False,
    )
    run.add_argument("sweep", type=Path, metavar="SWEEP.yaml", help="the sweep file")
    run.add_argument("--name", metavar="N", help="name of the sweep (default: the file's)")
    add_flag(run, "--dry-run", "print sampled, checked configs and start nothing")
    run.add_argument(
        "--tflops",
        type=float,
        metavar="X",
        help="with --dry-run: 10^12 operations a second of one GPU, for hours that nobody measured",
    )
    pipeline = commands.add_parser(
        "pipeline",
        help="run or resume sweeps in a row, each from the best of the one before",
        usage="%(prog)s PIPELINE.yaml [--name N] [key=value ...] [--dry-run]",
        epilog="key=value: a key of every step's sweep (trials=4, optim_conf.lr=1e-4), of one step "
        "(s2.trials=4), or of the pipeline (base=DIR)",
        allow_abbrev=False,
    )
    pipeline.add_argument("pipeline", type=Path, metavar="PIPELINE.yaml", help="the pipeline file")
    pipeline.add_argument("--name", metavar="N", help="name of the pipeline (default: the file's)")
    add_flag(pipeline, "--dry-run", "check all steps, show the plan and start nothing")
    looks = {
        name: commands.add_parser(name, help=text, allow_abbrev=False)
        for name, text in _LOOKS.items()
    }
    for name in ("status", "stop"):
        looks[name].add_argument("name", metavar="NAME", help="name of the sweep")
    add_flag(looks["status"], "--watch", "show it until nobody runs it any more")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
