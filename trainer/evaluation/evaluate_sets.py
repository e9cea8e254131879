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
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from conf.errors import DataError, UserError, WorkError
from conf.load import Config, load_model_config
from conf.progress import Progress, say_loading
from trainer.data.manifest import Utterance, check_evaluable, read_data_list, read_headers
from trainer.evaluation.error_rates import NORMALISATIONS, Spotted
from trainer.evaluation.evaluate import Scores, check_base, evaluate, read_keywords, read_texts
from trainer.evaluation.shared_outputs import SharedOutputs
from trainer.model.build import build

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_SET_NAME = re.compile(r"[\w][\w.-]*")
_MAX_KEYWORD_ROWS = 20
# Title, key of `Scores.summary`, and what it is multiplied by: counts by 1, shares by 100.
_ROWS = (
    ("utterances", "utterances", 1),
    ("characters", "reference_length", 1),
    ("substitutions", "substitutions", 1),
    ("deletions", "deletions", 1),
    ("insertions", "insertions", 1),
    ("CER %", "cer", 100),
    ("CER of CTC %", "cer_ctc", 100),
    ("MER %", "mer", 100),
    ("WER %", "wer", 100),
    ("raw CER %", "raw_cer", 100),
    ("KWER %", "kwer", 100),
    ("keywords missed", "keyword_misses", 1),
    ("keywords falsely heard", "keyword_false_alarms", 1),
    ("repeat themselves %", "repetition_rate", 100),
    ("differ from the base %", "changed", 100),
    ("cut at max_new_tokens", "capped", 1),
    ("characters per minute of silence", "insertions_per_minute", 1.0),
    ("silent utterances with text %", "inserted_share", 100),
)
_ROWS_IF_ANY = ("capped",)

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
    shared: Path | None = None,
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
        shared: Directory of processes that decode with the same model, one for all; None for none.

    Raises:
        UserError: A set is named twice, a file is missing or malformed, the output directory
            cannot be written to.
        WorkError: The results could not be written.
    """
    paths = _named_sets(data)
    _check_place(output_dir)
    config = load_model_config(model, "--model", overrides)
    wanted = read_keywords(keywords) if keywords is not None else ()
    sets = {name: read_data_list(path) for name, path in paths.items()}
    for utterances in sets.values():
        check_evaluable(utterances, read_headers(utterances), config["finetune_conf.eval_max_s"])
    texts: Texts | None = None
    base_config = None
    if base is not None and _is_model(base):
        base_config = load_model_config(base, "--base", overrides)
    elif base is not None:
        texts = _base_texts(base, sets)
    if base_config is not None:
        say_loading(base_config)
        scores = _score(base_config, sets, "base: ")
        texts = {name: _texts(found) for name, found in scores.items()}
    scores = _score(config, sets, "", wanted, texts, shared)
    _write(scores, output_dir)
    return scores


def print_scores(scores: Mapping[str, Scores]) -> None:
    """The scores for people: a table of the sets and one of the keywords."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    console.print(_figures(scores))
    _print_keywords(console, scores)
    said = ", ".join(f"{name} {version}" for name, version in NORMALISATIONS.items())
    console.print(f"normalisation: {said}", style="dim")


def _figures(scores: Mapping[str, Scores]) -> Table:
    """A row per figure and a column per set, which fits most windows; rows that say nothing go."""
    from rich.table import Table

    summaries = {name: found.summary() for name, found in scores.items()}
    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column("")
    for name in summaries:
        grid.add_column(name, justify="right", overflow="fold")
    for title, key, scale in _ROWS:
        values = [summary.get(key) for summary in summaries.values()]
        if all(value is None for value in values) or (key in _ROWS_IF_ANY and not any(values)):
            continue
        shown = (
            "-" if v is None else f"{v * scale:{',d' if isinstance(v, int) else '.2f'}}"
            for v in values
        )
        grid.add_row(title, *shown)
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
    label: str,
    keywords: Sequence[str] = (),
    base: Texts | None = None,
    shared: Path | None = None,
) -> dict[str, Scores]:
    nano = build(config)
    outputs = None if shared is None else SharedOutputs(shared, config)
    scores = {}
    for name, utterances in sets.items():
        what = f"evaluate {label}{name}"
        with Progress().of(what, len(utterances), "utterances") as advance:
            scores[name] = evaluate(
                nano,
                utterances,
                max_new_tokens=config["finetune_conf.max_new_tokens"],
                batch_size=config["finetune_conf.eval_batch_size"],
                base=None if base is None else base[name],
                keywords=keywords,
                shared=outputs,
                on_progress=advance,
            )
    return scores


def _texts(scores: Scores) -> dict[str, str]:
    return {scored.key: scored.text for scored in scores.utterances}


def _write(scores: Mapping[str, Scores], output_dir: Path) -> None:
    """Everything is written beside its place first, so that a full disk leaves what was there."""
    summaries = {name: found.summary() for name, found in scores.items()}
    text = json.dumps(summaries, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".scores-", dir=output_dir) as scratch:
            for name, found in scores.items():
                found.write_hypotheses(Path(scratch) / f"{name}.jsonl")
            Path(scratch, "scores.json").write_text(text, encoding="utf-8")
            (output_dir / "hypotheses").mkdir(exist_ok=True)
            for name in scores:
                place = output_dir / "hypotheses" / f"{name}.jsonl"
                os.replace(Path(scratch) / f"{name}.jsonl", place)
            os.replace(Path(scratch) / "scores.json", output_dir / "scores.json")
    except OSError as error:
        raise WorkError(f"{output_dir}: could not write the scores ({error})") from error
