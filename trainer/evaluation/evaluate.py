"""Scores a model on a manifest: every utterance, or it fails naming the one it could not read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from conf.errors import DataError
from conf.files import replacing
from trainer.data.batch import WINDOW_BATCHES, Example, collate, decoded_together, make_example
from trainer.data.manifest import SLICED_BY, Utterance, read_headers
from trainer.evaluation.decode import Hypothesis, decode
from trainer.evaluation.error_rates import (
    NORMALISATIONS,
    Cer,
    Spotted,
    alignment,
    cer,
    mer,
    mixed,
    raw_cer,
    repeats,
    spot,
    total,
    wer,
)
from trainer.evaluation.shared_outputs import Outputs, SharedOutputs
from trainer.model.build import Nano
from trainer.model.encoded import encode_examples, parts
from trainer.model.losses import Objective
from trainer.model.memory import exhaustion_named


@dataclass(frozen=True, slots=True)
class ScoredUtterance:
    """Reference and hypotheses of one utterance, and what is wrong with the LLM's text.

    Attributes:
        cer_ctc: Errors of the CTC text; all else is about the LLM's.
        repeats: It says something over and over that the reference does not.
        capped: The LLM was stopped at the cap, before it ended its turn.
        changed: It differs from the base's text; None where there is none to compare with.
        keywords: What became of the keywords that reference or text holds.
        duration_s: Of the audio, where the reference is empty; else None.
        source: What the manifest says of the recording, as `described` gives it.
    """

    key: str
    reference: str
    text: str
    ctc_text: str
    cer: Cer
    cer_ctc: Cer
    mer: Cer
    wer: Cer
    raw_cer: Cer
    repeats: bool
    capped: bool
    changed: bool | None = None
    keywords: Mapping[str, Spotted] = field(default_factory=dict)
    duration_s: float | None = None
    source: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> dict[str, Any]:
        """What a line of ``hypotheses/SPLIT.jsonl`` holds."""
        return {
            "key": self.key,
            "reference": self.reference,
            "text": self.text,
            "ctc_text": self.ctc_text,
            **asdict(self.cer),
            **{
                f"{name}_{what}": count
                for name in ("mer", "wer", "raw_cer", "cer_ctc")
                for what, count in (
                    ("errors", getattr(self, name).errors),
                    ("reference_length", getattr(self, name).reference_length),
                )
            },
            "repeats": self.repeats,
            "capped": self.capped,
            **({} if self.changed is None else {"changed": self.changed}),
            **({"keywords": _by_keyword(self.keywords)} if self.keywords else {}),
            "alignment": alignment(self.reference, self.text),
            **self.source,
        }


@dataclass(frozen=True)
class Scores:
    """Of one evaluation set.

    Attributes:
        utterances: In the manifest's order.
        loss: Validation loss, weighted by target tokens; None where it was not asked for.
        keywords: What was looked for; empty where nothing was.
    """

    utterances: tuple[ScoredUtterance, ...]
    loss: float | None
    keywords: tuple[str, ...] = ()

    @property
    def cer(self) -> Cer:
        return total(scored.cer for scored in self.utterances)

    @property
    def cer_ctc(self) -> Cer:
        return total(scored.cer_ctc for scored in self.utterances)

    @property
    def mer(self) -> Cer:
        return total(scored.mer for scored in self.utterances)

    @property
    def wer(self) -> Cer:
        return total(scored.wer for scored in self.utterances)

    @property
    def raw_cer(self) -> Cer:
        return total(scored.raw_cer for scored in self.utterances)

    @property
    def repetition_rate(self) -> float:
        """Share of texts that repeat themselves."""
        return self._share([scored.repeats for scored in self.utterances])

    @property
    def changed(self) -> float | None:
        """Share of texts that are not the base's; None without a base."""
        changed = [scored.changed for scored in self.utterances if scored.changed is not None]
        return self._share(changed) if changed else None

    @property
    def spotted(self) -> dict[str, Spotted]:
        """Counts of every keyword, also of those that never came up."""
        counts = dict.fromkeys(self.keywords, Spotted())
        for scored in self.utterances:
            for keyword, spotted in scored.keywords.items():
                counts[keyword] += spotted
        return counts

    @property
    def silent(self) -> tuple[ScoredUtterance, ...]:
        """The utterances in which nothing is said."""
        return tuple(s for s in self.utterances if s.duration_s is not None)

    @property
    def insertions_per_minute(self) -> float | None:
        """Characters written per minute of silence; None without any."""
        minutes = sum(scored.duration_s or 0.0 for scored in self.silent) / 60
        insertions = sum(scored.cer.insertions for scored in self.silent)
        return insertions / minutes if minutes else None

    @property
    def inserted_share(self) -> float | None:
        """Share of silent utterances in which anything was written; None without any."""
        inserted = [scored.cer.insertions > 0 for scored in self.silent]
        return self._share(inserted) if inserted else None

    def metrics(self, split: str) -> dict[str, float]:
        """``valid/cer`` and so on; the other splits give their ``cer`` and ``cer_ctc``.

        A silent set gives its insertions, since no error rate is defined there.
        """
        values: dict[str, float | None] = {}
        if self._says_something:
            values |= {"cer": self.cer.rate, "cer_ctc": self.cer_ctc.rate}
        else:
            values |= {
                "insertions_per_minute": self.insertions_per_minute,
                "inserted_share": self.inserted_share,
            }
        if split == "valid":
            values |= {
                "substitutions": self.cer.substitutions,
                "deletions": self.cer.deletions,
                "insertions": self.cer.insertions,
                **self._further_rates(),
            }
        metrics = {
            f"{split}/{name}": value
            for name, value in values.items()
            if value is not None and math.isfinite(value)
        }
        return metrics if self.loss is None else {**metrics, f"{split}/loss": self.loss}

    def summary(self) -> dict[str, Any]:
        """Rates and counts for ``scores.json``; null where a rate is not defined."""
        rates: dict[str, Any] = {
            "cer": self.cer.rate,
            "cer_ctc": self.cer_ctc.rate,
            **asdict(self.cer),
            "utterances": len(self.utterances),
            **self._further_rates(),
            "capped": sum(scored.capped for scored in self.utterances),
            "silent_utterances": len(self.silent),
            "insertions_per_minute": self.insertions_per_minute,
            "inserted_share": self.inserted_share,
        }
        if not self._says_something:
            rates |= dict.fromkeys(("cer", "cer_ctc", "mer", "wer", "raw_cer"))
        finite = {
            name: None if value is None or not math.isfinite(value) else value
            for name, value in rates.items()
        }
        by_keyword = {"by_keyword": _by_keyword(self.spotted)} if self.keywords else {}
        return {**finite, **by_keyword, "normalisation": NORMALISATIONS}

    def write_hypotheses(self, path: Path) -> None:
        """One JSON line per utterance; the file is whole or not there."""
        with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
            for scored in self.utterances:
                file.write(json.dumps(scored.line(), ensure_ascii=False) + "\n")

    @property
    def _says_something(self) -> bool:
        return any(scored.reference_length for scored in (u.cer for u in self.utterances))

    def _further_rates(self) -> dict[str, float]:
        rates: dict[str, float] = {
            "mer": self.mer.rate,
            "wer": self.wer.rate,
            "raw_cer": self.raw_cer.rate,
            "repetition_rate": self.repetition_rate,
        }
        if self.changed is not None:
            rates["changed"] = self.changed
        if self.keywords:
            spotted = sum(self.spotted.values(), start=Spotted())
            rates["kwer"] = spotted.rate
            rates["keyword_misses"] = spotted.misses
            rates["keyword_false_alarms"] = spotted.false_alarms
        return rates

    @staticmethod
    def _share(marks: Sequence[bool]) -> float:
        return sum(marks) / len(marks) if marks else 0.0


