"""Scores a model on a manifest: every utterance, or it fails naming the one it could not read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from trainer.batch import Example, collate, make_example
from trainer.decode import decode
from trainer.losses import Objective
from trainer.manifest import Utterance
from trainer.model import Nano
from trainer.score import Cer, cer, total


@dataclass(frozen=True)
class ScoredUtterance:
    """Reference and hypotheses of one utterance with the LLM text's errors."""

    key: str
    reference: str
    text: str
    ctc_text: str
    cer: Cer
    cer_ctc: Cer


@dataclass(frozen=True)
class Scores:
    """Of one evaluation set.

    Attributes:
        utterances: In the manifest's order.
        loss: Validation loss, weighted by target tokens; None where it was not asked for.
    """

    utterances: tuple[ScoredUtterance, ...]
    loss: float | None

    @property
    def cer(self) -> Cer:
        return total(scored.cer for scored in self.utterances)

    @property
    def cer_ctc(self) -> Cer:
        return total(scored.cer_ctc for scored in self.utterances)

    def metrics(self, split: str) -> dict[str, float]:
        """``valid/cer`` and so on; the other splits give their ``cer`` and ``cer_ctc``."""
        values = {f"{split}/cer": self.cer.rate, f"{split}/cer_ctc": self.cer_ctc.rate}
        if split == "valid":
            values["valid/substitutions"] = self.cer.substitutions
            values["valid/deletions"] = self.cer.deletions
            values["valid/insertions"] = self.cer.insertions
        if self.loss is not None:
            values[f"{split}/loss"] = self.loss
        return values

    def summary(self) -> dict[str, float]:
        """Rates and counts for ``scores.json``."""
        return {
            "cer": self.cer.rate,
            "cer_ctc": self.cer_ctc.rate,
            **asdict(self.cer),
            "utterances": len(self.utterances),
        }

    def write_hypotheses(self, path: Path) -> None:
        """One JSON line per utterance."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            for scored in self.utterances:
                line = {
                    "key": scored.key,
                    "reference": scored.reference,
                    "text": scored.text,
                    "ctc_text": scored.ctc_text,
                    **asdict(scored.cer),
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


@torch.inference_mode()
def evaluate(
    nano: Nano,
    utterances: Sequence[Utterance],
    *,
    max_new_tokens: int,
    batch_size: int,
    objective: Objective | None = None,
) -> Scores:
    """Decodes and scores every utterance; with an ``objective`` also computes its loss.

    Raises:
        DataError: An utterance cannot be read.
    """
    nano.model.eval()
    scored: dict[str, ScoredUtterance] = {}
    loss_sum, num_tokens = 0.0, 0
    targets = {utterance.key: utterance.target for utterance in utterances}
    for examples in _batches(nano, utterances, batch_size):
        for hypothesis in decode(nano, examples, max_new_tokens):
            reference = targets[hypothesis.key]
            scored[hypothesis.key] = ScoredUtterance(
                key=hypothesis.key,
                reference=reference,
                text=hypothesis.text,
                ctc_text=hypothesis.ctc_text,
                cer=cer(reference, hypothesis.text),
                cer_ctc=cer(reference, hypothesis.ctc_text),
            )
        if objective is not None:
            losses = objective(collate(examples).to(nano.device), training=False)
            loss_sum += losses.total.item() * losses.num_tokens
            num_tokens += losses.num_tokens
    return Scores(
        utterances=tuple(scored[utterance.key] for utterance in utterances),
        loss=None if objective is None else loss_sum / max(1, num_tokens),
    )


def _batches(
    nano: Nano, utterances: Sequence[Utterance], batch_size: int
) -> Iterator[list[Example]]:
    """Examples of similar length together, longest first, so that too long a one fails early."""
    examples = [make_example(utterance, nano.extractor, nano.codec) for utterance in utterances]
    examples.sort(key=lambda example: example.features_TF.shape[0], reverse=True)
    for start in range(0, len(examples), batch_size):
        yield examples[start : start + batch_size]
