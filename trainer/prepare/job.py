"""The whole course of a preparation, from lines to manifests.

1. Each line is read, and its text and its recording's header looked at (`headers`), in parallel.
2. Every line gets its split (`split`).
3. The audio is read: measured, and cut where a line is a part or a side of a recording
   (`content`), in parallel.
4. Manifests, left-out lines and ``prepare.json`` are written (`write`).

What the two parallel passes found is kept in ``.prepare/`` until the end, so the same command goes
on where it was interrupted, and comes to the same files.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from conf.errors import DataError, UserError
from trainer.prepare import content, headers, inputs, passes
from trainer.prepare.progress import Progress
from trainer.prepare.rules import BAD_INPUT
from trainer.prepare.settings import SPLITS, Settings
from trainer.prepare.split import LEFT_OUT, Catalog, Plan, leave_out_equal_content, plan
from trainer.prepare.write import Writer, manifest_line, replacing

VERSION = 1
"""Of what the passes keep; that of another version is made anew."""
_MARK = "prepare.json"
_AROUND = ".prepare"


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
        num_workers: Processes of the two passes.
        progress: Told how far they are.

    Raises:
        DataError: A file cannot be read at all, nothing is left, or with ``strict`` a line is bad.
        UserError: The directory holds manifests that nobody prepared here.
        WorkError: A worker was killed.
    """
    output_dir = Path(output_dir).resolve()
    files = inputs.files(settings)
    _refuse_foreign(output_dir, files)
    about = {
        "version": VERSION,
        "settings": settings.as_json(),
        "inputs": [
            {"path": str(file.path), "sha256": file.sha256, "lines": file.num_lines}
            for file in files
        ],
    }
    with _working_directory(output_dir, about) as around:
        expected = sum(file.num_lines for file in files)
        catalog = Catalog()
        with progress.of("headers", expected) as advance:
            checked = passes.run(
                around / "headers",
                passes.batches(inputs.read(settings)),
                partial(headers.check_lines, settings=settings),
                num_workers,
            )
            for records in checked:
                for record in records:
                    _stop_if_strict(record, settings)
                    catalog.add(record)
                advance(len(records))
        found = plan(catalog, settings)
        parts = _parts(around, found, output_dir, settings)
        with progress.of("audio", len(catalog)) as advance:
            heard = passes.run(around / "content", parts, content.read_part, num_workers)
            for results in heard:
                for result in results:
                    catalog.add_content(result.get("sha256"))
                advance(len(results))
        leave_out_equal_content(found, catalog, settings)
        return _write(output_dir, around, found, catalog, about, settings)


def _write(
    output_dir: Path,
    around: Path,
    plan: Plan,
    catalog: Catalog,
    about: dict[str, Any],
    settings: Settings,
) -> Prepared:
    splits = _splits(settings)
    warnings = list(plan.warnings)
    with Writer(output_dir, splits) as writer:
        for index, (record, found) in enumerate(_kept(around)):
            split = plan.splits[index]
            if "rule" in record or "rule" in found:
                reason = record if "rule" in record else found
                writer.leave_out(record, reason["rule"], reason["why"])
            elif split == LEFT_OUT:
                rule, stays = plan.rules[index]
                writer.leave_out(record, rule, f"got it also at {catalog.place(stays)}, kept there")
            else:
                writer.keep(SPLITS[split], manifest_line(record, found))
        kept, left_out = writer.utterances, writer.left_out
        num_lines = len(plan.splits)
        assert sum(kept.values()) + sum(left_out.values()) == num_lines, "a line disappeared"
        if not sum(kept.values()):
            raise DataError(f"{output_dir}: got no usable utterance ({left_out}), expected some")
    warnings += [f"{split} is empty" for split, count in kept.items() if not count]
    summary = {
        **about,
        "lines_read": num_lines,
        **writer.summary(),
        "split_by": plan.split_by,
        "target_len": "characters" if settings.model is None else "tokens",
        "scanned": settings.scan,
        "warnings": warnings,
    }
    with replacing(output_dir / _MARK) as file:
        file.write(orjson.dumps(summary, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return Prepared(kept, left_out, tuple(warnings))


def _splits(settings: Settings) -> tuple[str, ...]:
    given = {each.split for each in settings.given}
    test = "test" in given or settings.test_share > 0
    return SPLITS if test else SPLITS[:2]


def _parts(
    around: Path, found: Plan, output_dir: Path, settings: Settings
) -> Sequence[content.Part]:
    """The batches of the first pass, for the second."""
    splits = found.splits.tolist()
    return [
        content.Part(
            around / "headers" / f"{number:08}.jsonl",
            tuple(splits[start : start + passes.BATCH]),
            output_dir,
            settings.scan,
            settings.keep,
        )
        for number, start in enumerate(range(0, len(splits), passes.BATCH))
    ]


def _kept(around: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What the two passes found of each line, in order."""
    for number in itertools.count():
        name = f"{number:08}.jsonl"
        records = passes.read(around / "headers" / name)
        found = passes.read(around / "content" / name)
        if records is None or found is None:
            return
        yield from zip(records, found, strict=True)


def _stop_if_strict(record: dict[str, Any], settings: Settings) -> None:
    if settings.strict and record.get("rule") in BAD_INPUT:
        raise DataError(f"{record['place']}: {record['rule']}: {record['why']}")


def _refuse_foreign(output_dir: Path, files: Sequence[inputs.File]) -> None:
    """Refuses to replace what was not made here, above all the input itself."""
    ours = [output_dir / f"{split}.jsonl" for split in SPLITS]
    ours += [output_dir / "left_out.jsonl"]
    for file in files:
        if file.path.resolve() in ours:
            raise UserError(
                f"--output_dir: got {output_dir}, where {file.path.name} would be overwritten, "
                "which is read; expected another directory"
            )


@contextlib.contextmanager
def _working_directory(output_dir: Path, about: dict[str, Any]) -> Iterator[Path]:
    """Where the passes keep what they found; goes when all is written.

    What another command, or the same one on other files, left there is thrown away.
    """
    around = output_dir / _AROUND
    around.mkdir(parents=True, exist_ok=True)
    with (around / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{output_dir}: is being prepared by another process") from None
        mark = around / "about.json"
        told = orjson.dumps(about)
        if not mark.is_file() or mark.read_bytes() != told:
            for name in ("headers", "content"):
                shutil.rmtree(around / name, ignore_errors=True)
            with replacing(mark) as file:
                file.write(told)
        yield around
        shutil.rmtree(around)