@torch.inference_mode()
def evaluate(
    nano: Nano,
    utterances: Sequence[Utterance],
    *,
    max_new_tokens: int,
    batch_size: int,
    objective: Objective | None = None,
    base: Mapping[str, str] | None = None,
    keywords: Sequence[str] = (),
    shared: SharedOutputs | None = None,
    on_progress: Callable[[int], None] = lambda more: None,
) -> Scores:
    """Decodes and scores every utterance; with an ``objective`` also computes its loss.

    Args:
        nano: Model with frontend and tokenizers.
        utterances: An evaluation set, keys distinct.
        max_new_tokens: Most tokens of a text.
        batch_size: Utterances encoded and texts written at once, fewer where they are long.
        objective: What computes the loss of utterances in which something is said.
        base: Another model's text of every utterance by key, to count what changed.
        keywords: To look for, as `read_keywords` gives them.
        shared: What other processes make of the same model before training; None decodes here.
        on_progress: Told how many more utterances are done.

    Raises:
        DataError: An utterance cannot be read, or the base has no text for it.
        WorkError: The device's memory is exhausted, naming the batch's shape.
    """
    if base is not None:
        check_base(utterances, base)

    def run(texts: bool, loss: bool) -> Outputs:
        wanted = objective if loss else None
        return _run(nano, utterances, max_new_tokens, batch_size, texts, wanted, on_progress)

    asked = objective is not None
    said = run(True, asked) if shared is None else shared.get(nano, utterances, loss=asked, run=run)
    return Scores(
        utterances=tuple(
            _scored(
                item,
                said.hypotheses[item.key],
                changed=None if base is None else said.hypotheses[item.key].text != base[item.key],
                keywords=keywords,
            )
            for item in utterances
        ),
        loss=said.loss,
        keywords=tuple(keywords),
    )


