"""A watcher compares what a run does with what an earlier one did."""

from __future__ import annotations

import pytest

from trainer.effects import watch
from trainer.effects.watch import Changed, Watcher


@pytest.mark.quick
def test_a_watcher_stops_at_the_first_difference_and_names_it() -> None:
    first = Watcher()
    for kind, value in (("batches", 1), ("loss", 2), ("weights", 3)):
        first.note(kind, value)
    first.note("logs", 4)

    same = Watcher(first)
    for kind, value in (("batches", 1), ("loss", 2), ("weights", 3), ("logs", 5)):
        same.note(kind, value)
    assert same.finish() == "logs"

    another = Watcher(first)
    another.note("batches", 1)
    with pytest.raises(Changed) as changed:
        another.note("loss", 9)
    assert changed.value.kind == "loss"

    shorter = Watcher(first)
    shorter.note("batches", 1)
    assert shorter.finish() == watch.COURSE
