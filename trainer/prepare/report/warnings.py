"""What a person should know before they train on this data: found, what it means, what to do.

Each threshold is a judgement, with its reason beside it; none of them stops anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from conf.document.language import Listed, Name, Said
from conf.document.numbers import NOTHING, duration, percent
from trainer.prepare.report.facts import LONG_TEXT_WORDS, MEASURED, Facts, Split

FEWEST_VALID_UTTERANCES = 100
"""With fewer, a single bad recording moves the CER by more than most settings do."""
FEWEST_VALID_S = 600.0
"""Ten minutes hold about 2,400 characters: at a CER of 10 % the standard error is 0.6 points even
if all errors were independent, and errors of one call are not."""
FEWEST_VALID_SPEAKERS = 5
"""Intervals leave out one speaker at a time: of fewer there is hardly one to be had."""
SHARED_TEXTS = 0.1
"""Of the long texts of a set. Greetings and announcements recur by chance, scripts in bulk."""
CLIPPED_SAMPLES = 0.001
"""Of a recording. Full scale is reached by a few samples of any loud word; one in a thousand, eight
a second at 8 kHz, is heard as distortion."""
CLIPPED_UTTERANCES = 0.01
NARROW_IN_WIDE = 0.05
"""Of the utterances with a header of 16 kHz or more. One in twenty is no accident."""
MIXED_BANDS = 0.05
"""Of a split, on either side."""
MISLABELLED = 0.01
QUIET_DBFS = -45.0
"""RMS. Telephone speech lies at -30 to -15; at -45 G.711 leaves some 5 bits."""
QUIET_UTTERANCES = 0.05
MOST_WORDS_PER_S = 10.0
"""Chinese characters or words. Read Mandarin has 4 to 5 syllables a second, hurried speech 8."""
FAST_UTTERANCES = 0.005
FEWEST_WORDS_PER_S = 0.5
SLOW_UTTERANCES = 0.05
LONGEST_S = 30.0
"""As long as the recordings that `prepare` takes by default: memory of the longest batch decides
what fits on a GPU."""
SHORTEST_S = 0.5
"""Hardly a syllable; such pieces are mostly cut wrongly."""
SHORT_UTTERANCES = 0.05
ONE_SPEAKER = 0.3
"""Of the training set's speech: the model would learn that voice."""
UNNAMED = 0.5
LEFT_OUT = 0.1
"""Of all lines. Real corpora of such calls lose about one in twenty."""
REPEATED_AUDIO = 0.001
LEVEL_APART_DB = 10.0
"""Between medians of two splits: twice as loud to the ear."""
BAND_APART = 0.2
"""Of the utterances: share of narrow-band recordings in two splits."""

_TELEPHONE = ("telephone", "phone", "tel", "call", "8k", "narrow")
_WIDEBAND = ("wideband", "16k", "studio")


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


def concerns(facts: Facts) -> tuple[Concern, ...]:
    """All warnings, grave ones first."""
    found = [*_sizes(facts), *_crossings(facts), *_content(facts), *_texts(facts)]
    found += [*_speakers(facts), *_left_out(facts), *_apart(facts), *_not_looked_at(facts)]
    return tuple(sorted(found, key=lambda concern: not concern.grave))


