"""A thread's end is the end of its block."""

from __future__ import annotations

import contextlib
import threading

import pytest

from conf.threads import in_thread

pytestmark = pytest.mark.quick


def test_a_thread_is_over_with_its_block_however_that_ends() -> None:
    over, ended = threading.Event(), []

    def work() -> None:
        over.wait()
        ended.append(threading.current_thread().name)

    with contextlib.suppress(ValueError), in_thread("beside", work, over):
        assert ended == []
        raise ValueError
    assert ended == ["beside"]