def _run(
    nano: Nano,
    utterances: Sequence[Utterance],
    max_new_tokens: int,
    batch_size: int,
    texts: bool,
    objective: Objective | None,
    on_progress: Callable[[int], None],
) -> Outputs:
    nano.model.eval()
    hypotheses: dict[str, Hypothesis] = {}
    losses = _Loss(nano, objective) if objective is not None else None
    batch: Sequence[Example] = ()

    def encoded() -> Iterator[list[Example]]:
        """Batches behind the encoder: what text and loss have in common is computed once."""
        nonlocal batch
        for batch in _batches(nano, utterances, batch_size):
            examples = encode_examples(nano, batch)
            if losses is not None:
                losses.add(examples)
            yield examples

    with exhaustion_named(lambda: _too_large(batch, max_new_tokens)):
        if texts:
            for hypothesis in decode(nano, encoded(), max_new_tokens, batch_size):
                hypotheses[hypothesis.key] = hypothesis
                on_progress(1)
        else:
            for examples in encoded():
                on_progress(len(examples))
    if nano.extractor.store is not None:
        nano.extractor.store.flush()  # for whoever evaluates next, in whatever process
    return Outputs(hypotheses, None if losses is None else losses.mean)


def _scored(
    utterance: Utterance, said: Hypothesis, *, changed: bool | None, keywords: Sequence[str]
) -> ScoredUtterance:
    reference, text = utterance.target, said.text
    errors = cer(reference, text)
    silent = not errors.reference_length
    return ScoredUtterance(
        key=utterance.key,
        reference=reference,
        text=text,
        ctc_text=said.ctc_text,
        cer=errors,
        cer_ctc=cer(reference, said.ctc_text),
        mer=mer(reference, text),
        wer=wer(reference, text),
        raw_cer=raw_cer(reference, text),
        repeats=repeats(reference, text),
        capped=said.capped,
        changed=changed,
        keywords=spot(reference, text, keywords) if keywords else {},
        duration_s=read_headers([utterance])[0].duration_s if silent else None,
        source=described(utterance),
    )


def described(utterance: Utterance) -> dict[str, Any]:
    """What its manifest says of a recording: `speaker`, `call`, `duration_s` and `SLICED_BY`.

    What it does not say is left out.
    """
    said = {
        "speaker": utterance.speaker,
        "call": utterance.call,
        "duration_s": utterance.duration_s,
        **{name: utterance.tags.get(name) for name in SLICED_BY},
    }
    return {name: value for name, value in said.items() if value is not None}


