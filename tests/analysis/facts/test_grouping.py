"""Which utterances count as one: speakers, calls, or what both together make."""

from __future__ import annotations

import numpy
import pytest

from analysis.facts.grouping import REPEATED, SOME_UNNAMED, UNNAMED, grouped, joined
from analysis.facts.significance import cluster_indices, difference, rate

pytestmark = pytest.mark.quick


def calls(count, agents, lines=4):
    """Calls of a customer of its own with one of some agents in turn: speakers and calls."""
    speakers, names = [], []
    for call in range(count):
        for line in range(lines):
            speakers.append(f"customer-{call}" if line % 2 else f"agent-{call % agents}")
            names.append(f"call-{call}")
    return speakers, names


def test_an_agents_calls_are_one_part():
    found = grouped(*calls(12, 4))
    assert (found.unit, found.count, found.note) == ("group", 4, "")
    assert found.crossed is None


def test_speakers_within_calls_and_calls_within_speakers():
    two_each = grouped(["a", "b", "c", "d"], ["1", "1", "2", "2"])
    assert (two_each.unit, two_each.count) == ("call", 2)
    own_calls = grouped(["a", "a", "b", "b"], ["1", "2", "3", "4"])
    assert (own_calls.unit, own_calls.count) == ("speaker", 2)


def test_names_that_are_parts_in_every_call_tell_no_speakers():
    found = grouped(["A", "B"] * 5, [f"call-{i // 2}" for i in range(10)])
    assert (found.unit, found.count, found.note) == ("call", 5, REPEATED)


def test_few_parts_allow_for_speakers_and_calls_both():
    # Two teams of agents; within a team every agent meets others in some call.
    speakers = ["a1", "a2", "a2", "a3", "a3", "a1", "b1", "b2", "b2", "b3"]
    names = ["1", "1", "2", "2", "3", "3", "4", "4", "5", "5"]
    found = grouped(speakers, names)
    assert (found.unit, found.count) == ("call", 5)
    assert found.crossed.tolist() == cluster_indices(speakers).tolist()
    assert int(found.independent.max()) + 1 == 2


@pytest.mark.parametrize(
    ("speakers", "names", "note", "unit"),
    [
        ([None] * 4, [None] * 4, UNNAMED, "utterance"),
        (["a", None, None, None], [None] * 4, SOME_UNNAMED, "speaker"),
        (["a", "a", "b", None], ["1", "1", "2", "3"], "", "speaker"),
    ],
)
def test_names_that_are_missing_are_said(speakers, names, note, unit):
    found = grouped(speakers, names)
    assert (found.note, found.unit) == (note, unit)
    assert found.may_be_narrow == bool(note)


def test_joined_are_the_connected_components():
    one, other = numpy.array([0, 0, 1, 2, 3]), numpy.array([0, 1, 1, 2, 2])
    assert joined(one, other).tolist() == [0, 0, 0, 1, 1]


def false_claims(group, sets, seed):
    """How often two systems that do not differ are found to, at 0.05, where agents recur."""
    rng = numpy.random.default_rng(seed)
    speakers, names = calls(60, 12)
    who, which = cluster_indices(speakers), cluster_indices(names)
    grouping = group(speakers, names)
    found = 0
    for _ in range(sets):
        apart = rng.normal(0, 1, who.max() + 1)[who] + rng.normal(0, 0.5, which.max() + 1)[which]
        apart += rng.normal(0, 1, len(who))
        one = difference(apart, 0 * apart, numpy.full(len(who), 12), grouping.clusters)
        found += one.p < 0.05
    return found / sets


def test_agents_in_many_calls_make_no_false_claims():
    by_call = false_claims(lambda _, names: grouped([None] * len(names), names), 400, seed=1)
    both = false_claims(grouped, 400, seed=1)
    assert by_call > 0.08
    assert both < 0.075


def test_crossing_widens_and_never_narrows():
    rng = numpy.random.default_rng(2)
    rows, columns = numpy.repeat(numpy.arange(6), 6), numpy.tile(numpy.arange(6), 6)
    apart = rng.normal(0, 1, 6)[rows] + rng.normal(0, 1, 6)[columns] + rng.normal(0, 0.3, 36)
    lengths = numpy.full(36, 20)
    by_rows = difference(apart, 0 * apart, lengths, rows)
    both = difference(apart, 0 * apart, lengths, rows, columns)
    assert both.high - both.low > by_rows.high - by_rows.low
    assert both.p > by_rows.p
    errors = apart - apart.min()
    assert rate(errors, lengths, rows, columns).high >= rate(errors, lengths, rows).high
    assert rate(errors, lengths, rows, rows) == rate(errors, lengths, rows)
