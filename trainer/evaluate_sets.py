"""Scores a model on several sets in one call: what ``python -m trainer evaluate`` does.

    python -m trainer evaluate --model MODEL --data telephone=calls.jsonl wideband=clean.jsonl \\
        silence=noise.jsonl --keywords keywords.txt --base outputs/base --output_dir outputs/scores

    outputs/scores/
        scores.json               by set: rates, counts, and what the texts went through
        hypotheses/SET.jsonl      a line per utterance, with its errors and their places

Every mistake that can be found before decoding is told before decoding, and files are written when
all sets are scored.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from conf.errors import DataError, UserError, WorkError
from conf.load import Config, load_config
from trainer.evaluate import Scores, check_base, evaluate, read_keywords, read_texts
from trainer.manifest import Utterance, check_evaluable, read_data_list, read_headers
from trainer.model import build
from trainer.score import NORMALISATIONS, Spotted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.table import Table

_SET_NAME = re.compile(r"[\w][\w.-]*")
_MAX_KEYWORD_ROWS = 20

Texts = Mapping[str, Mapping[str, str]]
"""Hypotheses by set and key."""


def evaluate_sets(
    model: Path,
    data: Sequence[str],
    output_dir: Path,
    *,
    keywords: Path | None = None,
    base: Path | None = None,
    overrides: Sequence[str] = (),
) -> dict[str, Scores]:
    """Scores a model directory on named manifests and writes what it found.

    Args:
        model: Model directory, ``config.yaml`` beside the weights.
        data: Manifests as ``NAME=FILE``, or files whose stems are their names.
        output_dir: Files of an earlier call are replaced.
        keywords: File with a keyword a line.
        base: What to count changed texts against: a file of hypotheses, an output directory of an
            earlier call, or a model directory, which is then decoded first.
        overrides: Of the configuration, as ``key=value``.

    Raises:
        UserError: A set is named twice, a file is missing or malformed, the output directory
            cannot be written to.
        WorkError: The results could not be written.
    """
    paths = _named_sets(data)
    _check_place(output_dir)
    config = _model_config(model, "--model", overrides)
    wanted = read_keywords(keywords) if keywords is not None else ()
    sets = {name: read_data_list(path) for name, path in paths.items()}
    for utterances in sets.values():
        check_evaluable(utterances, read_headers(utterances), config["finetune_conf.eval_max_s"])
    texts: Texts | None = None
    base_config = None
    if base is not None and _is_model(base):
        base_config = _model_config(base, "--base", overrides)
    elif base is not None:
        texts = _base_texts(base, sets)
    with _progress() as progress:
        if base_config is not None:
            scores = _score(base_config, sets, progress, "base: ")
            texts = {name: _texts(found) for name, found in scores.items()}
        scores = _score(config, sets, progress, "", wanted, texts)
    _write(scores, output_dir)
    return scores


def print_scores(scores: Mapping[str, Scores]) -> None:
    """The scores for people: a table of the sets, one of the keywords, a line on silence."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    console.print(_rates(scores))
    for name, found in scores.items():
        if found.silent:
            per_minute, share = found.insertions_per_minute or 0.0, found.inserted_share or 0.0
            console.print(
                f"{name}: {per_minute:.1f} characters written per minute of silence, in "
                f"{100 * share:.1f} % of {len(found.silent)} silent utterances"
            )
        if capped := sum(scored.capped for scored in found.utterances):
            console.print(f"{name}: {capped} texts were cut at finetune_conf.max_new_tokens")
    _print_keywords(console, scores)
    said = ", ".join(f"{name} {version}" for name, version in NORMALISATIONS.items())
    console.print(f"normalisation: {said}", style="dim")


def _rates(scores: Mapping[str, Scores]) -> Table:
    from rich.table import Table

    columns = {
        "CER": "cer",
        "CTC": "cer_ctc",
        "MER": "mer",
        "WER": "wer",
        "raw CER": "raw_cer",
        "KWER": "kwer",
        "repeats": "repetition_rate",
        "changed": "changed",
    }
    summaries = {name: found.summary() for name, found in scores.items()}
    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column("set")
    shown = {
        head: key
        for head, key in columns.items()
        if any(key in summary for summary in summaries.values())
    }
    for head in ("utterances", "characters", "S", "D", "I", *(f"{head} %" for head in shown)):
        grid.add_column(head, justify="right")
    counts = ("utterances", "reference_length", "substitutions", "deletions", "insertions")
    for name, summary in summaries.items():
        rates = [summary.get(key) for key in shown.values()]  # None where it is not defined
        grid.add_row(
            name,
            *(str(summary[count]) for count in counts),
            *("-" if rate is None else f"{100 * rate:.2f}" for rate in rates),
        )
    return grid