def read_keywords(path: Path) -> tuple[str, ...]:
    """Reads a file with one keyword a line; empty lines do not count.

    Raises:
        DataError: There is no such file, it holds no keyword, or a line is no keyword or one that
            came before; all mistakes at once.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise DataError(f"{path}: got {reason}, expected a file with a keyword a line") from error
    problems = []
    found: dict[tuple[str, ...], str] = {}
    for number, line in enumerate(lines, start=1):
        keyword = line.strip()
        tokens = tuple(mixed(keyword))
        if not keyword:
            continue
        if not tokens:
            problems.append(f"{path}:{number}: got {keyword!r}, expected letters or digits")
        elif tokens in found:
            problems.append(f"{path}:{number}: got {keyword!r} a second time ({found[tokens]!r})")
        else:
            found[tokens] = keyword
    if not found and not problems:
        problems.append(f"{path}: got no keywords, expected one a line")
    if problems:
        raise DataError(problems)
    return tuple(found.values())


def read_texts(path: Path) -> dict[str, str]:
    """The texts by key of a file that `Scores.write_hypotheses` wrote.

    Raises:
        DataError: There is no such file, or it holds something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return {line["key"]: line["text"] for line in map(json.loads, lines)}
    except FileNotFoundError as error:
        raise DataError(f"{path}: got no such file, expected hypotheses of the base") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: got {type(error).__name__}: {error}, expected JSON lines with key and text"
        ) from error


def check_base(utterances: Sequence[Utterance], base: Mapping[str, str]) -> None:
    """Checks that the base has a text for every utterance.

    Raises:
        DataError: Naming the first that it lacks.
    """
    missing = [utterance for utterance in utterances if utterance.key not in base]
    if missing:
        raise DataError(
            f"{missing[0].place}: got no text of the base for {missing[0].key!r} "
            f"({len(missing)} of {len(utterances)} lack one), expected one for every utterance"
        )


class _Loss:
    """Validation loss: cross entropy by token and CTC by utterance, whatever the batches."""

    def __init__(self, nano: Nano, objective: Objective) -> None:
        self._nano = nano
        self._objective = objective
        self._ce = self._ctc = 0.0
        self._num_tokens = self._num_utterances = 0

    def add(self, examples: Sequence[Example]) -> None:
        for part in parts(self._nano, examples):
            losses = self._objective(collate(part).to(self._nano.device), training=False)
            self._num_tokens += losses.num_tokens
            self._num_utterances += len(part)
            self._ce += losses.ce.item() * losses.num_tokens
            if losses.ctc is not None:
                self._ctc += losses.ctc.item() * losses.ctc_weight * len(part)

    @property
    def mean(self) -> float:
        return self._ce / max(1, self._num_tokens) + self._ctc / max(1, self._num_utterances)


def _batches(
    nano: Nano, utterances: Sequence[Utterance], batch_size: int
) -> Iterator[list[Example]]:
    """Utterances of similar length together, the longest of a window first."""
    window = WINDOW_BATCHES * batch_size
    for first in range(0, len(utterances), window):
        waiting = {
            number: make_example(utterance, nano.extractor, nano.codec)
            for number, utterance in enumerate(utterances[first : first + window])
        }
        lengths = [len(example.features_TF) for example in waiting.values()]
        for batch in decoded_together(lengths, batch_size):
            yield [waiting.pop(index) for index in batch]  # what is decoded is let go


def _too_large(batch: Sequence[Example], max_new_tokens: int) -> str:
    longest = max((len(example.features_TF) for example in batch), default=0)
    return (
        f"in evaluation: a batch of {len(batch)} utterances, up to {longest} frames and "
        f"{max_new_tokens} new tokens; a smaller finetune_conf.eval_batch_size or "
        "finetune_conf.max_new_tokens needs less"
    )


def _by_keyword(spotted: Mapping[str, Spotted]) -> dict[str, dict[str, int]]:
    return {keyword: asdict(counts) for keyword, counts in spotted.items()}
