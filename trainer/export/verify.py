"""Proof that a written model gives the texts that were logged: decoded anew in a fresh process.

    for said in verify(Path("exports/demo/model"), Path("outputs/my-run")):
        print(said)

This side only starts that process (trainer/export/verify_process.py) and judges; it loads no torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from conf.document import numbers
from conf.errors import DataError, UserError, WorkError
from conf.progress import Progress

_MIN_EQUAL_TEXTS = 0.99
"""Share of texts that must equal the logged ones: batched float sums may tip a near tie."""
_MAX_CER_APART = 0.0005
"""How far such texts may move the CER. On a set of less than 2,000 characters it may not move."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Verification:
    """What one way of loading made of the validation set.

    Attributes:
        way: Who decoded: `stock FunASR`, `MLflow pyfunc`.
        equal_texts: How many texts are the logged ones.
        logged_cer: As the fine-tune logged it.
        llm_dtype: Precision of the LLM (`llm_conf.llm_dtype`). In 16 bits merged adapters are
            rounded and sums depend on who decodes together, so that many near ties are tipped:
            there the CERs are compared and not the texts.
        interval: That covers 95 % of truths for `cer`, over utterances; None where there is too
            little to say.
        logged_interval: The same for `logged_cer`.
    """

    way: str
    utterances: int
    equal_texts: int
    cer: float
    logged_cer: float
    llm_dtype: str = "fp32"
    interval: Interval | None = None
    logged_interval: Interval | None = None

    @property
    def passed(self) -> bool:
        """Whether these are the logged texts and the logged CER, as far as the LLM is exact."""
        near = abs(self.cer - self.logged_cer) < _MAX_CER_APART
        if self.llm_dtype == "fp32":
            return near and self.equal_texts >= _MIN_EQUAL_TEXTS * self.utterances
        return near or (
            _covers(self.interval, self.logged_cer) and _covers(self.logged_interval, self.cer)
        )

    def __str__(self) -> str:
        texts = f"{self.way} gives {self.equal_texts} of {self.utterances} logged texts"
        if self.llm_dtype == "fp32":
            logged = numbers.rate(self.logged_cer)
            return f"{texts}, CER {numbers.rate(self.cer)} (logged {logged})"
        return (
            f"{texts}, CER {_with_interval(self.cer, self.interval)}, logged "
            f"{_with_interval(self.logged_cer, self.logged_interval)}; the LLM is in "
            f"{self.llm_dtype}, whose rounding tips near ties, so CERs are compared and not texts"
        )


def _covers(interval: Interval | None, cer: float) -> bool:
    return interval is not None and interval[0] <= cer <= interval[1]


def _with_interval(cer: float, interval: Interval | None) -> str:
    text = numbers.rate(cer)
    if interval is None:
        return text
    low, high = map(numbers.rate, interval)
    return f"{text} (95 % interval {low} to {high})"


def verify(model: Path, run: Path, served: Path | None = None) -> list[Verification]:
    """Reload a written model in a fresh process and decode the run's validation set.

    Args:
        model: A packaged model directory, for stock FunASR.
        run: The fine-tune that it was packaged from.
        served: The same as an MLflow model (`mlflow_model`), if it is to be verified too.

    Raises:
        DataError: What the run logged, or its validation set, is not there any more.
        WorkError: It cannot be loaded, or gives other texts or another CER than were logged.
    """
    command = [sys.executable, "-m", "trainer.export.verify_process", str(model), str(run)]
    with Progress().step(f"loading {model} in a fresh process and decoding the validation set"):
        finished = subprocess.run(
            [*command, *([str(served)] if served else [])], capture_output=True, text=True
        )
    last = (finished.stderr.strip().splitlines() or ["it said nothing"])[-1]
    if finished.returncode == UserError.exit_code:
        raise DataError(last.removeprefix("verify_process: "))
    if finished.returncode != 0:
        raise WorkError(f"{model}: failed to load or decode it anew ({last})")
    results = [Verification(**line) for line in json.loads(finished.stdout.splitlines()[-1])]
    for result in results:
        if not result.passed:
            raise WorkError(f"{model}: {result}")
    return results
