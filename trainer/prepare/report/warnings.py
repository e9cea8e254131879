"""Warnings to read before training on the data: what was found, what it means, what to do.

To add one, add a `Rule` to the table of what it looks at, and its texts to the catalogue `zh.yaml`.
Each threshold is a judgement, with its reason beside it; none of them stops anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from conf.document.language import Listed, Name, Said
from conf.document.numbers import NOTHING, duration, percent
from trainer.prepare.report.facts import LONG_TEXT_WORDS, MEASURED, Crossing, Facts, Split
from trainer.prepare.report.histogram import Spread

Of = TypeVar("Of")
Characters = tuple[tuple[str, int], ...]
Values = Mapping[str, object]
Check = Callable[[Of], Values | None]
"""Returns the values that the texts name in braces; None where there is nothing to warn of."""


@dataclass(frozen=True)
class Concern:
    """One warning.

    Attributes:
        name: In English, for tests and links.
        grave: A number that a sweep reports would be wrong, and not just worse.
        found: What there is.
        means: What follows from it.
        advice: What to do.
    """

    name: str
    grave: bool
    found: Said
    means: Said
    advice: Said


@dataclass(frozen=True)
class Rule(Generic[Of]):
    """When to warn, and in which words; `name`, `grave` and the texts are those of `Concern`."""

    name: str
    check: Check[Of]
    found: str
    means: str
    advice: str
    grave: bool = False


def concerns(facts: Facts) -> tuple[Concern, ...]:
    """Return all warnings, grave ones first, otherwise in the order of the tables."""
    train = [split for split in facts.splits if split.name == "train"]
    pairs = [(one, other) for one in train for other in facts.splits if other is not one]
    found = [
        *_broken(SIZES, [facts]),
        *_broken(CROSSINGS, facts.crossings),
        *_broken(SOUND, facts.splits),
        *_broken(PACE, facts.splits),
        *_broken(SPELLING, (facts.characters.unspelt or {}).items()),
        *_broken(SPEAKERS, train),
        *_broken(LEFT_OUT, [facts]),
        *_broken(REPEATED, facts.splits),
        *_broken(UNLIKE, pairs),
        *_broken(NOT_MEASURED, [facts]),
    ]
    return tuple(sorted(found, key=lambda concern: not concern.grave))


def _broken(rules: Iterable[Rule[Of]], looked_at: Iterable[Of]) -> Iterator[Concern]:
    for each in looked_at:
        for rule in rules:
            values = rule.check(each)
            if values is not None:
                texts = (Said(text, **values) for text in (rule.found, rule.means, rule.advice))
                yield Concern(rule.name, rule.grave, *texts)


def _over(share: float, part: float, whole: float, **said: object) -> Values | None:
    """Warn where `part` is more than this share of `whole`."""
    if part <= share * whole:
        return None
    return {"count": part, "of": whole, "share": percent(part / whole) if whole else NOTHING} | said


def _filled(facts: Facts, name: str) -> Split | None:
    split = facts.split(name)
    return split if split and split.utterances else None


def _small(facts: Facts) -> Values | None:
    # With fewer, a single bad recording moves the CER by more than most settings do.
    utterances = 100
    # Ten minutes hold about 2,400 characters: at a CER of 10 % the standard error is 0.6 points
    # even if all errors were independent, and errors of one call are not.
    minutes = 10
    # Intervals leave out one speaker at a time: of fewer there is hardly one to be had.
    speakers = 5
    valid = _filled(facts, "valid")
    if valid is None:
        return None
    few = {}
    if valid.utterances < utterances:
        few["utterances"] = Said("{count} utterances", count=valid.utterances)
    if "duration_s" in valid.spreads and valid.seconds < 60 * minutes:
        few["time"] = Said("{time} of speech", time=duration(valid.seconds))
    if 0 < valid.speakers < speakers:
        few["speakers"] = Said("{count} speakers", count=valid.speakers)
    if not few:
        return None
    listed = Listed(", ".join(f"{{{name}}}" for name in few), **few)
    return {"few": listed, "utterances": utterances, "minutes": minutes, "speakers": speakers}


def _common(what: str, share: float, crossing: Crossing) -> Values | None:
    """Warn where two splits have calls, speakers, audio or texts in common."""
    if crossing.what != what:
        return None
    said = {**vars(crossing), "words": LONG_TEXT_WORDS}
    return _over(share, crossing.utterances, crossing.of, **said)


def _many(
    share: float, name: str, counted: Callable[[Spread, float], int], limit: float, split: Split
) -> Values | None:
    """Warn where more than this share of the utterances are below a limit, or from it on."""
    spread = split.spread(name)
    if spread is None:
        return None
    said = {"split": split.name, "limit": f"{limit:g}", "most": duration(spread.most)}
    return _over(share, counted(spread, limit), spread.count, **said)


def _bands(
    counts: Mapping[tuple[Of, str], int], chosen: Callable[[Of], bool] = lambda _: True
) -> Counter[str]:
    """Count utterances by band where it was measured, of the chosen sample rates or domains."""
    bands: Counter[str] = Counter()
    for (of, band), count in counts.items():
        if band and chosen(of):
            bands[band] += count
    return bands


def _narrow_in_wide(split: Split) -> Values | None:
    bands = _bands(split.rates_hz, lambda rate_hz: rate_hz >= 16000)
    # One in twenty is no accident.
    return _over(0.05, bands["narrow"], bands.total(), split=split.name)


MIXED = 0.05
"""Of a split, on either side."""


def _mixed_bands(split: Split) -> Values | None:
    bands = _bands(split.rates_hz)
    said = {"narrow": bands["narrow"], "wide": bands["between"] + bands["wide"]}
    return _over(MIXED, min(said.values()), bands.total(), split=split.name, **said)


def _mixed_rates(split: Split) -> Values | None:
    counts: Counter[int] = Counter()
    for (rate_hz, _), count in split.rates_hz.items():
        counts[rate_hz] += count
    common = [rate_hz for rate_hz, count in counts.items() if count > MIXED * split.utterances]
    if _bands(split.rates_hz).total() or len(common) < 2:
        return None
    return {"split": split.name, "rates": ", ".join(map(str, common))}


def _mislabelled(label: str, wrong: Iterable[str], split: Split) -> Values | None:
    """Warn where utterances whose domain says one band are of another."""
    bands = _bands(split.domains, lambda domain: _label(domain) == label)
    return _over(0.01, sum(bands[band] for band in wrong), bands.total(), split=split.name)


def _label(domain: str) -> str:
    """Return what a domain's name says of the band."""
    for label, names in (
        ("wideband", ("wideband", "16k", "studio")),
        ("telephone", ("telephone", "phone", "tel", "call", "8k", "narrow")),
    ):
        if any(name in domain.lower() for name in names):
            return label
    return ""


