"""The scores of a fine-tune's model on its sets, beside the texts that the base wrote of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from conf.load import Config
from conf.progress import Progress
from trainer.data.manifest import Utterance
from trainer.data.sets import Data
from trainer.evaluation.evaluate import Scores, evaluate, read_keywords, read_texts
from trainer.evaluation.shared_outputs import SharedOutputs
from trainer.finetune.run_directory import HYPOTHESES
from trainer.model.build import Nano
from trainer.model.losses import Objective
from trainer.tracking.event_log import Tracker


class Scoring:
    """Scores one model again and again, and writes what it says.

    Args:
        config: How it decodes, and where its files go.
        data: The sets.
        tracker: Gets the texts.
        nano: Gives the model as it is now.
        objective: Gives its losses.
        shared: Directory that fine-tunes of the same model have in common; None for none.
    """

    def __init__(
        self,
        config: Config,
        data: Data,
        tracker: Tracker,
        nano: Callable[[], Nano],
        objective: Callable[[], Objective],
        shared: Path | None = None,
    ) -> None:
        self._config = config
        self._data = data
        self._tracker = tracker
        self._nano = nano
        self._objective = objective
        self._directory = Path(config["output_dir"])
        self._shared = None if shared is None else SharedOutputs(shared, config)
        self._base_texts: dict[str, dict[str, str]] = {}
        keywords = config["finetune_conf.keywords"]
        self._keywords = read_keywords(Path(keywords)) if keywords else ()

    def sets(self, *, untouched: bool = False) -> dict[str, Scores]:
        """Scores of every set but the test set, which nothing is chosen by.

        Args:
            untouched: The model is the one that training starts from, whose texts are shared.
        """
        sets = {**self._data.evaluation, "valid": self._data.valid_subset}
        shared = self._shared if untouched else None
        return {split: self.of(split, sets[split], shared) for split in sets if split != "test"}

    def of(
        self, split: str, utterances: Sequence[Utterance], shared: SharedOutputs | None = None
    ) -> Scores:
        """Scores of one set; of the validation set with its losses."""
        base = self._base_texts.get(split, {})
        with Progress().of(f"evaluate {split}", len(utterances), "utterances") as advance:
            return evaluate(
                self._nano(),
                utterances,
                max_new_tokens=self._config["finetune_conf.max_new_tokens"],
                batch_size=self._config["finetune_conf.eval_batch_size"],
                objective=self._objective() if split == "valid" else None,
                base=base if all(item.key in base for item in utterances) else None,
                keywords=self._keywords,
                shared=shared,
                on_progress=advance,
            )

    def write(self, split: str, scores: Scores) -> None:
        """Writes and logs the texts of a set."""
        path = self._directory / HYPOTHESES / f"{split}.jsonl"
        scores.write_hypotheses(path)
        self._tracker.log_artifact(path, f"{HYPOTHESES}/{split}.jsonl")

    def keep_as_base(self, split: str, scores: Scores) -> None:
        """Keeps the texts of a set as those of the model before any training."""
        scores.write_hypotheses(self._base_path(split))
        self._base_texts[split] = {item.key: item.text for item in scores.utterances}

    def read_base(self) -> None:
        """Reads the texts that an interrupted run kept."""
        self._base_texts = {
            split: read_texts(self._base_path(split))
            for split in self._data.evaluation
            if self._base_path(split).exists()
        }

    def _base_path(self, split: str) -> Path:
        return self._directory / HYPOTHESES / "base" / f"{split}.jsonl"
