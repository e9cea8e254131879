"""``python -m trainer``: one fine-tune, and what belongs to it."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.command_line import add_flag, add_several, command_line
from conf.errors import ConfigError, UserError, run_command
from conf.progress import ErrorStream, Progress, say, say_loading
from trainer.prepare import flags as prepare_flags

if TYPE_CHECKING:
    from conf.load import Config
    from trainer.export.verify import Verification
    from trainer.finetune.result import Evaluation, FinetuneResult
    from trainer.tracking.event_log import EventLog

_EXAMPLES = """\
examples:
  python -m trainer train --config conf/config_8k_telephone.yaml --init_param MODEL/model.pt \\
      --train_data_set_list train.txt --valid_data_set_list valid.txt --output_dir outputs/first
  python -m trainer train --config conf/stage3_lora_domain.yaml --init_param MODEL/model.pt \\
      --train_data_set_list calls.jsonl --valid_data_set_list valid.jsonl \\
      --output_dir outputs/lora --optim_conf.lr 2e-5 ++train_conf.max_epoch=5
  python -m trainer check --config conf/config_8k_telephone.yaml --init_param MODEL/model.pt \\
      --train_data_set_list train.txt --valid_data_set_list valid.txt
  python -m trainer evaluate --model MODEL --data telephone=calls.jsonl silence=noise.jsonl \\
      --keywords keywords.txt --base BASE_MODEL --output_dir outputs/scores
  python -m trainer package --run outputs/first --output_dir my-model
  python -m trainer prepare --input calls.jsonl --output_dir data/calls
  python -m trainer effects --check
  python -m trainer demo --output_dir data/demo
  python -m trainer demo --released-size models/rehearsal