def _unspelt(lost: tuple[str, Characters]) -> Values | None:
    tokenizer, characters = lost
    if not characters:
        return None
    examples = " ".join(char for char, _ in characters[:20])
    times = sum(times for _, times in characters)
    count = len(characters)
    return {"tokenizer": tokenizer, "count": count, "times": times, "examples": examples}


def _unnamed(train: Split) -> Values | None:
    return _over(0.5, min(train.without_speaker, train.without_call), train.utterances)


def _dominated(train: Split) -> Values | None:
    if _unnamed(train) or not train.largest or not train.seconds:
        return None
    speaker, seconds = train.largest[0]
    return _over(0.3, seconds, train.seconds, speaker=speaker)


def _much_left_out(facts: Facts) -> Values | None:
    if not facts.left_out:
        return None
    first, lines = facts.left_out[0], facts.left_out_lines
    read = lines + sum(split.utterances for split in facts.splits)
    # Real corpora of such calls lose about one in twenty.
    return _over(0.1, lines, read, rule=Name(first.name), lines=first.lines)


def _other_level(pair: tuple[Split, Split]) -> Values | None:
    spreads = [spread for split in pair if (spread := split.spread("level_dbfs"))]
    medians = [spread.quantile(0.5) or 0.0 for spread in spreads]
    # 10 dB: twice as loud to the ear.
    if len(medians) < 2 or abs(medians[0] - medians[1]) < 10.0:
        return None
    return {"split": pair[1].name, "other": f"{medians[1]:.0f}", "one": f"{medians[0]:.0f}"}


def _other_band(pair: tuple[Split, Split]) -> Values | None:
    measured = [bands for split in pair if (bands := _bands(split.rates_hz)).total()]
    shares = [bands["narrow"] / bands.total() for bands in measured]
    if len(shares) < 2 or abs(shares[0] - shares[1]) < 0.2:
        return None
    return {"split": pair[1].name, "other": percent(shares[1], 0), "one": percent(shares[0], 0)}


def _not_measured(facts: Facts) -> Values | None:
    measured = {name for split in facts.splits for name in split.spreads}
    if any(split.hashed for split in facts.splits):
        measured.add("sha256")
    missing = [name for name in ("duration_s", *MEASURED, "sha256") if name not in measured]
    return {"names": ", ".join(missing)} if missing else None