def _sizes(facts: Facts) -> Iterator[Concern]:
    train, valid = facts.split("train"), facts.split("valid")
    if train is None or not train.utterances:
        yield Concern(
            "no training set",
            True,
            Said("The training set is empty."),
            Said("There is nothing to learn from."),
            Said("See below what was left out, and why."),
        )
    if valid is None or not valid.utterances:
        yield Concern(
            "no validation set",
            True,
            Said("There is no validation set."),
            Said("Checkpoints and trials are chosen by it; without one there is no sweep."),
            Said("Prepare again with a share for validation (--valid_share)."),
        )
        return
    few = []
    if valid.utterances < FEWEST_VALID_UTTERANCES:
        few.append(Said("{count} utterances", count=valid.utterances))
    if "duration_s" in valid.spreads and valid.seconds < FEWEST_VALID_S:
        few.append(Said("{time} of speech", time=duration(valid.seconds)))
    if 0 < valid.speakers < FEWEST_VALID_SPEAKERS:
        few.append(Said("{count} speakers", count=valid.speakers))
    if few:
        listed = {f"reason_{index}": reason for index, reason in enumerate(few)}
        yield Concern(
            "small validation set",
            False,
            Said(
                "The validation set is small: {few}.",
                few=Listed(", ".join(f"{{{name}}}" for name in listed), **listed),
            ),
            Said(
                "Trials are compared on it: with less than {utterances} utterances, {minutes} "
                "minutes and {speakers} speakers chance decides which one is best.",
                utterances=FEWEST_VALID_UTTERANCES,
                minutes=round(FEWEST_VALID_S / 60),
                speakers=FEWEST_VALID_SPEAKERS,
            ),
            Said("Give it more of the data, other speakers first (--valid_share)."),
        )


def _crossings(facts: Facts) -> Iterator[Concern]:
    for crossing in facts.crossings:
        values = {"one": crossing.one, "other": crossing.other, "common": crossing.common}
        values |= {"utterances": crossing.utterances, "of": crossing.of}
        values |= {"share": _percent(crossing.utterances, crossing.of)}
        if crossing.what in ("calls", "speakers"):
            calls = crossing.what == "calls"
            yield Concern(
                f"{crossing.what} in two splits",
                calls,
                Said(
                    "{common} calls are in {one} and in {other} ({utterances} utterances of "
                    "{other}, {share} %)."
                    if calls
                    else "{common} speakers are in {one} and in {other} ({utterances} utterances "
                    "of {other}, {share} %).",
                    **values,
                ),
                Said(
                    "The model has heard these voices, lines and topics: its CER on {other} is "
                    "better than on new calls.",
                    other=crossing.other,
                ),
                Said("Split by call, or by speaker where speakers call again (--split_by)."),
            )
        elif crossing.what == "audio":
            yield Concern(
                "audio in two splits",
                True,
                Said(
                    "{common} recordings are in {one} and, under other keys, in {other} "
                    "({utterances} utterances of {other}, {share} %).",
                    **values,
                ),
                Said(
                    "What the model was trained on is scored as if it were new: the CER on "
                    "{other} is too good.",
                    other=crossing.other,
                ),
                Said("Leave them out of one of the two."),
            )
        elif crossing.utterances > SHARED_TEXTS * crossing.of:
            yield Concern(
                "texts in two splits",
                False,
                Said(
                    "{share} % of the long texts of {other} ({utterances} of {of}, of {words} "
                    "words and more) are texts of {one} too.",
                    **values,
                    words=LONG_TEXT_WORDS,
                ),
                Said(
                    "The model may know these sentences by heart: its CER on {other} is better "
                    "than on what callers say next.",
                    other=crossing.other,
                ),
                Said(
                    "If they are scripted or read, see to it that {other} has sentences of its "
                    "own.",
                    other=crossing.other,
                ),
            )


def _content(facts: Facts) -> Iterator[Concern]:
    for split in facts.splits:
        clipped = split.spread("clipped")
        if clipped and (many := clipped.from_on(CLIPPED_SAMPLES)) > (
            CLIPPED_UTTERANCES * clipped.count
        ):
            yield Concern(
                "clipping",
                False,
                Said(
                    "{split}: {count} utterances ({share} %) are clipped.",
                    split=split.name,
                    count=many,
                    share=_percent(many, clipped.count),
                ),
                Said(
                    "One sample in {samples} or more lies at full scale: what was louder is lost, "
                    "and distortion is spread over the whole band.",
                    samples=round(1 / CLIPPED_SAMPLES),
                ),
                Said(
                    "If the recordings were made louder on the way, take the originals; if calls "
                    "arrive so, keep them."
                ),
            )
        level = split.spread("level_dbfs")
        if level and (many := level.below(QUIET_DBFS)) > QUIET_UTTERANCES * level.count:
            yield Concern(
                "quiet recordings",
                False,
                Said(
                    "{split}: {count} utterances ({share} %) are below {level} dBFS.",
                    split=split.name,
                    count=many,
                    share=_percent(many, level.count),
                    level=f"{QUIET_DBFS:g}",
                ),
                Said("So quiet, little of the speech is left above the codec's own noise."),
                Said(
                    "Look at the quietest recordings below: is it speech, or the silent side of "
                    "a stereo call?"
                ),
            )
        yield from _bands(split)


