"""A preparation from beginning to end, from lines to manifests.

1. Each line is read, and its text and its recording's header looked at (`first_pass`), in
   parallel.
2. Every line gets its split (`split`).
3. The audio is read: measured, and cut where a line is a part or a side of a recording
   (`second_pass`), in parallel.
4. What is kept is sent over a telephone channel (`simulate`), if that is asked.
5. Manifests, left-out lines and ``prepare.json`` are written (`write`).

What the parallel passes found is kept in ``.prepare/`` until the end, so the same command goes on
where it was interrupted, and comes to the same files.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from conf.channels import ChannelRange, load_channel
from conf.errors import DataError
from conf.files import write_bytes
from conf.progress import Progress
from trainer.prepare import first_pass, inputs, passes, second_pass
from trainer.prepare.directory import is_ours, refuse_foreign, take_audio_dir, working
from trainer.prepare.filters import STOPS
from trainer.prepare.settings import SPLITS, Settings
from trainer.prepare.split import LEFT_OUT, Catalog, Plan, leave_out_equal_content, plan
from trainer.prepare.write import MARK, Outcome, Writer, manifest_line

VERSION = 1
"""Of what the passes keep; that of another version is made anew."""


@dataclass(frozen=True)
class Prepared:
    """What became of the input: utterances per split, lines left out per rule, warnings."""

    utterances: dict[str, int]
    left_out: dict[str, int]
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        kept = ", ".join(f"{split} {count}" for split, count in self.utterances.items())
        rules = ", ".join(f"{count} {rule}" for rule, count in sorted(self.left_out.items()))
        total = sum(self.left_out.values())
        return f"{kept}, left out {total}" + (f" ({rules})" if rules else "")


def prepare(
    settings: Settings, output_dir: Path, *, num_workers: int, progress: Progress
) -> Prepared:
    """Filters, splits and writes.

    Args:
        settings: What to read, and how.
        output_dir: Made if it is not there; an earlier preparation in it is replaced.
        num_workers: Processes of the passes.
        progress: Told how far they are.

    Raises:
        ConfigError: There is no such channel, or its YAML is wrong.
        DataError: A file cannot be read at all, nothing is left, or with ``strict`` a line is bad.
        UserError: The directory holds what was not prepared here.
        WorkError: A worker was killed.
    """
    output_dir = output_dir.resolve()
    channel = None if settings.simulate is None else load_channel(settings.simulate)
    files = inputs.files(settings)
    refuse_foreign(output_dir, [file.path for file in files])
    about = {
        "version": VERSION,
        "settings": settings.as_json(),
        **({} if channel is None else {"channel": channel.fingerprint()}),
        "inputs": [
            {"path": str(file.path), "sha256": file.sha256, "lines": file.num_lines}
            for file in files
        ],
    }
    with working(output_dir, about) as around:
        job = _Job(settings, output_dir, around, channel, num_workers, progress)
        catalog = job.read_headers(sum(file.num_lines for file in files))
        found = plan(catalog, settings)
        job.read_audio(catalog, found)
        leave_out_equal_content(found, catalog, settings)
        return job.write(catalog, found, about)


class _Job:
    """The steps of a preparation, and what they share."""

    def __init__(
        self,
        settings: Settings,
        output_dir: Path,
        around: Path,
        channel: ChannelRange | None,
        num_workers: int,
        progress: Progress,
    ) -> None:
        self._settings = settings
        self._output_dir, self._around = output_dir, around
        self._audio_dir = output_dir / "wav"
        self._channel = channel
        self._num_workers = num_workers
        self._progress = progress
        self._cuts = False

    def read_headers(self, expected: int) -> Catalog:
        """The first pass.

        Args:
            expected: About how many lines there are.
        """
        catalog = Catalog()
        replaced = str(self._audio_dir) if is_ours(self._audio_dir) else None
        check = partial(first_pass.check_lines, settings=self._settings, audio_dir=replaced)
        lines = passes.batches(inputs.read(self._settings))
        with self._progress.of("headers", expected, about=True) as advance:
            for records in passes.run(self._around / "headers", lines, check, self._num_workers):
                for record in records:
                    self._stop_if_strict(record["place"], *_reason(record))
                    self._cuts = self._cuts or "cut" in record
                    catalog.add(record)
                advance(len(records))
        return catalog

    def read_audio(self, catalog: Catalog, plan: Plan) -> None:
        """The second pass."""
        directory = self._around / "content"
        if self._cuts or self._channel is not None:
            take_audio_dir(self._audio_dir, anew=not directory.exists())
        parts = (
            second_pass.Part(
                self._around / "headers" / f"{number:08}.jsonl",
                tuple(plan.splits[start : start + passes.BATCH].tolist()),
                # What is sent over a line is written anew.
                self._audio_dir if self._channel is None else self._around / "cut",
                self._settings.scan,
                self._settings.keep,
            )
            for number, start in enumerate(range(0, len(catalog), passes.BATCH))
        )
        with self._progress.of("audio", len(catalog)) as advance:
            done = 0
            for results in passes.run(directory, parts, second_pass.read_part, self._num_workers):
                for result in results:
                    self._stop_if_strict(catalog.place(done), *_reason(result))
                    catalog.add_content(result.get("sha256"))
                    if "rule" in result:
                        plan.splits[done] = LEFT_OUT
                    done += 1
                advance(len(results))

    def write(self, catalog: Catalog, plan: Plan, about: dict[str, Any]) -> Prepared:
        """Manifests, left-out lines and what is told of them."""
        test = any(each.split == "test" for each in self._settings.given)
        splits = SPLITS if test or self._settings.test_share > 0 else SPLITS[:2]
        with Writer(self._output_dir, self._around, splits) as writer:
            for outcome in self._final(catalog, plan):
                self._stop_if_strict(outcome.record["place"], *outcome.reason)
                writer.add(outcome)
            kept, left_out = writer.utterances, dict(writer.left_out)
            in_all = sum(kept.values()) + sum(left_out.values())
            assert in_all == len(catalog), "a line disappeared"
            if not sum(kept.values()):
                said = ", ".join(f"{count} {rule}" for rule, count in sorted(left_out.items()))
                raise DataError(
                    f"{self._output_dir}: got no usable utterance ({said}), expected some"
                )
            warnings = [*plan.warnings, *_mixed_rates(writer)]
            if warnings and self._settings.strict:
                raise DataError(warnings)
            warnings += [f"{split} is empty" for split, count in kept.items() if not count]
            summary = {
                **about,
                "lines_read": len(catalog),
                **writer.summary(),
                "split_by": plan.split_by,
                "target_len": "characters" if self._settings.model is None else "tokens",
                "scanned": self._settings.scan,
                "warnings": warnings,
            }
            for number, split in enumerate(SPLITS):
                if split in splits:
                    summary["splits"][split] |= catalog.count(plan.splits, number)
            writer.finish()
        option = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        write_bytes(self._output_dir / MARK, orjson.dumps(summary, option=option))
        return Prepared(kept, left_out, tuple(warnings))

    def _final(self, catalog: Catalog, plan: Plan) -> Iterator[Outcome]:
        """What became of each line, with what is kept sent over the telephone if that is asked."""
        if self._channel is None:
            return self._outcomes(catalog, plan)
        from trainer.prepare.simulate import Simulation

        simulation = Simulation(
            self._channel,
            self._settings,
            self._around,
            self._audio_dir,
            self._num_workers,
            self._progress,
        )
        simulation.run(self._outcomes(catalog, plan))
        return simulation.replaced(self._outcomes(catalog, plan))

    def _outcomes(self, catalog: Catalog, plan: Plan) -> Iterator[Outcome]:
        """What became of each line, in order."""
        for index, (record, found) in enumerate(self._kept()):
            if "rule" in record or "rule" in found:
                yield Outcome(record, reason=_reason(record if "rule" in record else found))
            elif plan.splits[index] == LEFT_OUT:
                rule, stays = plan.rules[index]
                why = f"got it also at {catalog.place(stays)}, kept there"
                yield Outcome(record, reason=(rule, why))
            else:
                yield Outcome(record, SPLITS[plan.splits[index]], manifest_line(record, found))

    def _kept(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """What the two passes found of each line, in order."""
        for number in itertools.count():
            name = f"{number:08}.jsonl"
            records = passes.read(self._around / "headers" / name)
            found = passes.read(self._around / "content" / name)
            if records is None or found is None:
                return
            yield from zip(records, found, strict=True)

    def _stop_if_strict(self, place: str, rule: str, why: str) -> None:
        if self._settings.strict and rule in STOPS:
            raise DataError(f"{place}: {rule}: {why}")


def _reason(found: Mapping[str, Any]) -> tuple[str, str]:
    """Rule and why; "" where nothing is wrong."""
    return found.get("rule", ""), found.get("why", "")


def _mixed_rates(writer: Writer) -> list[str]:
    """A warning if recordings differ in their rate: no mistake of a line, and yet to be known."""
    if len(writer.rates_hz) < 2:
        return []
    said = ", ".join(
        f"{count} of {rate} Hz (first {writer.first_of_rate[rate]})"
        for rate, count in writer.rates_hz.most_common()
    )
    return [f"mixed sample rates: {said}; --rate takes only some"]
