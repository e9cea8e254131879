"""Exhausted memory in one line: what did not fit, and what needs less."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from conf.errors import WorkError


@contextmanager
def exhaustion_named(message: Callable[[], str]) -> Iterator[None]:
    """Turn exhausted memory, of a GPU or of this machine, into a `WorkError`.

    Args:
        message: What did not fit and what may help, asked for when memory is exhausted.

    Raises:
        WorkError: Memory was exhausted; every other error passes unchanged.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        exhausted = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not exhausted and "can't allocate memory" not in str(error):
            raise
        raise WorkError(f"out of memory {message()}") from error
