"""What the checks before training see of the data: manifests, headers, and some recordings decoded.

Every manifest line and every header is read; recordings are decoded only as far as a sample, evenly
over each list, since a corpus may hold hundreds of hours.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import soundfile

from conf.document.numbers import hours
from conf.files import file_sha256
from conf.load import Config
from conf.rules import STAGE_TRAINS, Finding, Status, judged
from trainer.data.audio import SILENCE, TELEPHONE_HZ, WIDEBAND_SHARE, power_above
from trainer.data.manifest import (
    CALL_KEYS,
    MARK,
    Audios,
    Ints,
    Utterance,
    read_data_list,
    read_headers,
)
from trainer.data.text import unspelt

if TYPE_CHECKING:
    from trainer.data.batch import BatchSampler
    from trainer.data.text import TextCodec

MAX_DECODED = 64
"""Recordings decoded per list."""
_SHOWN = 3


@dataclass(frozen=True)
class Largest:
    """Sizes of a batch, the largest of an epoch or another, padding included."""

    utterances: int
    num_frames: int
    """Longest of its utterances, in 10 ms frames."""
    text_tokens: int


@dataclass(frozen=True)
class Decoded:
    """What one decoded recording shows."""

    utterance: Utterance
    problem: str = ""
    above: float = 0.0
    """Power above the telephone's band as a share of that within."""


def survey(config: Config) -> Survey:
    """Read every manifest and header that a configuration names.

    Raises:
        DataError: One is not readable.
    """
    lists = {
        "train": config.get("train_data_set_list"),
        "valid": config.get("valid_data_set_list"),
        "wideband": config.get("finetune_conf.wideband_data_set_list"),
        "test": config.get("finetune_conf.test_data_set_list"),
    }
    utterances = {split: read_data_list(path) for split, path in lists.items() if path}
    # What training would leave out is a mistake here: a check is where to hear of it.
    audios = {split: read_headers(items) for split, items in utterances.items()}
    return Survey(config, utterances, audios)