def _bands(split: Split) -> Iterator[Concern]:
    wide_header = {key: count for key, count in split.rates_hz.items() if key[0] >= 16000}
    looked = sum(count for (_, band), count in wide_header.items() if band)
    narrow = sum(count for (_, band), count in wide_header.items() if band == "narrow")
    if looked and narrow > NARROW_IN_WIDE * looked:
        yield Concern(
            "narrow band in wide files",
            False,
            Said(
                "{split}: {count} of {of} utterances whose files say 16 kHz or more ({share} %) "
                "hold nothing above 4 kHz.",
                split=split.name,
                count=narrow,
                of=looked,
                share=_percent(narrow, looked),
            ),
            Said(
                "They are telephone recordings that were resampled: right for the telephone, "
                "wrong as clean or wideband speech, and a simulated channel finds nothing to cut."
            ),
            Said(
                "Take them as telephone speech, at 8 kHz as well: the trainer resamples. Do not "
                "put them into the wideband set, nor through --simulate."
            ),
        )
    bands = {"narrow": 0, "between": 0, "wide": 0}
    for (_, band), count in split.rates_hz.items():
        if band:
            bands[band] += count
    total = sum(bands.values())
    if total and min(bands["narrow"], bands["between"] + bands["wide"]) > MIXED_BANDS * total:
        yield Concern(
            "mixed bands",
            False,
            Said(
                "{split}: {narrow} utterances are of the telephone's band, {wide} are wider.",
                split=split.name,
                narrow=bands["narrow"],
                wide=bands["between"] + bands["wide"],
            ),
            Said("One CER over both says little of either."),
            Said(
                "Mark them by domain, so that tables show both; simulate the telephone on the "
                "wide ones (--simulate), or leave them out of validation and test."
            ),
        )
    by_rate: dict[int, int] = {}
    for (rate, _), count in split.rates_hz.items():
        by_rate[rate] = by_rate.get(rate, 0) + count
    common = [rate for rate, count in by_rate.items() if count > MIXED_BANDS * split.utterances]
    if not total and len(common) > 1:
        yield Concern(
            "mixed sample rates",
            False,
            Said(
                "{split}: files are of several sample rates ({rates} Hz).",
                split=split.name,
                rates=", ".join(map(str, common)),
            ),
            Said("They may be of telephone and other speech, and one CER says little of either."),
            Said("Let prepare read the audio (without --no_scan): it shows the real bandwidth."),
        )
    by_label: dict[tuple[str, str], int] = {}
    for (domain, band), count in split.domains.items():
        label = _labelled(domain)
        if band and label:
            by_label[label, band] = by_label.get((label, band), 0) + count
    tagged = {
        label: sum(count for (other, _), count in by_label.items() if other == label)
        for label in ("telephone", "wideband")
    }
    not_telephone = by_label.get(("telephone", "wide"), 0) + by_label.get(
        ("telephone", "between"), 0
    )
    if not_telephone > MISLABELLED * tagged["telephone"]:
        yield Concern(
            "labelled telephone and is not",
            False,
            Said(
                "{split}: {count} utterances ({share} %) are labelled as telephone speech and "
                "hold sound above 4 kHz.",
                split=split.name,
                count=not_telephone,
                share=_percent(not_telephone, tagged["telephone"]),
            ),
            Said("No narrow-band call has that: they are of another source, or never sent."),
            Said("Correct the domain, or send them through a channel (--simulate)."),
        )
    not_wide = by_label.get(("wideband", "narrow"), 0)
    if not_wide > MISLABELLED * tagged["wideband"]:
        yield Concern(
            "labelled wideband and is not",
            True,
            Said(
                "{split}: {count} utterances ({share} %) are labelled as wideband speech and hold "
                "nothing above 4 kHz.",
                split=split.name,
                count=not_wide,
                share=_percent(not_wide, tagged["wideband"]),
            ),
            Said("What a sweep says about forgetting wideband speech would be about telephones."),
            Said("Correct the domain."),
        )


