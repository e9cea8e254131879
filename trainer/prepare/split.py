"""Which split each line goes to: so that no call and no speaker is in two.

Of each line a few numbers stay in memory, in which equal names are equal: 64 bits of their SHA-256.
The order of what is hashed decides, and so neither the order of the lines nor chance.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import numpy.typing
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from conf.errors import DataError
from trainer.data.manifest import Ints
from trainer.prepare.settings import SPLITS, Settings

Numbers = numpy.typing.NDArray[numpy.uint64]
LEFT_OUT = -1
"""In place of a split."""
_TO_BE_SPLIT = -2
_NAMELESS = 0
_BOTH = "call and speaker"


class Catalog:
    """What splitting needs to know of every line, as arrays."""

    def __init__(self) -> None:
        self._splits = array("b")
        self._keys = array("Q")
        self._calls = array("Q")
        self._speakers = array("Q")
        self._contents = array("Q")
        self._files: dict[str, int] = {}
        self._places = array("q")

    def __len__(self) -> int:
        return len(self._splits)

    def add(self, record: Mapping[str, Any]) -> None:
        """The next line."""
        split = record["split"]
        if "rule" in record:
            self._splits.append(LEFT_OUT)
        else:
            self._splits.append(_TO_BE_SPLIT if split is None else SPLITS.index(split))
        self._keys.append(number_of(record["key"]))
        self._calls.append(_number_or_none(record.get("call")))
        self._speakers.append(_number_or_none(record.get("speaker")))
        file, _, number = record["place"].rpartition(":")
        self._places.append(self._files.setdefault(file, len(self._files)) << 40 | int(number))

    def place(self, index: int) -> str:
        """``FILE:LINE`` of a line."""
        file, number = divmod(self._places[index], 1 << 40)
        return f"{list(self._files)[file]}:{number}"

    def count(self, splits: Ints, split: int) -> dict[str, int]:
        """How many speakers and calls a split has."""
        chosen = splits == split
        found = {"speakers": self.speakers[chosen], "calls": self.calls[chosen]}
        return {
            name: len(numpy.unique(numbers[numbers != _NAMELESS]))
            for name, numbers in found.items()
        }

    def add_content(self, sha256: str | None) -> None:
        """Of the next line; None if it is left out or was not read."""
        self._contents.append(_NAMELESS if sha256 is None else int(sha256[:16], 16))

    @property
    def splits(self) -> Ints:
        return numpy.frombuffer(self._splits, numpy.int8).astype(numpy.int64)

    @property
    def keys(self) -> Numbers:
        return numpy.frombuffer(self._keys, numpy.uint64)

    @property
    def calls(self) -> Numbers:
        return numpy.frombuffer(self._calls, numpy.uint64)

    @property
    def speakers(self) -> Numbers:
        return numpy.frombuffer(self._speakers, numpy.uint64)

    @property
    def contents(self) -> Numbers:
        return numpy.frombuffer(self._contents, numpy.uint64)


@dataclass
class Plan:
    """Where each line goes.

    Attributes:
        splits: Index of `SPLITS` for each line, or `LEFT_OUT`.
        rules: Why a line is left out that was not before, by line: the rule, and the line that
            stays in its place.
        split_by: What was kept together.
        warnings: Sentences.
    """

    splits: Ints
    rules: dict[int, tuple[str, int]]
    split_by: str
    warnings: list[str]


def plan(catalog: Catalog, settings: Settings) -> Plan:
    """The split of each line, and what is left out for being in another one.

    Raises:
        DataError: What has to stay together is too large for a split that was asked for.
    """
    splits = catalog.splits
    rules: dict[int, tuple[str, int]] = {}
    # A line that is already in a set to be scored on stays there.
    _leave_out_again(splits, catalog.keys, "duplicate key", rules, within=True)
    free = numpy.flatnonzero(splits == _TO_BE_SPLIT)
    given = {int(split) for split in numpy.unique(splits) if split >= 0}
    shares = {
        SPLITS.index(name): share
        for name, share in (("valid", settings.valid_share), ("test", settings.test_share))
        if SPLITS.index(name) not in given
    }
    splits[free], split_by, warnings = _split(catalog, free, shares, settings)
    if "call in another split" not in settings.keep:
        _leave_out_crossing(splits, catalog.calls, "call in another split", rules)
    warnings = [*warnings, *_crossing_speakers(splits, catalog.speakers)]
    return Plan(splits, rules, split_by if len(free) else "given", warnings)


def leave_out_equal_content(plan: Plan, catalog: Catalog, settings: Settings) -> None:
    """Of recordings that are equal, leaves all but one out."""
    for rule, within in (("content in another split", False), ("duplicate content", True)):
        if rule not in settings.keep:
            _leave_out_again(plan.splits, catalog.contents, rule, plan.rules, within=within)


def number_of(name: str) -> int:
    """Equal for equal names; their order is that of the names' SHA-256."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


