"""What a worker is said to have died of, and when a trial counts as hung."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.execute.deaths import Watch, death_reason, deaths, note_death

pytestmark = pytest.mark.quick


def test_deaths_are_counted_in_the_trials_directory(tmp_path: Path) -> None:
    assert deaths(tmp_path) == []
    assert note_death(tmp_path, "no report for 2 s") == 1
    assert note_death(tmp_path, "the worker's process died") == 2
    with (tmp_path / "deaths.jsonl").open("a") as file:
        file.write('{"reason": "to')  # a driver that was killed
    assert deaths(tmp_path) == ["no report for 2 s", "the worker's process died"]


@pytest.mark.parametrize(
    ("error", "before", "now", "expected"),
    [
        ("ActorDiedError: unexpectedly", 3, 3, "the worker's process died"),
        ("ActorDiedError: unexpectedly", 3, 4, "out of memory: the system killed the worker's"),
        ("killed due to the node running low on memory", 3, 3, "out of memory: Ray ended"),
    ],
)
def test_memory_is_named_where_it_shows(error: str, before: int, now: int, expected: str) -> None:
    assert death_reason(error, before, now).startswith(expected)


def test_only_a_trial_that_shows_nothing_new_is_silent() -> None:
    now = [0.0]
    watch = Watch(10, clock=lambda: now[0])
    assert watch.silent({0: "a", 1: "a"}) == []
    now[0] = 9
    assert watch.silent({0: "a", 1: "b"}) == []
    now[0] = 11
    assert watch.silent({0: "a", 1: "b"}) == [0]
    assert watch.silent({0: "a", 1: "b"}) == []  # a new term for its next try
    now[0] = 30
    assert watch.silent({1: "c"}) == []