"""

_OVERRIDES = "any key of the configuration, as --optim_conf.lr 1e-4 or ++optim_conf.lr=1e-4"


def main(argv: Sequence[str]) -> int:
    """Parses the command line and runs the command; returns its exit code."""
    arguments, rest = _parser().parse_known_args(argv)
    # A system that reads people's phone calls asks nobody on the network, unless told to.
    for name, value in {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "true"}.items():
        os.environ.setdefault(name, value)
    if rest and not arguments.takes_overrides:
        raise UserError(f"{rest[0]}: got an argument that {arguments.command} does not know")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[ErrorStream()])
    logging.getLogger("trainer").setLevel(logging.INFO)
    code: int = arguments.run(arguments, rest)
    return code


def _parser() -> argparse.ArgumentParser:
    description = "Fine-tunes, scores and packages Fun-ASR-Nano."
    parser, commands = command_line("trainer", description, _EXAMPLES)
    # An abbreviated flag could not be told from an override.
    overridable: dict[str, Any] = {"epilog": f"overrides: {_OVERRIDES}", "allow_abbrev": False}

    train = commands.add_parser(
        "train", parents=[_fine_tune_flags()], help="one fine-tune", **overridable
    )
    train.add_argument(
        "--engine",
        choices=("here", "stock"),
        help="who trains: our loop (default), or FunASR's own trainer, unmodified",
    )
    train.add_argument("--experiment", metavar="NAME", help="MLflow experiment")
    add_flag(train, "--no_mlflow", "keep the event log only")
    train.set_defaults(run=_train, takes_overrides=True)

    check = commands.add_parser(
        "check",
        parents=[_fine_tune_flags()],
        help="the checks before training; exit 1 if one fails",
        **overridable,
    )
    add_flag(check, "--json", "a JSON list instead of a table")
    check.set_defaults(run=_check, takes_overrides=True)

    evaluate = commands.add_parser(
        "evaluate",
        help="CER, MER, WER and keywords of a model on one or more sets",
        **overridable,
    )
    evaluate.add_argument("--model", type=Path, required=True, metavar="DIR")
    several = "manifests, each with a name"
    add_several(evaluate, "--data", required=True, metavar="[NAME=]F", help=several)
    evaluate.add_argument("--keywords", type=Path, metavar="F", help="file with a keyword a line")
    evaluate.add_argument(
        "--base",
        type=Path,
        metavar="DIR_OR_F",
        help="count changed texts against: hypotheses, an output directory, or a model",
    )
    evaluate.add_argument("--output_dir", type=Path, required=True, metavar="DIR")
    shared = "texts that processes with the same model and sets decode once for all"
    evaluate.add_argument("--shared", type=Path, metavar="DIR", help=shared)
    evaluate.set_defaults(run=_evaluate, takes_overrides=True)

    package = commands.add_parser("package", help="a model directory for stock FunASR")
    package.add_argument("--run", dest="run_dir", type=Path, required=True, metavar="DIR")
    package.add_argument("--output_dir", type=Path, required=True, metavar="DIR")
    package.add_argument("--checkpoint", metavar="NAME", help="default: the one the run chose")
    add_flag(package, "--no_verify", "do not decode with stock FunASR")
    package.add_argument(
        "--stock_dir",
        type=Path,
        metavar="DIR",
        help="write beside it what stock FunASR's own training takes: script and data lists",
    )
    package.set_defaults(run=_package, takes_overrides=False)

    prepare = commands.add_parser(
        "prepare",
        help="manifests from recordings and transcripts",
        description=prepare_flags.DESCRIPTION,
        epilog=prepare_flags.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    prepare_flags.add_to(prepare)
    prepare.set_defaults(run=_prepare, takes_overrides=False)

    effects = commands.add_parser("effects", help="proves which configuration keys do something")
    add_flag(effects, "--check", "exit 1 if conf/effects.yaml is stale")
    add_several(effects, "--stage", metavar="8k", help="print these only")
    effects.set_defaults(run=_effects, takes_overrides=False)

    demo = commands.add_parser(
        "demo", help="the demonstration's corpus and tiny base; a model of the released size"
    )
    demo.add_argument("--output_dir", type=Path, default=Path("data/demo"), metavar="DIR")
    models = demo.add_mutually_exclusive_group()
    models.add_argument("--rebuild", type=Path, metavar="DIR", help="train the tiny base anew here")
    models.add_argument(
        "--released-size",
        type=Path,
        metavar="DIR",
        help="write a model directory of the released size, layout and number formats with random "
        "weights here (2.1 GB), to rehearse every command with",
    )
    add_flag(
        demo,
        "--ctc-vocabulary-listed",
        "with --released-size: name the CTC vocabulary in configuration.json, which the released "
        "one does not",
    )
    demo.set_defaults(run=_demo, takes_overrides=False)
    return parser


def _fine_tune_flags() -> argparse.ArgumentParser:
    """What describes one fine-tune: its configuration, weights, data and place."""
    flags = argparse.ArgumentParser(add_help=False)
    flags.add_argument("--config", type=Path, required=True, metavar="YAML")
    flags.add_argument("--init_param", type=Path, metavar="MODEL.pt", help="weights to start from")
    flags.add_argument("--model", type=Path, metavar="DIR", help="model directory, instead")
    flags.add_argument("--train_data_set_list", metavar="F", help="manifest, or list of them")
    flags.add_argument("--valid_data_set_list", metavar="F", help="manifest, or list of them")
    flags.add_argument(
        "--output_dir", metavar="DIR", help="directory of the run: new, or one to go on in"
    )
    flags.add_argument("--gpu_id", metavar="N", help="GPU to use; without one, the first or CPU")
    unknown = "let keys through that the schema does not know; the deltas name them"
    add_flag(flags, "--allow-unknown", unknown)
    flags.add_argument(
        "--skip-check",
        action="append",
        default=[],
        metavar="ID",
        help="leave a check before training out; recorded in MLflow",
    )
    return flags


def _load(arguments: argparse.Namespace, rest: list[str]) -> Config:
    """The configuration of `_fine_tune_flags` and overrides."""
    from conf.load import load_config, parse_overrides

    flags = ("train_data_set_list", "valid_data_set_list", "output_dir")
    given = {flag: getattr(arguments, flag) for flag in flags if getattr(arguments, flag)}
    if engine := getattr(arguments, "engine", None):
        given["finetune_conf.engine"] = engine
    return load_config(
        arguments.config,
        model=arguments.model,
        init_param=arguments.init_param,
        layers=[("command line", given)],
        overrides=parse_overrides(rest),
        allow_unknown=arguments.allow_unknown,
    )


def _use_gpu(gpu_id: str | None) -> None:
    """Let this process see that GPU alone, which has to be there; a -1 hides all.

    Raises:
        UserError: It is not there: on the CPU a fine-tune would take days.
    """
    if gpu_id is None:
        return
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu_id
    if gpu_id in ("", "-1"):
        return
    import torch

    if torch.cuda.device_count() < len(gpu_id.split(",")):
        raise UserError(
            f"--gpu_id: got {gpu_id}, which is not here, expected a GPU that nvidia-smi lists; "
            "without --gpu_id the first one is used, or the CPU where there is none"
        )


def _check(arguments: argparse.Namespace, rest: list[str]) -> int:
    config = _load(arguments, rest)
    say_loading(config)
    _use_gpu(arguments.gpu_id)

    from trainer.checks.run_checks import failed, print_table, run_checks, to_json

    results = run_checks(config, skip=arguments.skip_check, progress=Progress())
    if arguments.json:
        sys.stdout.write(to_json(results))
    else:
        print_table(results)
    return 1 if failed(results) else 0


def _train(arguments: argparse.Namespace, rest: list[str]) -> int:
    config = _load(arguments, rest)
    if not config.get("output_dir"):
        raise ConfigError("output_dir: got nothing, expected a directory (--output_dir DIR)")
    output_dir = Path(config["output_dir"])

    from trainer.data.sets import read_data

    # Mistakes come before any run is opened, and before torch. What the model's weights hold,
    # loading will say.
    read_data(config)
    say_loading(config)
    _use_gpu(arguments.gpu_id)

    from conf.document.numbers import rate
    from conf.files import full_disk_said
    from trainer.checks.run_checks import one_line, raise_if_failed, run_checks, tags
    from trainer.finetune.extend import can_extend, reopen
    from trainer.finetune.resume import refuse_another_run
    from trainer.finetune.run import finetune
    from trainer.finetune.run_directory import held
    from trainer.tracking.event_log import EventLog
    from trainer.tracking.mlflow_store import RUN_ID

    refuse_another_run(output_dir, config)
    then = "make room, and the same command goes on"
    with held(output_dir), full_disk_said(output_dir, then):
        refuse_another_run(output_dir, config)  # again: until now another may have trained here
        results = run_checks(
            config,
            skip=arguments.skip_check,
            parts=("config", "data"),
            of_gpu=True,
            progress=Progress(),
        )
        raise_if_failed(results)
        for check in results:
            if check.status == "warning":
                print(f"warning: {one_line(check)}", file=sys.stderr)
        if can_extend(output_dir, config):
            reopen(output_dir)
        resume = config.get("train_conf.resume", True)
        if not resume:  # parameters and points cannot be taken back from a run in MLflow
            (output_dir / RUN_ID).unlink(missing_ok=True)
        log = EventLog(output_dir, resume=resume)
        log.set_tags(tags(results))
        if arguments.no_mlflow:
            result = finetune(config, log)
        else:
            result = _tracked(config, log, arguments.experiment)
    print(f"valid/cer {rate(result.objective)} ({result.checkpoint}) in {output_dir}")
    print(f"next: python -m trainer package --run {output_dir} --output_dir MODEL_DIR")
    return 0


def _tracked(config: Config, log: EventLog, experiment: str | None) -> FinetuneResult:
    """A fine-tune whose log is copied to MLflow after each epoch."""
    from trainer.finetune.run import finetune
    from trainer.tracking.mlflow_store import Status, Store

    store = Store.open(experiment=experiment)
    run_id = store.ensure_standalone(log.directory)

    def project(_: Evaluation) -> None:
        store.project(run_id, log.directory)

    def close(status: Status) -> None:
        store.project(run_id, log.directory)
        store.finish(run_id, status)

    try:
        result = finetune(config, log, project)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        if interrupted:
            print("the same command goes on after the last resume point", file=sys.stderr)
        # A disk that is full is so for MLflow, too: what ended the fine-tune is what is told.
        with contextlib.suppress(Exception):
            close("KILLED" if interrupted else "FAILED")
        raise
    close("FINISHED")
    return result


def _evaluate(arguments: argparse.Namespace, rest: list[str]) -> int:
    from conf.load import is_override, load_model_config, parse_overrides

    data = [item for item in arguments.data if not is_override(item)]
    if not data:
        raise UserError(f"--data: got {arguments.data[0]}, a key of the configuration, expected F")
    overrides = parse_overrides([*rest, *(item for item in arguments.data if is_override(item))])
    say_loading(load_model_config(arguments.model, "--model", overrides))

    from trainer.evaluation.evaluate_sets import evaluate_sets, print_scores

    scores = evaluate_sets(
        arguments.model,
        data,
        arguments.output_dir,
        keywords=arguments.keywords,
        base=arguments.base,
        overrides=overrides,
        shared=arguments.shared,
    )
    print_scores(scores)
    return 0


def _package(arguments: argparse.Namespace, _: list[str]) -> int:
    from trainer.export.package import package
    from trainer.export.verify import verify

    verified: list[Verification] = []

    def check(model: Path) -> None:
        verified.extend(verify(model, arguments.run_dir))

    directory = package(
        arguments.run_dir,
        arguments.output_dir,
        arguments.checkpoint,
        arguments.stock_dir,
        *([] if arguments.no_verify else [check]),
    )
    print(f"wrote {directory}")
    for result in verified:
        print(result)
    return 0


def _prepare(arguments: argparse.Namespace, _: list[str]) -> int:
    settings = prepare_flags.settings(arguments)

    from trainer.prepare.job import prepare

    try:
        prepared = prepare(
            settings,
            arguments.output_dir,
            num_workers=arguments.workers,
            progress=Progress(forks=True),
        )
    except KeyboardInterrupt:
        print("the same command goes on where this one stopped", file=sys.stderr)
        raise
    for warning in prepared.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{arguments.output_dir}: {prepared}")
    if not arguments.no_report:
        with Progress().step("writing the report"):
            from trainer.prepare.report import write

            paths = write(arguments.output_dir)
        print(f"wrote {', '.join(map(str, paths))}")
    return 0


def _effects(arguments: argparse.Namespace, _: list[str]) -> int:
    say("proving which keys do something: the tiny base is trained again and again")

    from trainer.effects.files import write_or_check

    return write_or_check(
        arguments.stage,
        check=arguments.check,
        on_progress=say,
    )


def _demo(arguments: argparse.Namespace, _: list[str]) -> int:
    if arguments.released_size is not None:
        from trainer.demo.released_size import write_directory

        listed = arguments.ctc_vocabulary_listed
        write_directory(arguments.released_size, ctc_vocabulary_listed=listed)
        print(arguments.released_size)
        return 0
    if arguments.ctc_vocabulary_listed:
        raise UserError("--ctc-vocabulary-listed: got no --released-size DIR, expected one")
    if arguments.rebuild is not None:
        from trainer.demo.train_base import rebuild

        rebuild(arguments.rebuild)
        return 0
    from trainer.demo.corpus import ensure

    print(ensure(arguments.output_dir))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