SIZES: tuple[Rule[Facts], ...] = (
    Rule(
        "no training set",
        lambda facts: None if _filled(facts, "train") else {},
        "The training set is empty.",
        "There is nothing to learn from.",
        "See below what was left out, and why.",
        grave=True,
    ),
    Rule(
        "no validation set",
        lambda facts: None if _filled(facts, "valid") else {},
        "There is no validation set.",
        "Checkpoints and trials are chosen by it; without one there is no sweep.",
        "Prepare again with a share for validation (--valid_share).",
        grave=True,
    ),
    Rule(
        "small validation set",
        _small,
        "The validation set is small: {few}.",
        "Trials are compared on it: with less than {utterances} utterances, {minutes} minutes and "
        "{speakers} speakers chance decides which one is best.",
        "Give it more of the data, other speakers first (--valid_share).",
    ),
)

_KNOWN_VOICES = (
    "The model has heard these voices, lines and topics: its CER on {other} is better than on new "
    "calls.",
    "Split by call, or by speaker where speakers call again (--split_by).",
)
CROSSINGS: tuple[Rule[Crossing], ...] = (
    Rule(
        "calls in two splits",
        partial(_common, "calls", 0.0),
        "{common} calls are in {one} and in {other} ({utterances} utterances of {other}, {share} "
        "%).",
        *_KNOWN_VOICES,
        grave=True,
    ),
    Rule(
        "speakers in two splits",
        partial(_common, "speakers", 0.0),
        "{common} speakers are in {one} and in {other} ({utterances} utterances of {other}, "
        "{share} %).",
        *_KNOWN_VOICES,
    ),
    Rule(
        "audio in two splits",
        partial(_common, "audio", 0.0),
        "{common} recordings are in {one} and, under other keys, in {other} ({utterances} "
        "utterances of {other}, {share} %).",
        "What the model was trained on is scored as if it were new: the CER on {other} is too "
        "good.",
        "Leave them out of one of the two.",
        grave=True,
    ),
    Rule(
        "texts in two splits",
        # Greetings and announcements recur by chance, scripts in bulk.
        partial(_common, "texts", 0.1),
        "{share} % of the long texts of {other} ({utterances} of {of}, of {words} words and more) "
        "are texts of {one} too.",
        "The model may know these sentences by heart: its CER on {other} is better than on what "
        "callers say next.",
        "If they are scripted or read, see to it that {other} has sentences of its own.",
    ),
)

SOUND: tuple[Rule[Split], ...] = (
    Rule(
        "clipping",
        # Full scale is reached by a few samples of any loud word; one in a thousand, eight a second
        # at 8 kHz, is heard as distortion.
        partial(_many, 0.01, "clipped", Spread.from_on, 0.001),
        "{split}: {count} utterances ({share} %) are clipped.",
        "One sample in 1000 or more lies at full scale: what was louder is lost, and distortion "
        "is spread over the whole band.",
        "If the recordings were made louder on the way, take the originals; if calls arrive so, "
        "keep them.",
    ),
    Rule(
        "quiet recordings",
        # RMS. Telephone speech lies at -30 to -15; at -45 G.711 leaves some 5 bits.
        partial(_many, 0.05, "level_dbfs", Spread.below, -45.0),
        "{split}: {count} utterances ({share} %) are below {limit} dBFS.",
        "So quiet, little of the speech is left above the codec's own noise.",
        "Look at the quietest recordings below: is it speech, or the silent side of a stereo call?",
    ),
    Rule(
        "narrow band in wide files",
        _narrow_in_wide,
        "{split}: {count} of {of} utterances whose files say 16 kHz or more ({share} %) hold "
        "nothing above 4 kHz.",
        "They are telephone recordings that were resampled: right for the telephone, wrong as "
        "clean or wideband speech, and a simulated channel finds nothing to cut.",
        "Take them as telephone speech, at 8 kHz as well: the trainer resamples. Do not put them "
        "into the wideband set, nor through --simulate.",
    ),
    Rule(
        "mixed bands",
        _mixed_bands,
        "{split}: {narrow} utterances are of the telephone's band, {wide} are wider.",
        "One CER over both says little of either.",
        "Mark them by domain, so that tables show both; simulate the telephone on the wide ones "
        "(--simulate), or leave them out of validation and test.",
    ),
    Rule(
        "mixed sample rates",
        _mixed_rates,
        "{split}: files are of several sample rates ({rates} Hz).",
        "They may be of telephone and other speech, and one CER says little of either.",
        "Let prepare read the audio (without --no_scan): it shows the real bandwidth.",
    ),
    Rule(
        "labelled telephone and is not",
        partial(_mislabelled, "telephone", ("between", "wide")),
        "{split}: {count} utterances ({share} %) are labelled as telephone speech and hold sound "
        "above 4 kHz.",
        "No narrow-band call has that: they are of another source, or never sent.",
        "Correct the domain, or send them through a channel (--simulate).",
    ),
    Rule(
        "labelled wideband and is not",
        partial(_mislabelled, "wideband", ("narrow",)),
        "{split}: {count} utterances ({share} %) are labelled as wideband speech and hold nothing "
        "above 4 kHz.",
        "What a sweep says about forgetting wideband speech would be about telephones.",
        "Correct the domain.",
        grave=True,
    ),
)

