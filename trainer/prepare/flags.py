"""The command's flags, and the settings that they say. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
import codecs
import os
from collections.abc import Sequence
from pathlib import Path

from conf.command_line import add_flag, add_several
from conf.errors import UserError
from trainer.prepare.settings import SPLITS, Given, Settings

DESCRIPTION = """\
Makes manifests of recordings and transcripts as you have them: train.jsonl, valid.jsonl (and
test.jsonl), the same in FunASR's chat form in chat/, and left_out.jsonl with every line that is in
none of them and the rule that left it out. Interrupted, the same command goes on."""

EXAMPLES = """\
examples:
  one manifest, split by call or speaker so that none is in two:
    python -m trainer prepare --input calls.jsonl --test_share 0.1 --output_dir data/calls
  a table with other names of columns, paths below a directory:
    python -m trainer prepare --input calls.csv --column source=path --column target=transcript \\
        --root ~/recordings --output_dir data/calls
  Kaldi's directory (wav.scp, text; segments, utt2spk, reco2file_and_channel where they are):
    python -m trainer prepare --input kaldi/train --output_dir data/calls
  splits that you have, checked against each other:
    python -m trainer prepare --train a.jsonl --valid b.jsonl --test c.jsonl --output_dir data/x
  recordings in a folder, with "NAME: TEXT" lines:
    python -m trainer prepare --wav_dir sounds --transcripts names.txt --output_dir data/x
  wideband speech, sent over a telephone line:
    python -m trainer prepare --input clean.jsonl --simulate landline_g711 --output_dir data/sim

fields of a line or columns of a table:
  key, source (the recording), target (what is said); where known speaker, call, domain, channel;
  side (A, B, left, right) or channel_index (0, 1) of a stereo call; start_s and end_s of a part

rules for --keep (others are mistakes in the input, and cannot be kept):
  annotation_error, annotators_mark, empty_text, unspeakable_characters, sample_rate, too_short,
  too_long, characters_per_second, stereo_without_a_side, no_sound, duplicate_content,
  call_in_another_split, content_in_another_split; with --spoken symbols_without_a_spoken_form,
  numeral_that_can_be_read_in_several_ways
"""


def add_to(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``prepare``."""
    defaults = Settings(given=())
    what = parser.add_argument_group(
        "what to read", "JSON lines (ours or FunASR's chat form), CSV, TSV, lists of them, Kaldi's"
    )
    add_several(what, "--input", type=_path, metavar="F", help="what is to be split")
    for split in SPLITS:
        add_several(what, f"--{split}", type=_path, metavar="F", help=f"what is the {split} set")
    what.add_argument("--wav_scp", type=_path, metavar="F", help="Kaldi's, with --text")
    for name in ("text", "segments", "utt2spk", "spk2utt", "reco2file_and_channel"):
        what.add_argument(f"--{name}", type=_path, metavar="F", help="with --wav_scp")
    what.add_argument("--wav_dir", type=_path, metavar="DIR", help="with --transcripts")
    what.add_argument("--transcripts", type=_path, metavar="F", help="NAME: TEXT lines, or .gz")
    what.add_argument("--root", type=_path, metavar="DIR", help="where all relative paths start")
    what.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="name of a column or JSON key: target=transcript",
    )
    what.add_argument(
        "--map_path",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="paths that begin with OLD, written on another machine",
    )
    what.add_argument(
        "--encoding", default=defaults.encoding, metavar="NAME", help="of texts: gb18030, ..."
    )

    splitting = parser.add_argument_group("how to split")
    for name in ("valid", "test"):
        share = getattr(defaults, f"{name}_share")
        splitting.add_argument(
            f"--{name}_share",
            type=float,
            default=share,
            metavar="X",
            help=f"of what has no split ({share:g})",
        )
    splitting.add_argument(
        "--split_by",
        choices=("auto", "call", "speaker", "key"),
        default=defaults.split_by,
        help="what may not be in two splits (auto: calls and speakers, where they are named)",
    )

    rules = parser.add_argument_group("what to leave out")
    for flag, default, unit in (
        ("min_s", defaults.min_s, "shorter recordings, in s"),
        ("max_s", defaults.max_s, "longer ones"),
        ("min_chars_per_s", defaults.min_chars_per_s, "texts with fewer characters a second"),
        ("max_chars_per_s", defaults.max_chars_per_s, "with more; 12 suits Chinese"),
    ):
        rules.add_argument(
            f"--{flag}", type=float, default=default, metavar="X", help=f"{unit} ({default:g})"
        )
    add_several(rules, "--rate", type=int, metavar="HZ", help="take no others")
    add_several(rules, "--keep", metavar="RULE", help="rules that leave nothing out")
    add_flag(rules, "--strict", "end at the first mistake in the input")

    how = parser.add_argument_group("what to write")
    how.add_argument("--output_dir", type=_path, required=True, metavar="DIR")
    add_flag(how, "--spoken", "lower case, no punctuation, no ambiguous numerals")
    add_flag(how, "--keep_spaces", "leave spaces between Chinese characters")
    how.add_argument("--model", type=_path, metavar="DIR", help="count text in its tokens")
    add_flag(how, "--no_scan", "do not read all audio: no bandwidth, levels and content hashes")
    how.add_argument(
        "--simulate", metavar="NAME", help="send all over a telephone: conf/channel/NAME, or a YAML"
    )
    how.add_argument("--seed", type=int, default=defaults.seed, metavar="N", help="of --simulate")
    add_flag(how, "--no_report", "no data_report.html and .md")
    how.add_argument("--workers", type=int, default=_cores(), metavar="N", help="processes")