def _texts(facts: Facts) -> Iterator[Concern]:
    for split in facts.splits:
        pace, lasting = split.spread("words_per_s"), split.spread("duration_s")
        if pace and (many := pace.from_on(MOST_WORDS_PER_S)) > FAST_UTTERANCES * pace.count:
            yield Concern(
                "more text than time",
                False,
                Said(
                    "{split}: {count} utterances ({share} %) say {rate} words (Chinese "
                    "characters) a second or more.",
                    split=split.name,
                    count=many,
                    share=_percent(many, pace.count),
                    rate=f"{MOST_WORDS_PER_S:g}",
                ),
                Said("Nobody speaks so fast: their texts belong to more than what was cut out."),
                Said("Check their beginnings and ends; leave them out (--max_chars_per_s)."),
            )
        if pace and (many := pace.below(FEWEST_WORDS_PER_S)) > SLOW_UTTERANCES * pace.count:
            yield Concern(
                "less text than time",
                False,
                Said(
                    "{split}: {count} utterances ({share} %) say less than {rate} words (Chinese "
                    "characters) a second.",
                    split=split.name,
                    count=many,
                    share=_percent(many, pace.count),
                    rate=f"{FEWEST_WORDS_PER_S:g}",
                ),
                Said(
                    "They hold long pauses, or speech that was not written down: of that the "
                    "model learns to leave words out."
                ),
                Said("Listen to some; leave them out (--min_chars_per_s)."),
            )
        if lasting and (many := lasting.from_on(LONGEST_S)):
            yield Concern(
                "long recordings",
                False,
                Said(
                    "{split}: {count} utterances last {limit} s or more, the longest {most}.",
                    split=split.name,
                    count=many,
                    limit=f"{LONGEST_S:g}",
                    most=duration(lasting.most),
                ),
                Said("The longest batch decides how much memory training takes."),
                Said("Cut them at pauses, or leave them out (--max_s)."),
            )
        if lasting and (many := lasting.below(SHORTEST_S)) > SHORT_UTTERANCES * lasting.count:
            yield Concern(
                "short recordings",
                False,
                Said(
                    "{split}: {count} utterances ({share} %) last less than {limit} s.",
                    split=split.name,
                    count=many,
                    share=_percent(many, lasting.count),
                    limit=f"{SHORTEST_S:g}",
                ),
                Said("That is a syllable or two, often one that was cut into."),
                Said("Listen to some; leave them out (--min_s)."),
            )
    for tokenizer, lost in (facts.characters.unspelt or {}).items():
        if lost:
            yield Concern(
                "characters that the model cannot write",
                True,
                Said(
                    "The {tokenizer} tokenizer does not give back {count} characters ({times} "
                    "times): {examples}",
                    tokenizer=tokenizer,
                    count=len(lost),
                    times=sum(times for _, times in lost),
                    examples=" ".join(char for char, _ in lost[:20]),
                ),
                Said("They are errors whatever the model learns."),
                Said("Write them as the model does, or leave the utterances out."),
            )


def _speakers(facts: Facts) -> Iterator[Concern]:
    train = facts.split("train")
    if train is None or not train.utterances:
        return
    unnamed = min(train.without_speaker, train.without_call)
    if unnamed > UNNAMED * train.utterances:
        yield Concern(
            "neither speakers nor calls",
            False,
            Said(
                "train: {count} utterances ({share} %) name neither speaker nor call.",
                count=unnamed,
                share=_percent(unnamed, train.utterances),
            ),
            Said(
                "Nobody can tell whether a caller is in two splits, and intervals take every "
                "utterance for an independent one: they are too narrow."
            ),
            Said("Add speaker_id or call to the input; file names often hold them."),
        )
    elif train.largest and train.seconds:
        name, seconds = train.largest[0]
        if seconds > ONE_SPEAKER * train.seconds:
            yield Concern(
                "one speaker dominates",
                False,
                Said(
                    "{share} % of the training set are of one speaker ({speaker}).",
                    share=_percent(seconds, train.seconds),
                    speaker=name,
                ),
                Said("The model learns that voice before it learns the line."),
                Said("Add others, or take less of this one."),
            )