def _print_keywords(console: Console, scores: Mapping[str, Scores]) -> None:
    """The keywords that went wrong most often, over all sets."""
    from rich.table import Table

    counts: dict[str, Spotted] = {}
    for found in scores.values():
        for keyword, spotted in found.spotted.items():
            counts[keyword] = counts.get(keyword, Spotted()) + spotted
    wrong = {k: c for k, c in counts.items() if c.misses or c.false_alarms}
    order = sorted(wrong, key=lambda k: (-wrong[k].misses - wrong[k].false_alarms, k))
    if not order:
        return
    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column("keyword")
    for head in ("said", "missed", "false alarms"):
        grid.add_column(head, justify="right")
    for keyword in order[:_MAX_KEYWORD_ROWS]:
        found_ = wrong[keyword]
        numbers = (found_.reference_count, found_.misses, found_.false_alarms)
        grid.add_row(keyword.replace("[", r"\["), *map(str, numbers))
    console.print()
    console.print(grid)
    if len(order) > _MAX_KEYWORD_ROWS:
        console.print(f"and {len(order) - _MAX_KEYWORD_ROWS} more in scores.json")


def _named_sets(data: Sequence[str]) -> dict[str, str]:
    """``NAME=FILE``, or a file whose stem is its name."""
    sets: dict[str, str] = {}
    for item in data:
        name, equals, path = item.partition("=")
        if not equals:
            name, path = Path(item).stem, item
        if not _SET_NAME.fullmatch(name):
            raise UserError(f"--data: got the name {name!r}, expected letters, digits, . _ or -")
        if name in sets:
            raise UserError(f"--data: got the set {name!r} twice, expected distinct names")
        sets[name] = path
    return sets


def _check_place(output_dir: Path) -> None:
    """Refuses a place that cannot be written to before hours are spent on the scores."""
    for place in (output_dir, output_dir / "hypotheses"):
        existing = place
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        if not existing.is_dir():
            problem = f"{str(existing)!r}, which is no directory"
        elif not os.access(existing, os.W_OK | os.X_OK):
            problem = f"{str(existing)!r}, which may not be written to"
        else:
            continue
        raise UserError(f"--output_dir: got {problem}, expected a directory to write to")


def _model_config(model: Path, flag: str, overrides: Sequence[str]) -> Config:
    path = model / "config.yaml"
    if not path.is_file():
        raise DataError(f"{flag}: got {str(model)!r} without config.yaml, expected a model's")
    return load_config(path, model=model, overrides=overrides)


def _is_model(base: Path) -> bool:
    return (base / "config.yaml").is_file() and not (base / "hypotheses").is_dir()


def _base_texts(base: Path, sets: Mapping[str, Sequence[Utterance]]) -> Texts:
    if base.is_dir() and not (base / "hypotheses").is_dir():
        raise DataError(
            f"--base: got {str(base)!r}, expected a file of hypotheses, a directory with "
            "hypotheses/, or a model directory"
        )
    files = {
        name: base / "hypotheses" / f"{name}.jsonl" if base.is_dir() else base for name in sets
    }
    texts = {name: read_texts(path) for name, path in files.items()}
    for name, utterances in sets.items():
        check_base(utterances, texts[name])
    return texts


def _score(
    config: Config,
    sets: Mapping[str, Sequence[Utterance]],
    progress: Progress,
    label: str,
    keywords: Sequence[str] = (),
    base: Texts | None = None,
) -> dict[str, Scores]:
    nano = build(config)
    scores = {}
    for name, utterances in sets.items():
        task = progress.add_task(label + name, total=len(utterances))
        scores[name] = evaluate(
            nano,
            utterances,
            max_new_tokens=config["finetune_conf.max_new_tokens"],
            batch_size=config["finetune_conf.eval_batch_size"],
            base=None if base is None else base[name],
            keywords=keywords,
            on_progress=partial(_show, progress, task),
        )
    return scores


def _show(progress: Progress, task: TaskID, done: int) -> None:
    progress.update(task, completed=done)


def _progress() -> Progress:
    """Bars on stderr where that is a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(file=sys.stderr)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def _texts(scores: Scores) -> dict[str, str]:
    return {scored.key: scored.text for scored in scores.utterances}


def _write(scores: Mapping[str, Scores], output_dir: Path) -> None:
    path = output_dir / "scores.json"
    partial = output_dir / ".scores.json.partial"
    summaries = {name: found.summary() for name, found in scores.items()}
    try:
        for name, found in scores.items():
            found.write_hypotheses(output_dir / "hypotheses" / f"{name}.jsonl")
        text = json.dumps(summaries, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise WorkError(f"{output_dir}: could not write the scores ({error})") from error
