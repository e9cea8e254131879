"""Files that are written while training goes on: in order, and no error is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from conf.errors import WorkError
from trainer.finetune.writer import Writer

pytestmark = pytest.mark.quick


def fails(reason: str) -> Callable[[], None]:
    def job() -> None:
        raise WorkError(reason)

    return job


def test_jobs_are_done_in_order_while_the_caller_goes_on() -> None:
    done: list[int] = []
    go = threading.Event()

    def first() -> None:
        go.wait(10)
        done.append(1)

    with Writer() as writer:
        written = writer.write(first)
        writer.write(lambda: done.append(2))
        writer.look()
        assert done == []
        go.set()
        written.result()
        assert done[0] == 1
        writer.wait()
        assert done == [1, 2]
        writer.write(lambda: done.append(3))
    assert done == [1, 2, 3]


def test_after_an_error_nothing_more_is_done_and_the_caller_gets_it() -> None:
    done: list[int] = []
    with Writer() as writer:
        written = writer.write(fails("the disk is full"))
        writer.write(lambda: done.append(1)).result()
        for tells in (written.result, writer.look):
            with pytest.raises(WorkError, match="the disk is full"):
                tells()
        writer.wait()
    assert done == []


def test_at_the_end_of_the_block_an_error_is_raised() -> None:
    with pytest.raises(WorkError, match="the disk is full"), Writer() as writer:
        writer.write(fails("the disk is full"))


def test_what_ends_the_block_is_told_before_an_error_of_writing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def interrupted() -> None:
        with Writer() as writer:
            writer.write(fails("the disk is full"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert caplog.messages == ["the disk is full"]
