"""Tokens of a transcript, without loading torch for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from conf.errors import DataError


@lru_cache(maxsize=1)
def counter(model: Path | None) -> Callable[[str], int]:
    """Counts the tokens that the LLM of a model directory makes of a text.

    Without a model characters are counted, which are about as many in Chinese: FunASR sorts and
    cuts batches by them, and our trainer counts for itself.

    Raises:
        DataError: The directory holds no tokenizer.
    """
    if model is None:
        return len
    found = sorted(model.glob("*/tokenizer.json"))
    if len(found) != 1:
        raise DataError(
            f"{model}: got {len(found)} folders with a tokenizer.json, expected the LLM's folder"
        )
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(found[0]))
    return lambda text: len(tokenizer.encode(text).ids)
