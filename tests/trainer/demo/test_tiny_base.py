"""The tiny model's directory before training: tokenizers and configuration."""

from pathlib import Path

import pytest

from tests.conftest import BASE
from trainer.demo.sentences import INVENTORY
from trainer.demo.tiny_base import ctc_pieces, write_directory, write_llm


@pytest.mark.quick
def test_tokenizers_have_one_token_per_character_and_cover_ascii(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_llm(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert all(len(tokenizer.encode(character)) == 1 for character in INVENTORY)
    printable = "".join(map(chr, range(32, 127)))
    assert tokenizer.decode(tokenizer.encode(printable)) == printable
    prompt = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    assert len(tokenizer.encode(prompt)) == 14
    pieces = set(ctc_pieces())
    assert all(character.encode() in pieces for character in INVENTORY)
    assert all(bytes([byte]) in pieces for byte in range(256))


@pytest.mark.quick
def test_the_directory_is_the_committed_one_all_but_the_weights(tmp_path: Path) -> None:
    write_directory(tmp_path)
    committed = {path.relative_to(BASE) for path in BASE.rglob("*") if path.is_file()}
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert {str(name) for name in committed - made} == {"model.pt", "README.md", "scores.json"}
    for name in made & committed:
        assert (tmp_path / name).read_bytes() == (BASE / name).read_bytes(), name
