"""The command line of `python -m analysis`; `--help` shows examples."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from conf.command_line import add_flag, command_line
from conf.errors import UserError, run_command
from conf.progress import Progress

if TYPE_CHECKING:
    from analysis.facts.records import SweepRecord
    from trainer.tracking.mlflow_store import Store

EXAMPLES = """examples:
  python -m analysis compare --sweep demo
  python -m analysis compare --sweep demo --format csv > comparison.csv
  python -m analysis report --sweep demo --output_dir reports/demo
  python -m analysis report --sweep demo --output_dir reports/demo --lang zh --beside demo-random
  python -m analysis export --sweep demo --output_dir exports/demo
  python -m analysis align
  python -m analysis align --config my.yaml --base conf/stage1_encoder_adapt.yaml
  python -m analysis annotate my.yaml

Sweeps are read from MLflow: mlflow.db in the working directory, or MLFLOW_TRACKING_URI."""


def parser() -> argparse.ArgumentParser:
    """Say what may be asked."""
    top, commands = command_line(
        "analysis",
        "What a sweep showed, its best trial as a config and a model directory, and "
        "what configurations change.",
        EXAMPLES,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--sweep", required=True, metavar="NAME", help="the sweep's name")
    add_flag(common, "--debug", "show the traceback of an error")

    compare = commands.add_parser(
        "compare", parents=[common], help="rank the trials against base and baselines"
    )
    compare.add_argument(
        "--format",
        choices=("table", "md", "csv", "json", "svg"),
        default="table",
        help="table: for the console; csv and json: rates as fractions (default: %(default)s)",
    )

    compare.add_argument(
        "--table",
        default="trials",
        metavar="NAME",
        help="of csv: trials, finalists, slices, forgetting, effects, configs, curves, apart "
        "(default: %(default)s)",
    )
    add_flag(compare, "--no_cache", "ask MLflow for what is known of ended runs, too")

    report = commands.add_parser(
        "report", parents=[common], help="write one HTML file: answer, tables, figures, texts"
    )
    report.add_argument(
        "--output_dir", required=True, type=Path, metavar="DIR", help="gets report.html"
    )
    report.add_argument(
        "--lang", choices=("en", "zh"), default="en", help="its language (default: %(default)s)"
    )
    report.add_argument(
        "--beside",
        metavar="NAME",
        help="another sweep for the figure of the search (default: the newest random search over "
        "the same base, data and stages)",
    )
    add_flag(report, "--no_log", "do not put it to the sweep's MLflow run")
    add_flag(report, "--no_cache", "ask MLflow for what is known of ended runs, too")

    export = commands.add_parser(
        "export", parents=[common], help="write best_config.yaml and a model directory"
    )
    export.add_argument(
        "--output_dir",
        required=True,
        type=Path,
        metavar="DIR",
        help="a new or empty directory, or an earlier export (which is replaced)",
    )
    add_flag(export, "--no_verify", "do not decode the validation set with what was written")
    export.add_argument(
        "--register_as",
        metavar="NAME",
        help="registered model of MLflow that gets it as its champion (default: "
        "fun-asr-nano-8k-telephone)",
    )
    add_flag(export, "--no_register", "leave MLflow's model registry as it is")
    add_flag(export, "--allow_running", "take the best so far of a running sweep")

    align = commands.add_parser(
        "align", help="make the alignment documents of conf/, or that of one configuration"
    )
    add_flag(align, "--check", "write nothing; exit 1 if a document is stale")
    align.add_argument(
        "--config", type=Path, metavar="YAML", help="print what this file changes, instead"
    )
    align.add_argument(
        "--base", type=Path, metavar="YAML", help="compare with this file, not the released model"
    )
    align.add_argument(
        "--language", choices=("en", "zh"), default="en", help="of --config (default: %(default)s)"
    )
    add_flag(align, "--allow-unknown", "let keys through that the schema lacks")
    align.add_argument(
        "--output_dir", type=Path, metavar="DIR", help="of the documents (default: conf/docs)"
    )
    add_flag(align, "--debug", "show the traceback of an error")

    annotate = commands.add_parser(
        "annotate", help="write [ALIGNED], [MODIFIED], [NEW] behind a file's values"
    )
    annotate.add_argument("file", type=Path, metavar="FILE", help="a configuration")
    add_flag(annotate, "--remove", "take the marks out again, nothing else")
    annotate.add_argument(
        "--model", type=Path, metavar="DIR", help="compare the architecture with these weights'"
    )
    add_flag(annotate, "--allow-unknown", "let keys through that the schema lacks")
    add_flag(annotate, "--debug", "show the traceback of an error")
    return top


def main(argv: Sequence[str]) -> int:
    """Run one command."""
    arguments = parser().parse_args(argv)
    if arguments.command == "compare":
        return _compare(arguments)
    if arguments.command == "report":
        return _report(arguments)
    if arguments.command == "align":
        return _align(arguments)
    if arguments.command == "annotate":
        return _annotate(arguments)
    return _export(arguments)


def _compare(arguments: argparse.Namespace) -> int:
    from analysis.facts.comparison import comparison
    from analysis.facts.utterances import cache_directory
    from analysis.tables import formats

    form = arguments.format
    if arguments.table != "trials" and form != "csv":
        raise UserError(f"--table: got it with --format {form}, expected --format csv")
    cache = None if arguments.no_cache else cache_directory()
    with Progress().step(f"comparing the trials of sweep {arguments.sweep}"):
        facts = comparison(arguments.sweep, _store(), cache)
    _note_if_running(facts.sweep_record)
    if form == "table":
        from rich.console import Console

        # Into a file or a pipe there is no width to respect: all columns.
        width = None if sys.stdout.isatty() else 200
        Console(width=width, highlight=False).print(formats.Rendering(facts))
    else:
        texts = {
            "md": formats.markdown,
            "csv": lambda facts: formats.csv_text(facts, arguments.table),
            "json": formats.json_text,
            "svg": formats.svg,
        }
        sys.stdout.write(texts[form](facts))
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from analysis.facts.comparison import comparison
    from analysis.facts.utterances import cache_directory
    from analysis.report.page import REPORT, report
    from conf.document.numbers import size
    from conf.files import output_held

    cache = None if arguments.no_cache else cache_directory()
    with output_held(arguments.output_dir / REPORT, "--output_dir"):
        with Progress().step(f"comparing the trials of sweep {arguments.sweep}"):
            store = _store()
            facts = comparison(arguments.sweep, store, cache)
        _note_if_running(facts.sweep_record)
        with Progress().step("drawing the report"):
            path = report(
                facts,
                store,
                arguments.output_dir,
                language=arguments.lang,
                other_sweep=arguments.beside,
                cache=cache,
                log=not arguments.no_log,
            )
    print(f"wrote {path} ({size(path.stat().st_size)})")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from analysis.export.best_trial import CONFIG, MODEL, SCRIPT, export
    from conf.document.numbers import measured
    from trainer.export.mlflow_model import NAME

    if arguments.no_register and arguments.register_as is not None:
        raise UserError("--register_as: got it with --no_register, expected one of the two")
    name, output_dir = arguments.sweep, arguments.output_dir
    checks = "" if arguments.no_verify else " and decode the validation set with it"
    print(f"sweep {name}: build the best trial's model directory{checks} ...", file=sys.stderr)
    origin = export(
        name,
        _store(),
        output_dir,
        verified=not arguments.no_verify,
        register_as=None if arguments.no_register else arguments.register_as or NAME,
        allow_running=arguments.allow_running,
    )
    print(
        f"trial {origin.trial} ({origin.stage}) of sweep {origin.sweep}, "
        f"{origin.objective} {measured(origin.objective, origin.value)}:"
    )
    for note in origin.notes:
        print(f"  note: {note}")
    print(f"  config:     {output_dir / CONFIG} (with stock FunASR: {output_dir / SCRIPT})")
    print(f"  model:      {output_dir / MODEL}")
    print(f"  verified:   {'; '.join(origin.verification or ['no'])}")
    print(f"  registered: {origin.registered or 'no'}")
    return 0


def _align(arguments: argparse.Namespace) -> int:
    from analysis.alignment.align import DOCS, own_document, stale, write
    from conf.document.language import LANGUAGES

    if arguments.config:
        text = own_document(
            arguments.config,
            base=arguments.base,
            language=LANGUAGES[arguments.language],
            allow_unknown=arguments.allow_unknown,
        )
        sys.stdout.write(text)
        return 0
    if arguments.base:
        raise UserError("--base: got no --config, expected the file to compare with it")
    directory = arguments.output_dir or DOCS
    if arguments.check:
        if lines := stale(directory):
            print("\n".join(lines), file=sys.stderr)
            print("mend it with: python -m analysis align", file=sys.stderr)
            return 1
        return 0
    for path in write(directory):
        print(f"wrote {path}")
    return 0


def _annotate(arguments: argparse.Namespace) -> int:
    from analysis.alignment.annotate import annotate_file, remove_marks

    if arguments.remove:
        remove_marks(arguments.file)
        return 0
    counts = annotate_file(
        arguments.file, model=arguments.model, allow_unknown=arguments.allow_unknown
    )
    print(", ".join(f"{number} {change}" for change, number in sorted(counts.items())))
    return 0


def _note_if_running(sweep: SweepRecord) -> None:
    if sweep.status == "RUNNING":
        so_far = "is still running, or was cut off: this shows what is known so far"
        print(f"note: sweep {sweep.name} {so_far}", file=sys.stderr)


def _store() -> Store:
    from trainer.tracking.mlflow_store import Store

    # Opening makes a missing store; whoever only reads would then find an empty one.
    if not os.environ.get("MLFLOW_TRACKING_URI") and not Path("mlflow.db").is_file():
        raise UserError("mlflow.db: not in the working directory, and MLFLOW_TRACKING_URI not set")
    return Store.open()


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
