"""Which utterances of a set belong together: what one speaker says, or what is said in one call.

    grouping = grouped(speakers, calls)
    rate(errors, lengths, grouping.clusters, grouping.crossed)

An agent speaks in many calls and a call has two speakers, so neither alone makes independent parts:
those are the connected components of both, as `trainer.prepare` splits them. Where hardly any
remain, speakers and calls are both allowed for (two-way clustering: Cameron, Gelbach & Miller 2011,
doi 10.1198/jbes.2010.07136), unless the names only say who is who within a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from analysis.facts.significance import Ints, cluster_indices

UNNAMED = "the manifest names neither speaker nor call"
SOME_UNNAMED = "some lines name nobody"
REPEATED = "speakers' names repeat from call to call"
_FEW = 3
_REPEATS_IN = 0.9
"""A name that stands in this share of all calls or more is a part played in each."""

Names = Sequence[str | None]


@dataclass(frozen=True)
class Grouping:
    """The parts of a set.

    Attributes:
        clusters: Of each utterance, from 0.
        unit: What a cluster is: speaker, call, utterance, or group (of speakers and their calls).
        note: What is wrong with the names; empty if nothing is.
        crossed: Clusters that cross these and have to be allowed for as well.
    """

    clusters: Ints
    unit: str
    note: str = ""
    crossed: Ints | None = None

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return count_of(self.clusters)

    @property
    def may_be_narrow(self) -> bool:
        """Whether intervals are too narrow if somebody without a name speaks more than once."""
        return self.note in (UNNAMED, SOME_UNNAMED)

    @property
    def independent(self) -> Ints:
        """Clusters that nothing crosses."""
        return self.clusters if self.crossed is None else joined(self.clusters, self.crossed)


def grouped(speakers: Names, calls: Names) -> Grouping:
    """Group utterances by what is known of them; those of which nothing is are alone."""
    nameless = [
        speaker is None and call is None for speaker, call in zip(speakers, calls, strict=True)
    ]
    if all(nameless):
        return Grouping(cluster_indices([None] * len(nameless)), "utterance", UNNAMED)
    note = SOME_UNNAMED if any(nameless) else ""
    named = {"speaker": speakers, "call": calls}
    units = {unit: cluster_indices(names) for unit, names in named.items() if any(names)}
    if len(units) == 1:
        [(unit, clusters)] = units.items()
        return Grouping(clusters, unit, note)
    components = joined(*units.values())
    for unit, clusters in units.items():
        if count_of(clusters) == count_of(components) > 1:  # the other lies within it
            return Grouping(components, unit, note)
    if count_of(components) >= _FEW:
        return Grouping(components, "group", note)
    if _repeat(speakers, calls):
        return Grouping(units["call"], "call", REPEATED)
    fewer, more = sorted(units, key=lambda unit: count_of(units[unit]))
    return Grouping(units[fewer], fewer, note, crossed=units[more])


def joined(one: Ints, other: Ints) -> Ints:
    """The connected components of two ways to group the same utterances."""
    edges = (one, count_of(one) + other)
    nodes = count_of(one) + count_of(other)
    graph = coo_array((numpy.ones(len(one), numpy.int8), edges), (nodes, nodes))
    _, labels = connected_components(graph, directed=False)
    return cluster_indices(labels[one].tolist())


def count_of(clusters: Ints) -> int:
    """How many clusters there are."""
    return int(clusters.max(initial=-1)) + 1


def _repeat(speakers: Names, calls: Names) -> bool:
    """Whether a speaker's name stands in nearly every call, as a part that is played in it."""
    within: dict[str, set[str]] = {}
    for speaker, call in zip(speakers, calls, strict=True):
        if speaker is not None and call is not None:
            within.setdefault(speaker, set()).add(call)
    every = set().union(*within.values())
    return len(every) > 1 and max(map(len, within.values())) >= _REPEATS_IN * len(every)