class Survey:
    """The lists of one configuration, and what is found in them."""

    def __init__(
        self,
        config: Config,
        utterances: Mapping[str, Sequence[Utterance]],
        audios: Mapping[str, Audios],
    ) -> None:
        self._config = config
        self.utterances = utterances
        self.audios = audios

    def find(self, id: str) -> Finding:
        """What one of this part's checks finds."""
        checks: Mapping[str, Callable[[], Finding]] = {
            "decoding": self._decoding,
            "bandwidth": self._bandwidth,
            "lengths": self._lengths,
            "texts": self._texts,
            "spelling": self._spelling,
            "splits": self._splits,
        }
        return checks[id]()

    @property
    def sizes(self) -> str:
        """Utterances and hours per list."""
        return ", ".join(
            f"{split} {len(items):,} ({hours(self.audios[split].durations_s.sum())} h)"
            for split, items in self.utterances.items()
        )

    @cached_property
    def sample_rates_hz(self) -> frozenset[int]:
        """Of the training data."""
        return frozenset(self.audios["train"].sample_rates_hz.tolist())

    @cached_property
    def sampler(self) -> BatchSampler:
        """The batches that training would make."""
        from trainer.data.batch import BatchSampler

        codec = self.codec
        return BatchSampler(
            self.utterances["train"],
            self.audios["train"],
            self._text_lengths,
            self._config["dataset_conf"],
            self._config["finetune_conf.seed"],
            0 if codec is None else len(codec.before_audio) + len(codec.after_audio),
        )

    @property
    def batches_per_epoch(self) -> int:
        return len(self._plan)

    @property
    def longest_utterance(self) -> int:
        """Frames and tokens of the longest utterance that is not left out."""
        return max((int(self._lengths_of[batch].max()) for batch in self._plan), default=0)

    @cached_property
    def largest_batch(self) -> Largest:
        """The batch with the most frames and tokens, padding included."""
        return self._sizes(
            max(self._plan, key=lambda each: len(each) * self._lengths_of[each].max(), default=[])
        )

    @cached_property
    def largest_evaluated(self) -> Largest:
        """The batch of the evaluation sets whose texts and frames take the most memory."""
        from trainer.data.batch import decoded_together, num_audio_tokens

        conf = self._config["finetune_conf"]
        stacked = self._config.get("frontend_conf.lfr_n", 6)
        largest, most = Largest(0, 0, 0), 0
        for split, audios in self.audios.items():
            if split == "train":
                continue
            frames = -(-audios.num_frames // stacked)
            for batch in decoded_together(frames.tolist(), conf["eval_batch_size"]):
                longest = int(frames[batch].max())
                size = len(batch) * (num_audio_tokens(longest) + conf["max_new_tokens"])
                if size > most:
                    most = size
                    characters = max(len(self.utterances[split][index].target) for index in batch)
                    largest = Largest(len(batch), longest * stacked, characters * len(batch))
        return largest

    @property
    def middling_batch(self) -> Largest:
        """The batch of middling padded length."""
        by_size = sorted(self._plan, key=lambda each: len(each) * self._frames[each].max())
        return self._sizes(by_size[len(by_size) // 2])

    @property
    def padded(self) -> int:
        """Frames of an epoch's batches, padding included."""
        return sum(len(batch) * int(self._frames[batch].max()) for batch in self._plan)

    @property
    def _frames(self) -> Ints:
        frames: Ints = self.audios["train"].num_frames
        return frames

    def _sizes(self, batch: list[int]) -> Largest:
        return Largest(
            len(batch),
            int(self._frames[batch].max(initial=0)),
            int(self._text_lengths[batch].sum()),
        )

    @cached_property
    def _plan(self) -> list[list[int]]:
        return self.sampler.epoch(1)

    @cached_property
    def _lengths_of(self) -> Ints:
        """Frames and tokens of each training utterance."""
        lengths: Ints = self.audios["train"].num_frames + self._text_lengths
        return lengths

    @cached_property
    def _text_lengths(self) -> Ints:
        """In the LLM's tokens; without its tokenizer in characters, which are about as many."""
        from trainer.data.batch import text_lengths

        train = self.utterances["train"]
        if self.codec is not None:
            return text_lengths(train, self.codec)
        return numpy.fromiter((len(item.target) for item in train), numpy.int64, len(train))

    @cached_property
    def codec(self) -> TextCodec | None:
        """The tokenizers; None without a model directory."""
        if self._config.model_dir is None:
            return None
        from trainer.model.build import resolved_values, text_codec

        return text_codec(resolved_values(self._config))

    @cached_property
    def _decoded(self) -> Mapping[str, list[Decoded]]:
        return {
            split: [decode(utterance) for utterance in evenly(items, MAX_DECODED)]
            for split, items in self.utterances.items()
        }

    def _decoding(self) -> Finding:
        seen = [item for items in self._decoded.values() for item in items]
        wrong = [f"{item.utterance.place}: {item.problem}" for item in seen if item.problem]
        expected = "recordings that decode and hold sound"
        found = _some(wrong, len(seen)) or f"{len(seen)} of {len(seen)} decoded recordings"
        return judged("decoding", not wrong, "", expected, found)

    def _bandwidth(self) -> Finding:
        wrong, found = [], []
        for split, items in self._decoded.items():
            heard = [item for item in items if not item.problem]
            wide = sum(item.above > WIDEBAND_SHARE for item in heard)
            rates = {audio.sample_rate_hz for audio in self.audios[split]}
            said = f"{split}: {wide} of {len(heard)} with sound above {TELEPHONE_HZ} Hz"
            found.append(f"{said} ({', '.join(f'{rate} Hz' for rate in sorted(rates))})")
            if split == "wideband":
                wrong += [split] if wide < len(heard) / 2 else []
            elif split == "train" and self._config["finetune_conf.channel"]:
                found[-1] += ", which a telephone channel takes away"
            elif self._config.stage in STAGE_TRAINS and wide > len(heard) / 10:
                wrong.append(split)
        expected = "telephone sound in the lists of calls, clean speech in the wideband list"
        return judged("bandwidth", not wrong, "", expected, "; ".join(found), "warning")

    def _lengths(self) -> Finding:
        left_out, total = self.sampler.left_out, len(self.utterances["train"])
        reasons = left_out.by_reason().most_common()
        found = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
        durations_s = self.audios["train"].durations_s
        span = f"{durations_s.min():.1f} to {durations_s.max():.1f} s"
        found = f"{len(left_out):,} left out: {found} ({span})" if left_out else f"all, {span}"
        expected = f"all {total:,} training utterances within the limits"
        wrong: Status = "failed" if len(left_out) == total else "warning"
        return judged("lengths", not len(left_out), "dataset_conf", expected, found, wrong)

    def _texts(self) -> Finding:
        total = sum(map(len, self.utterances.values()))
        marked = [
            item.place
            for split in self.utterances.values()
            for item in split
            if MARK.search(item.target)
        ]
        empty = [item.place for item in self.utterances["train"] if not item.target.strip()]
        found = []
        if marked:
            found.append(f"with marks: {_some(marked, total)}")
        if empty:
            found.append(f"empty: {_some(empty, len(self.utterances['train']))}")
        expected = "transcripts of what is said, without annotators' marks"
        wrong: Status = "failed" if marked else "warning"
        said = "; ".join(found) or f"{total:,} clean"
        return judged("texts", not found, "", expected, said, wrong)

    def _spelling(self) -> Finding:
        expected = "both tokenizers give every character back"
        if self.codec is None:
            return Finding("spelling", "not run", "", expected, "no tokenizers (no --model)")
        counts: Counter[str] = Counter()
        for split in self.utterances.values():
            for item in split:
                counts.update(item.target)
        counts = Counter({char: n for char, n in counts.items() if not char.isspace()})
        blank = self._config.get("ctc_vocab_size", 60515) - 1
        found = []
        for name, lost in unspelt(self.codec, counts, blank).items():
            if lost:
                times = sum(counts[char] for char in lost)
                shown = " ".join(lost[:20])
                found.append(f"{name}: {len(lost)} characters, {times:,} times: {shown}")
        said = "; ".join(found) or f"{len(counts):,} characters"
        return judged("spelling", not found, "", expected, said, "warning")

    def _splits(self) -> Finding:
        pairs = [
            (one, two)
            for one, two in (("train", "valid"), ("train", "test"), ("valid", "test"))
            if one in self.utterances and two in self.utterances
        ]
        grave: list[str] = []
        light: list[str] = []
        for one, two in pairs:
            for what, common in self._shared(one, two):
                said = f"{len(common)} {what} in {one} and {two} ({_some(sorted(common), 0)})"
                (light if what == "speakers" else grave).append(said)
        expected = "no recording, call or speaker in two of training, validation and test"
        wrong: Status = "failed" if grave else "warning"
        found = "; ".join([*grave, *light])
        return judged("splits", not found, "", expected, found or "none", wrong)

    def _shared(self, one: str, two: str) -> Iterator[tuple[str, set[str]]]:
        """What two lists have in common, if anything."""
        for what, identity in (
            ("recordings", self._recordings),
            ("calls", _calls),
            ("speakers", _speakers),
        ):
            first, second = identity(self.utterances[one]), identity(self.utterances[two])
            if common := first.keys() & second.keys():
                yield what, {second[name] for name in common}

    def _recordings(self, items: Sequence[Utterance]) -> dict[str, str]:
        """Place of each recording by its content where several are as long, else by its path."""
        return {
            self._contents.get(path, path): item.place
            for item in items
            if (path := str(item.source.resolve()))
        }

    @cached_property
    def _contents(self) -> Mapping[str, str]:
        """SHA-256 by path, of the files that share length and text with another."""
        groups: dict[tuple[Any, ...], list[Path]] = defaultdict(list)
        for split, items in self.utterances.items():
            if split == "wideband":
                continue
            for item, audio in zip(items, self.audios[split], strict=True):
                groups[audio.sample_rate_hz, audio.num_samples].append(item.source.resolve())
        return {
            str(path): file_sha256(path)
            for paths in groups.values()
            if len(set(paths)) > 1
            for path in set(paths)
        }


def decode(utterance: Utterance) -> Decoded:
    """Decode one recording and measure its band."""
    try:
        samples, rate_hz = soundfile.read(str(utterance.source), dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        return Decoded(utterance, " ".join(str(error).split()))
    mono = samples.mean(axis=1)
    if not numpy.isfinite(mono).all():
        return Decoded(utterance, "samples that are no numbers")
    if not len(mono) or float(numpy.abs(mono).max()) < SILENCE:
        return Decoded(utterance, "no sound at all")
    return Decoded(utterance, above=power_above(mono, rate_hz))


def evenly(items: Sequence[Utterance], count: int) -> list[Utterance]:
    """At most `count` of the items, from all over the list."""
    step = max(1, -(-len(items) // count))
    return list(items[::step])


def _calls(items: Iterable[Utterance]) -> dict[str, str]:
    found = {}
    for item in items:
        name = next((item.tags[key] for key in CALL_KEYS if item.tags.get(key)), None)
        if name is not None:
            found[str(name)] = str(name)
    return found


def _speakers(items: Iterable[Utterance]) -> dict[str, str]:
    return {item.speaker: item.speaker for item in items if item.speaker}


def _some(places: Sequence[str], total: int) -> str:
    """The first few, and how many of how many."""
    if not places:
        return ""
    shown = ", ".join(places[:_SHOWN]) + (", ..." if len(places) > _SHOWN else "")
    return f"{len(places):,} of {total:,}: {shown}" if total else shown
