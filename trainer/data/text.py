"""Text to token ids and back, for both of the model's outputs: the LLM's and CTC's.

The prompt is the one of stock ``generate`` in training as well as in decoding, so the model is
trained on what it will be asked. (Stock training puts ``MultiContextPrompt``'s header in front of
it, which stock inference does not have.)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.funasr_parts import registered

_BEFORE_AUDIO = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n语音转写："
)
_AFTER_AUDIO = "<|im_end|>\n<|im_start|>assistant\n"
_END_OF_TURN = "<|im_end|>"


class TextCodec:
    """Both tokenizers of a model directory.

    Args:
        tokenizer: Registered name of the LLM's tokenizer, ``HuggingfaceTokenizer``.
        tokenizer_conf: Its configuration with absolute paths.
        ctc_tokenizer: Registered name of the CTC tokenizer, ``SenseVoiceTokenizer``.
        ctc_tokenizer_conf: Its configuration with absolute paths.
    """

    def __init__(
        self,
        tokenizer: str,
        tokenizer_conf: Mapping[str, Any],
        ctc_tokenizer: str,
        ctc_tokenizer_conf: Mapping[str, Any],
    ) -> None:
        self.llm_tokenizer = registered("tokenizer_classes", tokenizer)(**tokenizer_conf)
        self.ctc_tokenizer = registered("tokenizer_classes", ctc_tokenizer)(**ctc_tokenizer_conf)
        self.before_audio: list[int] = self.llm_tokenizer.encode(_BEFORE_AUDIO)
        self.after_audio: list[int] = self.llm_tokenizer.encode(_AFTER_AUDIO)

    def target_ids(self, text: str) -> list[int]:
        """What the LLM shall say: the transcript and the end of its turn."""
        ids: list[int] = self.llm_tokenizer.encode(text + _END_OF_TURN)
        return ids

    def ctc_ids(self, text: str) -> list[int]:
        ids: list[int] = self.ctc_tokenizer.encode(text)
        return ids

    def llm_text(self, ids: Sequence[int]) -> str:
        """Generated ids as stock ``generate`` returns them in ``text``."""
        text: str = self.llm_tokenizer.decode(list(ids), skip_special_tokens=True)
        return re.sub(r"\s+", " ", text.replace("/sil", " "))

    def ctc_text(self, ids: Sequence[int]) -> str:
        """Collapsed CTC ids as stock ``generate`` returns them in ``ctc_text``."""
        text: str = self.ctc_tokenizer.decode(list(ids))
        return text.replace("<|nospeech|>", "")


def unspelt(codec: TextCodec, counts: Counter[str], blank: int) -> dict[str, list[str]]:
    """Characters that a tokenizer does not give back, most frequent first, by tokenizer."""
    lost = {
        "LLM": [char for char in counts if not spelt_by_llm(codec, char)],
        "CTC": [char for char in counts if not spelt_by_ctc(codec, char, blank)],
    }
    return {name: sorted(chars, key=lambda c: -counts[c]) for name, chars in lost.items()}


def spelt_by_llm(codec: Any, char: str) -> bool:
    """Whether the LLM's tokenizer gives a character back."""
    text: str = codec.llm_tokenizer.decode(codec.llm_tokenizer.encode(char))
    return text.strip() == char


def spelt_by_ctc(codec: Any, char: str, blank: int) -> bool:
    """Whether the CTC tokenizer gives a character back, by ids below the blank."""
    ids = codec.ctc_ids(char)
    text: str = codec.ctc_tokenizer.decode(ids)
    return all(0 <= id < blank for id in ids) and text.strip() == char