def settings(arguments: argparse.Namespace) -> Settings:
    """What the flags say.

    Raises:
        UserError: They do not fit together.
    """
    if arguments.workers < 1:
        raise UserError(f"--workers: got {arguments.workers}, expected 1 or more")
    for unit in ("s", "chars_per_s"):
        low, high = (getattr(arguments, f"{end}_{unit}") for end in ("min", "max"))
        if not 0 <= low < high:
            raise UserError(f"--min_{unit}: got {low:g}, expected less than {high:g}, 0 or more")
    return Settings(
        given=_given(arguments),
        root=arguments.root,
        columns=_pairs("column", arguments.column),
        map_paths=_pairs("map_path", arguments.map_path),
        encoding=_encoding(arguments.encoding),
        valid_share=_share(arguments, "valid_share"),
        test_share=_share(arguments, "test_share"),
        split_by=arguments.split_by,
        min_s=arguments.min_s,
        max_s=arguments.max_s,
        min_chars_per_s=arguments.min_chars_per_s,
        max_chars_per_s=arguments.max_chars_per_s,
        rates_hz=tuple(arguments.rate),
        spoken=arguments.spoken,
        keep_spaces=arguments.keep_spaces,
        keep=_rules(arguments.keep),
        model=_model(arguments.model),
        scan=not arguments.no_scan,
        simulate=arguments.simulate,
        seed=arguments.seed,
        strict=arguments.strict,
    )


def _given(arguments: argparse.Namespace) -> tuple[Given, ...]:
    given = [Given(path) for path in arguments.input]
    for split in SPLITS:
        given += [Given(path, split) for path in getattr(arguments, split)]
    if bool(arguments.wav_dir) != bool(arguments.transcripts):
        raise UserError("prepare: got one of --wav_dir and --transcripts, expected both")
    if arguments.wav_dir:
        given.append(Given(arguments.transcripts, wav_dir=arguments.wav_dir))
    names = ("text", "segments", "utt2spk", "spk2utt", "reco2file_and_channel")
    beside = tuple((name, path) for name in names if (path := getattr(arguments, name)))
    if bool(arguments.wav_scp) != bool(arguments.text):
        raise UserError("prepare: got one of --wav_scp and --text, expected both")
    if arguments.wav_scp:
        given.append(Given(arguments.wav_scp, beside=beside))
    if not given:
        raise UserError(
            "prepare: got nothing to read, expected --input, --train with --valid, "
            "--wav_scp with --text, or --wav_dir with --transcripts"
        )
    return tuple(given)


def _model(named: Path | None) -> Path | None:
    """A directory, or the copy of a hub's model that is named."""
    if named is None:
        return None
    from conf.model_dir import find_copy

    return find_copy(str(named), "--model")


def _pairs(flag: str, values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    pairs = [value.partition("=") for value in values]
    for value, (left, _, right) in zip(values, pairs, strict=True):
        if not (left and right):
            raise UserError(f"--{flag}: got {value!r}, expected two names with = between them")
    return tuple((left, right) for left, _, right in pairs)


def _encoding(name: str) -> str:
    try:
        known = codecs.lookup(name).name
        if "\n".encode(known) == b"\n":
            return known
    except (LookupError, UnicodeError):
        pass
    raise UserError(f"--encoding: got {name!r}, expected utf-8, gb18030, big5 or the like")


def _share(arguments: argparse.Namespace, flag: str) -> float:
    share: float = getattr(arguments, flag)
    if not 0 <= share < 1 or arguments.valid_share + arguments.test_share >= 1:
        raise UserError(f"--{flag}: got {share}, expected shares of 0 or more, below 1 together")
    return share


def _rules(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    from trainer.prepare.filters import CHOICES, flag_name

    known = {flag_name(rule): rule for rule in CHOICES}
    rules = [known.get(flag_name(name), "") for name in names]
    for name, rule in zip(names, rules, strict=True):
        if not rule:
            raise UserError(f"--keep: got {name!r}, expected one of {', '.join(known)}")
    return tuple(sorted(rules))


def _path(name: str) -> Path:
    """Also where the shell left the ~, as in ``--root=~/calls``."""
    return Path(name).expanduser()


def _cores() -> int:
    return len(os.sched_getaffinity(0))
