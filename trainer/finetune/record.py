"""What is written about a fine-tune: its configuration, each epoch's numbers, skipped utterances.

    record = Record(config, tracker, step=lambda: engine.step)
    record.describe(data, weights_sha256, device="cpu", trainable="llm 1,000")
    record.metrics |= scores.metrics("valid")
    record.log_epoch(1)

Torch is not imported: the search of a sweep writes the same about a trial that it need not train.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.delta import classify, deltas_json, deltas_markdown
from conf.files import write_text
from conf.load import Config
from trainer.data.sets import Data
from trainer.evaluation.error_rates import NORMALISATION
from trainer.finetune.result import Evaluation
from trainer.tracking.event_log import Tracker

if TYPE_CHECKING:  # its module loads torch
    from trainer.data.batch import LeftOut

_LOG = logging.getLogger(__name__)
_MAX_NAMED = 20
"""Skipped utterances named in the log when they are found together; the file names all."""


class Record:
    """What one fine-tune has recorded so far.

    Args:
        config: Names `output_dir`, where the files go.
        tracker: Gets params, tags, metrics and artifacts.
        step: Gives the number of optimizer updates made.

    Attributes:
        metrics: The newest value of each metric.
        evaluations: One for each epoch that was logged, and a last one once it has finished.
    """

    def __init__(self, config: Config, tracker: Tracker, step: Callable[[], int]) -> None:
        self._config = config
        self._tracker = tracker
        self._step = step
        self._left_out: dict[str, LeftOut] = {}
        self.metrics: dict[str, float] = {}
        self.evaluations: list[Evaluation] = []

    @property
    def finished(self) -> bool:
        """Whether the fine-tune has logged its end."""
        return bool(self.evaluations) and self.evaluations[-1].finished

    def describe(self, data: Data, weights_sha256: str, *, device: str, trainable: str) -> None:
        """Write and log what is about to be trained, before the first step.

        Args:
            data: The sets.
            weights_sha256: Of the file that training starts from.
            device: The type of device it runs on.
            trainable: Components with their number of trainable parameters.
        """
        tags = log_config(self._config, self._tracker)
        chosen, complete = len(data.valid_subset), len(data.evaluation["valid"])
        self._tracker.set_tags(
            {
                "stage": self._config.stage,
                "engine": self._config["finetune_conf.engine"],
                "init.sha256": weights_sha256,
                "data.sha256": data.sha256,
                "scoring": NORMALISATION,
                "valid.subset": f"{chosen} of {complete}",
                "device": device,
                "trainable": trainable,
                **tags,
            }
        )
        self._tracker.log_metrics({"train/left_out": len(self._left_out)}, step=0)

    def log_epoch(self, epoch: int) -> None:
        """Log this epoch's numbers and add its evaluation."""
        self._log(epoch, self._step(), finished=False)

    def log_end(self) -> None:
        """Log the numbers of the checkpoint that would be exported.

        They come one step after the last update, so that the last value of each metric, which
        MLflow's tables show, belongs to that checkpoint.
        """
        self._log(self.evaluations[-1].epoch, self._step() + 1, finished=True)

    def log_skipped(self, found: Sequence[LeftOut]) -> None:
        """Count, name and write down utterances that training skips; nothing replaces them."""
        new = [item for item in found if item.utterance.key not in self._left_out]
        if not new:
            return
        self._left_out |= {item.utterance.key: item for item in new}
        for item in new[:_MAX_NAMED]:
            _LOG.warning("left out %s: %s", item.utterance.place, item.reason)
        for reason, number in Counter(item.reason for item in new).items():
            _LOG.warning("left out %d utterances: %s", number, reason)
        lines = [
            {"key": item.utterance.key, "place": item.utterance.place, "reason": item.reason}
            for item in self._left_out.values()
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        _write_artifact(self._config, self._tracker, "left_out.jsonl", text)
        if self.evaluations:  # before the first one, `describe` logs the count
            self._tracker.log_metrics({"train/left_out": len(self._left_out)}, step=self._step())

    def state(self) -> dict[str, Any]:
        """Give what a resume point keeps of it."""
        return {
            "metrics": dict(self.metrics),
            "evaluations": [asdict(evaluation) for evaluation in self.evaluations],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the numbers of an earlier process from its `state`."""
        self.metrics = dict(state["metrics"])
        self.evaluations = [Evaluation(**evaluation) for evaluation in state["evaluations"]]

    def _log(self, epoch: int, step: int, *, finished: bool) -> None:
        self._tracker.log_metrics({**self.metrics, "epoch": float(epoch)}, step=step)
        evaluation = Evaluation(epoch, self._step(), dict(self.metrics), finished)
        self.evaluations.append(evaluation)


def log_config(config: Config, tracker: Tracker) -> dict[str, str]:
    """Write and log a run's configuration, and how it differs from the base's.

    Returns:
        The tags that follow from the configuration alone, which are not logged yet.
    """
    deltas = classify(config)
    for name, text in {
        "config.yaml": config.to_yaml(),
        "deltas.json": deltas_json(deltas),
        "deltas.md": deltas_markdown(deltas),
    }.items():
        _write_artifact(config, tracker, name, text)
    tracker.log_params(config.flat())
    changes = [delta.change for delta in deltas]
    critical = [
        delta.key
        for delta in deltas
        if delta.severity == "critical" and delta.change in ("MODIFIED", "NEW")
    ]
    return {
        "config.sha256": config.fingerprint(),
        "delta.critical": ", ".join(critical),
        "delta.modified": str(changes.count("MODIFIED")),
        "delta.new": str(changes.count("NEW")),
    }


def _write_artifact(config: Config, tracker: Tracker, name: str, text: str) -> None:
    path = Path(config["output_dir"]) / name
    write_text(path, text)
    tracker.log_artifact(path, name)
