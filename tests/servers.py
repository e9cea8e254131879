"""Servers as processes of their own: on a free port, ready when they answer, ended as a whole."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from tests.conftest import HANG_S, until


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def serving(
    command: Sequence[str], answers_at: str, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server; yields when it answers with success there, which an open port does not say.

    Args:
        command: What to run.
        answers_at: An address of it, such as its `/health`.
        options: As for `subprocess.Popen`.
    """
    # A session of its own: what it starts ends with it.
    server = subprocess.Popen(command, start_new_session=True, **options)

    def answers() -> bool:
        assert server.poll() is None, f"{command} ended with {server.returncode}"
        with suppress(OSError), urllib.request.urlopen(answers_at, timeout=60) as answer:
            return bool(answer.status == 200)
        return False

    try:
        until(answers)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(HANG_S)
