"""What a model's card says beyond the weights: scores, data, what changed, run, licences.

    text = card(compared(sweep, trial, store), trial, config, data_sets(config))

The packaged model's README.md begins with what only packaging knows (`trainer.export.package`);
these sections follow. Rates are fractions until they are printed; no path of this machine is named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.facts.comparison import Comparison, compare
from analysis.facts.records import Source, SweepRecord, TrialRecord
from analysis.facts.significance import Estimate
from analysis.facts.utterances import BASE, SPLITS, Reader
from conf.delta import by_weight, change_table, classify
from conf.document.numbers import NOTHING, ends, p_value, points, rate
from conf.document.tables import table
from conf.errors import UserError
from conf.files import file_sha256
from conf.load import Config

OURS = "Apache-2.0"
LISTS: Mapping[str, str] = {"train": "train_data_set_list", **SPLITS}
ROLES: Mapping[str, str] = {
    "train": "trained on",
    "valid": "checkpoint and trial were chosen by it",
    "test": "nothing was chosen by it",
    "wideband": "what was forgotten",
}
_LICENCE = re.compile(
    r"^\W*licen[cs]e\W*:\W*([\w.+-]+(?: [\w.+-]+){0,5})", re.IGNORECASE | re.MULTILINE
)


@dataclass(frozen=True)
class DataSet:
    """A manifest as the card names it.

    Attributes:
        utterances: None where it cannot be read any more.
        hours: None where the manifest does not say how long its recordings are.
        sha256: Of the manifest's own file.
    """

    split: str
    name: str
    utterances: int | None
    hours: float | None
    sha256: str | None


def compared(
    sweep: SweepRecord, trial: TrialRecord, store: Source, cache: Path | None = None
) -> Comparison:
    """The comparison of a trial with its stage's default config and the base, on every set."""
    reader = Reader(sweep, store, cache)
    default = compare(sweep)
    row = default.row(trial.trial)
    baseline = default.baseline_of(row) if row else None
    numbers = {trial.trial, baseline.trial if baseline else trial.trial}
    for split in SPLITS:
        for one in sweep.trials:
            if one.trial in numbers:
                reader.score(one, split)
        reader.score_base(split)
    return compare(sweep, reader.evidence({}))


def data_sets(config: Config) -> tuple[DataSet, ...]:
    """The manifests that a config names."""
    return tuple(
        _data_set(split, Path(path)) for split, key in LISTS.items() if (path := config.get(key))
    )


def licence_of(directory: Path | None) -> str | None:
    """What a model directory says of its licence: a LICENSE file's first line, or its card's."""
    if directory is None:
        return None
    for path in sorted(directory.glob("LICEN[CS]E*")):
        lines = [line.strip() for line in _text(path).splitlines() if line.strip()]
        if lines:
            return f"{lines[0]} ({path.name})"
    found = _LICENCE.search(_text(directory / "README.md"))
    return found.group(1) if found else None


def card(
    facts: Comparison, trial: TrialRecord, config: Config, sets: Sequence[DataSet], remark: str = ""
) -> str:
    """The sections.

    Args:
        facts: From `compared`.
        trial: What was packaged.
        config: Its configuration.
        sets: Its data.
        remark: What else is to be said of the choice, such as that the sweep had not ended.
    """
    changes = change_table(by_weight(classify(config)))
    return "\n".join(
        [
            *("## Scores", "", *_scores(facts, trial), ""),
            *("## Data", "", *_data(sets, trial), ""),
            *("## Changes against the released model", "", *changes, ""),
            *("## Where it comes from", "", *_origin(facts, trial, remark), ""),
            *("## Licences", "", *_licences(config), ""),
        ]
    )


def _scores(facts: Comparison, trial: TrialRecord) -> list[str]:
    row = facts.row(trial.trial)
    baseline = facts.baseline_of(row) if row else None
    other = None if baseline is None or baseline.trial == trial.trial else baseline
    head = ["set", "CER", "95 % interval", "base", "against the base"]
    if other:
        head += [f"default of {trial.stage} (trial {other.trial})", "against the default"]
    trials = {one.trial: one for one in facts.sweep_record.trials}
    rows = []
    for split in SPLITS:
        value = trial.metric(f"{split}/cer")
        if value is None:
            continue
        cells = [f"{split}: {ROLES[split]}", rate(value)]
        cells += [ends(facts.interval(trial.trial, split)) or NOTHING]
        cells += [rate(facts.base.get(f"{split}/cer"))]
        cells += [_apart(facts.paired(trial.trial, BASE, split))]
        if other:
            cells += [rate(trials[other.trial].metric(f"{split}/cer"))]
            cells += [_apart(facts.paired(trial.trial, other.trial, split))]
        rows.append(cells)
    return [*table(head, rows), "", _method(facts)]


def _apart(estimate: Estimate | None) -> str:
    if estimate is None:
        return NOTHING
    interval = ends(estimate, signed=True)
    said = f" ({interval}; p {p_value(estimate.p)})" if interval else ""
    return f"{points(estimate.value)} points{said}"


def _method(facts: Comparison) -> str:
    units = {s.grouping.unit: s.grouping.count for s in facts.evidence.sets.values()}
    found = " and ".join(f"{count} {unit}s" for unit, count in units.items()) or "nothing"
    return (
        "Intervals and paired differences cover 95 %, by delete-one-cluster jackknife over "
        f"{found}; differences are in percentage points."
    )


def _data(sets: Sequence[DataSet], trial: TrialRecord) -> list[str]:
    rows = [
        (
            f"{one.split}: {ROLES[one.split]}",
            f"`{one.name}`",
            NOTHING if one.utterances is None else f"{one.utterances:,}",
            NOTHING if one.hours is None else f"{one.hours:.2f}",
            f"`{one.sha256}`" if one.sha256 else "gone since",
        )
        for one in sets
    ]
    lines = table(["set", "manifest", "utterances", "hours", "manifest's SHA-256"], rows)
    if digest := trial.comparable.get("data.sha256"):
        lines += ["", f"All sets together, as the fine-tune read them: SHA-256 `{digest}`."]
    return lines


def _origin(facts: Comparison, trial: TrialRecord, remark: str) -> list[str]:
    count = len(facts.sweep_record.trials)
    return [
        f"- sweep {facts.sweep}, MLflow run `{facts.run_id}`",
        f"- trial {trial.trial}, stage {trial.stage}, MLflow run `{trial.run_id}`",
        f"- chosen by {facts.objective} of {count} trials{remark}",
    ]


def _licences(config: Config) -> list[str]:
    base = licence_of(config.model_dir)
    # In a form that `licence_of` finds again, when this model is a base itself.
    return [
        f"License: {base} (the base's, whose derivative the weights are)"
        if base
        else "The weights are a derivative of the base's, whose directory names no licence.",
        "",
        f"telesweep, which fine-tuned and packaged them, is under {OURS}; stock FunASR, which "
        "loads them, is under MIT.",
    ]


def _data_set(split: str, path: Path) -> DataSet:
    from trainer.data.manifest import read_data_list

    try:
        seconds: list[float | None] = []
        for item in read_data_list(path):
            duration, frames = item.tags.get("duration_s"), item.tags.get("source_len")
            seconds.append(duration if duration is not None else frames and frames / 100)
        digest = file_sha256(path)
    except (UserError, OSError):
        return DataSet(split, path.name, None, None, None)
    known = [one for one in seconds if one is not None]
    hours = sum(known) / 3600 if len(known) == len(seconds) else None
    return DataSet(split, path.name, len(seconds), hours, digest)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