def _number_or_none(name: str | None) -> int:
    return _NAMELESS if name is None else number_of(name)


def _leave_out_again(
    splits: Ints,
    numbers: Numbers,
    rule: str,
    rules: dict[int, tuple[str, int]],
    *,
    within: bool,
) -> None:
    """Leaves out all but one of the lines with equal numbers.

    The one in test stays, else that in valid, else the first.

    Args:
        splits: Changed in place.
        numbers: Of each line; `_NAMELESS` equals nothing.
        rule: Under which name.
        rules: Gets what is left out.
        within: Also those of the same split.
    """
    used = numpy.flatnonzero((splits != LEFT_OUT) & (numbers != _NAMELESS))
    order = used[numpy.lexsort((used, -splits[used], numbers[used]))]
    same = numbers[order[1:]] == numbers[order[:-1]]
    first = order[0] if len(order) else 0
    for place in numpy.flatnonzero(same):
        if place == 0 or not same[place - 1]:
            first = order[place]
        index = order[place + 1]
        if within or splits[index] != splits[first]:
            rules[int(index)] = (rule, int(first))
    splits[[index for index, (found, _) in rules.items() if found == rule]] = LEFT_OUT


def _leave_out_crossing(
    splits: Ints, numbers: Numbers, rule: str, rules: dict[int, tuple[str, int]]
) -> None:
    """Leaves out lines whose call is also in a split that is scored on, test before valid."""
    for kept in (2, 1):
        members = numpy.flatnonzero((splits == kept) & (numbers != _NAMELESS))
        names, first = numpy.unique(numbers[members], return_index=True)
        others = numpy.flatnonzero((splits >= 0) & (splits < kept))
        crossing = others[numpy.isin(numbers[others], names)]
        which = numpy.searchsorted(names, numbers[crossing])
        stays = members[first[which]]
        rules |= {
            int(index): (rule, int(stay)) for index, stay in zip(crossing, stays, strict=True)
        }
        splits[crossing] = LEFT_OUT


def _crossing_speakers(splits: Ints, speakers: Numbers) -> list[str]:
    """A warning for each two splits that share speakers; ``check`` warns of them too."""
    warnings = []
    for one, two in ((0, 1), (0, 2), (1, 2)):
        here, there = (
            numpy.unique(speakers[(splits == split) & (speakers != _NAMELESS)])
            for split in (one, two)
        )
        common = numpy.intersect1d(here, there)
        if len(common):
            lines = int(numpy.isin(speakers[splits == two], common).sum())
            warnings.append(
                f"{len(common)} speakers of {SPLITS[two]} are in {SPLITS[one]} too "
                f"({lines} utterances of {SPLITS[two]})"
            )
    return warnings


