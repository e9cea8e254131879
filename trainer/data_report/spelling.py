"""Which characters the tokenizers of a model do not give back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path


def unspelt_by(model: Path, counts: Counter[str]) -> Mapping[str, tuple[tuple[str, int], ...]]:
    """Characters and how often they stand in the texts, by tokenizer, most frequent first.

    Args:
        model: A model directory, `config.yaml` beside its tokenizers.
        counts: How often each character stands in the texts.

    Raises:
        UserError: The directory is no model's.
    """
    # Tokenizers are FunASR's, which brings torch: only those who give a model wait for it.
    from conf.load import load_config
    from trainer.checks.data_checks import unspelt
    from trainer.model.build import resolved_values, text_codec

    config = load_config(model / "config.yaml", model=model)
    blank = config.get("ctc_vocab_size", 60515) - 1
    lost = unspelt(text_codec(resolved_values(config)), counts, blank)
    return {name: tuple((char, counts[char]) for char in chars) for name, chars in lost.items()}