PACE: tuple[Rule[Split], ...] = (
    Rule(
        "more text than time",
        # Read Mandarin has 4 to 5 syllables a second, hurried speech 8.
        partial(_many, 0.005, "words_per_s", Spread.from_on, 10.0),
        "{split}: {count} utterances ({share} %) say {limit} words (Chinese characters) a second "
        "or more.",
        "Nobody speaks so fast: their texts belong to more than what was cut out.",
        "Check their beginnings and ends; leave them out (--max_chars_per_s).",
    ),
    Rule(
        "less text than time",
        partial(_many, 0.05, "words_per_s", Spread.below, 0.5),
        "{split}: {count} utterances ({share} %) say less than {limit} words (Chinese characters) "
        "a second.",
        "They hold long pauses, or speech that was not written down: of that the model learns to "
        "leave words out.",
        "Listen to some; leave them out (--min_chars_per_s).",
    ),
    Rule(
        "long recordings",
        # As long as the recordings that `prepare` takes by default.
        partial(_many, 0.0, "duration_s", Spread.from_on, 30.0),
        "{split}: {count} utterances last {limit} s or more, the longest {most}.",
        "The longest batch decides how much memory training takes.",
        "Cut them at pauses, or leave them out (--max_s).",
    ),
    Rule(
        "short recordings",
        # Hardly a syllable; such pieces are mostly cut wrongly.
        partial(_many, 0.05, "duration_s", Spread.below, 0.5),
        "{split}: {count} utterances ({share} %) last less than {limit} s.",
        "That is a syllable or two, often one that was cut into.",
        "Listen to some; leave them out (--min_s).",
    ),
)

SPELLING: tuple[Rule[tuple[str, Characters]], ...] = (
    Rule(
        "characters that the model cannot write",
        _unspelt,
        "The {tokenizer} tokenizer does not give back {count} characters ({times} times): "
        "{examples}",
        "They are errors whatever the model learns.",
        "Write them as the model does, or leave the utterances out.",
        grave=True,
    ),
)

SPEAKERS: tuple[Rule[Split], ...] = (
    Rule(
        "neither speakers nor calls",
        _unnamed,
        "train: {count} utterances ({share} %) name neither speaker nor call.",
        "Nobody can tell whether a caller is in two splits, and intervals take every utterance for "
        "an independent one: they are too narrow.",
        "Add speaker_id or call to the input; file names often hold them.",
    ),
    Rule(
        "one speaker dominates",
        _dominated,
        "{share} % of the training set are of one speaker ({speaker}).",
        "The model learns that voice before it learns the line.",
        "Add others, or take less of this one.",
    ),
)

LEFT_OUT: tuple[Rule[Facts], ...] = (
    Rule(
        "much was left out",
        _much_left_out,
        "{count} lines ({share} %) were left out, most of them by one rule: {rule} ({lines}).",
        "What is missing may be just what is hard: then the rest is easier than calls.",
        "Read the examples below; mend the input, or switch the rule off (--keep).",
    ),
)

REPEATED: tuple[Rule[Split], ...] = (
    Rule(
        "repeated recordings",
        lambda split: _over(0.001, split.repeated_audio, max(split.hashed, 1), split=split.name),
        "{split}: {count} utterances are recordings that stand there already, under other keys.",
        "They count double, and if their texts differ one of them is wrong.",
        "Leave repetitions out; look for an input that was given twice.",
    ),
)

_UNLIKE = (
    "A config that is best for one kind of recording is chosen by another kind.",
    "Right if {split} is what calls are like and train is not; else split the same data.",
)
UNLIKE: tuple[Rule[tuple[Split, Split]], ...] = (
    Rule(
        "splits are not alike",
        _other_level,
        "{split} has another level than train: {other} dBFS against {one}.",
        *_UNLIKE,
    ),
    Rule(
        "splits are not alike",
        _other_band,
        "{split} has another band than train: {other} % telephone band against {one} %.",
        *_UNLIKE,
    ),
)

NOT_MEASURED: tuple[Rule[Facts], ...] = (
    Rule(
        "not looked at",
        _not_measured,
        "Nobody looked at: {names}.",
        "The manifests do not say; what depends on it is not checked here.",
        "Let prepare read the audio (without --no_scan).",
    ),
)