def _split(
    catalog: Catalog, free: Ints, shares: Mapping[int, float], settings: Settings
) -> tuple[Ints, str, list[str]]:
    """The splits of lines that have none yet, what was kept together, and warnings."""
    warnings: list[str] = []
    problem = ""
    for split_by, groups in _groupings(catalog, free, settings):
        splits = _by_hash(groups, shares)
        missing = _missing(splits, shares)
        # Nor is a grouping of use whose largest group takes the share of others.
        _, sizes = numpy.unique(groups, return_counts=True)
        largest = int(sizes.max(initial=0))
        joined_too_much = split_by == _BOTH and largest > (1 - sum(shares.values())) * len(groups)
        if not (missing or joined_too_much):
            return splits, split_by, warnings
        problem = f"the largest group by {split_by} holds {largest} of {len(groups)} utterances"
        warnings = [
            f"calls and speakers hang together ({problem}), so that calls alone are kept apart; "
            "--split_by speaker keeps speakers apart instead"
        ]
    raise DataError(
        f"--split_by: got nothing for {' and '.join(missing)}, since {problem}; expected smaller "
        "groups, another --split_by (key splits within them), or given splits"
    )


def _groupings(catalog: Catalog, free: Ints, settings: Settings) -> Iterator[tuple[str, Numbers]]:
    """What may be kept together, best first: a number per line, equal in a group."""
    keys, calls, speakers = (
        numbers[free] for numbers in (catalog.keys, catalog.calls, catalog.speakers)
    )
    asked, has_calls, has_speakers = settings.split_by, calls.any(), speakers.any()
    if asked == "auto" and has_calls and has_speakers:
        # An agent who speaks in many calls may join them all: then calls can be kept apart.
        yield _BOTH, _joined(keys, calls, speakers)
    if asked == "call" or (asked == "auto" and has_calls):
        yield "call", _or_key(calls, keys)
    elif asked == "speaker" or (asked == "auto" and has_speakers):
        yield "speaker", _or_key(speakers, keys)
    else:
        yield "key", keys


def _missing(splits: Ints, shares: Mapping[int, float]) -> list[str]:
    """Splits that ought to have a line and have none."""
    wanted = {0: 1.0 - sum(shares.values()), **shares}
    return [
        SPLITS[split]
        for split, share in sorted(wanted.items())
        if round(share * len(splits)) and not (splits == split).any()
    ]


def _or_key(numbers: Numbers, keys: Numbers) -> Numbers:
    return numpy.where(numbers == _NAMELESS, keys, numbers)


def _joined(keys: Numbers, calls: Numbers, speakers: Numbers) -> Numbers:
    """Lines that share a call or a speaker, directly or through others, have one number."""
    count = len(keys)
    edges: list[tuple[Ints, Ints]] = []
    nodes = count
    for numbers in (calls, speakers):
        lines = numpy.flatnonzero(numbers != _NAMELESS)
        names, which = numpy.unique(numbers[lines], return_inverse=True)
        edges.append((lines, nodes + which))
        nodes += len(names)
    rows = numpy.concatenate([lines for lines, _ in edges])
    columns = numpy.concatenate([names for _, names in edges])
    graph = coo_array((numpy.ones(len(rows), numpy.int8), (rows, columns)), (nodes, nodes))
    _, labels = connected_components(graph, directed=False)
    labels = labels[:count]
    # Its number is the smallest of its members', so that it does not depend on their order.
    smallest = numpy.full(labels.max(initial=0) + 1, numpy.iinfo(numpy.uint64).max, numpy.uint64)
    numpy.minimum.at(smallest, labels, _or_key(_or_key(calls, speakers), keys))
    return numpy.asarray(smallest[labels], dtype=numpy.uint64)


def _by_hash(groups: Numbers, shares: Mapping[int, float]) -> Ints:
    """The split of each line: groups in the order of their numbers fill valid, then test.

    A group goes where it fits; one more goes there if that comes nearer to the share.
    """
    splits = numpy.zeros(len(groups), numpy.int64)
    names, which, sizes = numpy.unique(groups, return_inverse=True, return_counts=True)
    chosen = numpy.zeros(len(names), numpy.int64)
    for split, share in shares.items():
        wanted = round(share * len(groups))
        for index in numpy.flatnonzero(chosen == 0):
            if not wanted:
                break
            if sizes[index] <= wanted:
                chosen[index] = split
                wanted -= int(sizes[index])
        nearer = numpy.flatnonzero((chosen == 0) & (sizes < 2 * wanted))
        chosen[nearer[:1]] = split
    splits[:] = chosen[which]
    return splits