def _left_out(facts: Facts) -> Iterator[Concern]:
    kept = sum(split.utterances for split in facts.splits)
    lines = facts.left_out_lines
    if lines > LEFT_OUT * (kept + lines):
        first = facts.left_out[0]
        yield Concern(
            "much was left out",
            False,
            Said(
                "{count} lines ({share} %) were left out, most of them by one rule: {rule} "
                "({lines}).",
                count=lines,
                share=_percent(lines, kept + lines),
                rule=Name(first.name),
                lines=first.lines,
            ),
            Said("What is missing may be just what is hard: then the rest is easier than calls."),
            Said("Read the examples below; mend the input, or switch the rule off (--keep)."),
        )
    for split in facts.splits:
        if split.repeated_audio > REPEATED_AUDIO * max(split.hashed, 1):
            yield Concern(
                "repeated recordings",
                False,
                Said(
                    "{split}: {count} utterances are recordings that stand there already, under "
                    "other keys.",
                    split=split.name,
                    count=split.repeated_audio,
                ),
                Said("They count double, and if their texts differ one of them is wrong."),
                Said("Leave repetitions out; look for an input that was given twice."),
            )


def _apart(facts: Facts) -> Iterator[Concern]:
    train = facts.split("train")
    for split in facts.splits:
        if train is None or split is train:
            continue
        mine, theirs = train.spread("level_dbfs"), split.spread("level_dbfs")
        if mine and theirs:
            one, other = mine.quantile(0.5) or 0.0, theirs.quantile(0.5) or 0.0
            if abs(one - other) >= LEVEL_APART_DB:
                yield _unlike(
                    split.name,
                    Said(
                        "{split} has another level than train: {other} dBFS against {one}.",
                        split=split.name,
                        other=f"{other:.0f}",
                        one=f"{one:.0f}",
                    ),
                )
        shares = [_narrow_share(train), _narrow_share(split)]
        if None not in shares and abs((shares[0] or 0) - (shares[1] or 0)) >= BAND_APART:
            yield _unlike(
                split.name,
                Said(
                    "{split} has another band than train: {other} % telephone band against "
                    "{one} %.",
                    split=split.name,
                    other=percent(shares[1] or 0, 0),
                    one=percent(shares[0] or 0, 0),
                ),
            )


def _unlike(split: str, found: Said) -> Concern:
    return Concern(
        "splits are not alike",
        False,
        found,
        Said(
            "A config that is best for one kind of recording is chosen by another kind.",
        ),
        Said(
            "Right if {split} is what calls are like and train is not; else split the same data.",
            split=split,
        ),
    )


def _narrow_share(split: Split) -> float | None:
    known = sum(count for (_, band), count in split.rates_hz.items() if band)
    narrow = sum(count for (_, band), count in split.rates_hz.items() if band == "narrow")
    return narrow / known if known else None


def _not_looked_at(facts: Facts) -> Iterator[Concern]:
    missing = [
        name
        for name in ("duration_s", *MEASURED)
        if not any(name in split.spreads for split in facts.splits)
    ]
    if not any(split.hashed for split in facts.splits):
        missing.append("sha256")
    if missing:
        yield Concern(
            "not looked at",
            False,
            Said("Nobody looked at: {names}.", names=", ".join(missing)),
            Said("The manifests do not say; what depends on it is not checked here."),
            Said("Let prepare read the audio (without --no_scan)."),
        )


def _labelled(domain: str) -> str:
    """What a domain's name says of the band."""
    lower = domain.lower()
    if any(word in lower for word in _WIDEBAND):
        return "wideband"
    return "telephone" if any(word in lower for word in _TELEPHONE) else ""


def _percent(part: float, whole: float) -> str:
    return percent(part / whole) if whole else NOTHING
