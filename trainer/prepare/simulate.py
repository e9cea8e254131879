"""What was prepared, sent over a telephone channel: new audio, and what was drawn for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from conf.progress import Progress
from trainer.channel import ChannelRange, simulate_manifest
from trainer.data.audio import read_mono
from trainer.prepare import passes, second_pass
from trainer.prepare.passes import dumps
from trainer.prepare.settings import SPLITS, Settings
from trainer.prepare.write import Outcome

RULE = "channel"


class Simulation:
    """Sends what is kept of a preparation over lines of a channel.

    Args:
        channel: What lines are drawn from.
        settings: For the seed, and whether the new audio is measured.
        around: Where the passes keep what they found.
        audio_dir: Gets the new audio, a directory per split.
        num_workers: Processes.
        progress: Told how far it is.
    """

    def __init__(
        self,
        channel: ChannelRange,
        settings: Settings,
        around: Path,
        audio_dir: Path,
        num_workers: int,
        progress: Progress,
    ) -> None:
        self._channel, self._settings = channel, settings
        self._around, self._audio_dir = around, audio_dir
        self._num_workers, self._progress = num_workers, progress
        self._failed: dict[str, str] = {}

    def run(self, outcomes: Iterable[Outcome]) -> None:
        """Simulates and measures all that is kept."""
        counts = self._write_what_is_kept(outcomes)
        for split, count in counts.items():
            # A set to be scored on may be of one speaker, and lends its voices to no other.
            voices = self._before("train" if "train" in counts else split)
            with self._progress.of(f"{self._channel.name}: {split}", count) as advance:
                self._simulate(split, voices, advance)
            with self._progress.of(f"measure: {split}", count) as advance:
                for batch in self._measured(split):
                    advance(len(batch))

    def _simulate(self, split: str, voices: Path, advance: Callable[[int], None]) -> None:
        told = 0

        def tell(done: int, _: int) -> None:
            nonlocal told
            advance(done - told)
            told = done

        done = simulate_manifest(
            self._before(split),
            self._after(split),
            self._audio_dir / split,
            self._channel,
            voices=voices,
            seed=self._settings.seed,
            workers=self._num_workers,
            on_progress=tell,
        )
        self._failed |= {line["key"]: line["why"] for line in done.left_out}

    def replaced(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """The outcomes, with the new audio in place of the old."""
        new = {split: chain.from_iterable(self._measured(split)) for split in SPLITS}
        for outcome in outcomes:
            if outcome.line is None:
                yield outcome
            elif (key := outcome.line["key"]) in self._failed:
                yield Outcome(outcome.record, reason=(RULE, self._failed[key]))
            else:
                yield Outcome(outcome.record, outcome.split, next(new[outcome.split]))

    def _measured(self, split: str) -> Iterator[passes.Records]:
        """The new lines of a split, with what the new audio shows."""
        directory = self._around / "measured" / split
        measure = partial(_measured, scan=self._settings.scan)
        with self._after(split).open("rb") as file:
            lines = passes.batches(orjson.loads(line) for line in file)
            yield from passes.run(directory, lines, measure, self._num_workers)

    def _write_what_is_kept(self, outcomes: Iterable[Outcome]) -> dict[str, int]:
        counts: dict[str, int] = {}
        with ExitStack() as files:
            open_files = {}
            for split in SPLITS:
                path = self._before(split)
                path.parent.mkdir(parents=True, exist_ok=True)
                open_files[split] = files.enter_context(path.open("wb"))
            for outcome in outcomes:
                if outcome.line is not None:
                    line = outcome.line
                    if line.get("domain") == "wideband":  # which it is no more
                        line = {**line, "domain": "telephone"}
                    open_files[outcome.split].write(dumps(line) + b"\n")
                    counts[outcome.split] = counts.get(outcome.split, 0) + 1
        return counts

    def _before(self, split: str) -> Path:
        return self._around / "before" / f"{split}.jsonl"

    def _after(self, split: str) -> Path:
        return self._around / "after" / f"{split}.jsonl"


def _measured(lines: list[dict[str, Any]], scan: bool) -> passes.Records:
    if not scan:
        return lines
    return [line | second_pass.measure(*read_mono(Path(line["source"]))) for line in lines]
