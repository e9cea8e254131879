"""Text to token ids and back, with both tokenizers of the tiny base."""

from __future__ import annotations

from collections import Counter

import pytest

from conf.load import load_config, stage_config_path
from tests.conftest import BASE
from trainer.data.text import TextCodec, spelt_by_ctc, spelt_by_llm, unspelt
from trainer.model.build import resolved_values, text_codec

pytestmark = pytest.mark.quick

TEXT = "你好 OK，3 号"


@pytest.fixture(scope="module")
def codec() -> TextCodec:
    config = load_config(stage_config_path("8k"), init_param=BASE / "model.pt")
    return text_codec(resolved_values(config))


def test_both_outputs_give_the_text_back(codec: TextCodec) -> None:
    assert codec.llm_text(codec.target_ids(TEXT)) == TEXT
    assert codec.ctc_text(codec.ctc_ids(TEXT)) == TEXT


def test_a_target_ends_the_llms_turn(codec: TextCodec) -> None:
    end = codec.llm_tokenizer.encode("<|im_end|>")
    assert len(end) == 1
    assert codec.target_ids(TEXT) == codec.llm_tokenizer.encode(TEXT) + end
    assert codec.target_ids("") == end


def test_the_prompt_puts_the_audio_into_the_users_turn(codec: TextCodec) -> None:
    before, after = (
        codec.llm_tokenizer.decode(ids) for ids in (codec.before_audio, codec.after_audio)
    )
    assert before.endswith("<|im_start|>user\n语音转写：")
    assert after == "<|im_end|>\n<|im_start|>assistant\n"


def test_texts_are_those_of_stock_generate(codec: TextCodec) -> None:
    """It takes marks for nothing and for silence away."""
    ids = codec.llm_tokenizer.encode("你好/sil\n 再见<|im_end|>")
    assert codec.llm_text(ids) == "你好 再见"
    assert codec.ctc_text(codec.ctc_ids("<|nospeech|>你好")) == "你好"


def test_characters_that_a_tokenizer_does_not_give_back_most_frequent_first(
    codec: TextCodec,
) -> None:
    counts = Counter("你好好OK")
    blank = 60514
    assert unspelt(codec, counts, blank) == {"LLM": [], "CTC": []}
    # Above the blank there are no ids: of a smaller vocabulary only single bytes are left.
    assert unspelt(codec, counts, 256) == {"LLM": [], "CTC": ["好", "你"]}
    assert spelt_by_llm(codec, "好")
    assert not spelt_by_ctc(codec, "好", 256)
