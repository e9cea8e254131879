"""Texts that begin where others end are those of transformers' `generate`, each alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from conf.load import load_config
from tests.conftest import BASE
from trainer.evaluation.greedy import Writer
from trainer.model.build import build

END_OF_TURN, NEVER = 609, 608  # token ids of the tiny base; it never says the second
LENGTHS = (3, 9, 1, 14, 9, 6, 2, 11)

Written = tuple[list[int], bool]


@pytest.fixture(scope="module")
def llm() -> Any:
    return build(load_config(BASE / "config.yaml", model=BASE)).model.llm


def _ids(generator: torch.Generator, length: int) -> torch.Tensor:
    return torch.randint(100, 600, (length,), generator=generator)


def _generated(llm: Any, ids: torch.Tensor, end: int, max_new_tokens: int) -> Written:
    generated = llm.generate(
        inputs_embeds=llm.get_input_embeddings()(ids)[None],
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=0,
    )[0].tolist()
    capped = generated[-1] != end
    return (generated if capped else generated[:-1], capped)


def _written(
    llm: Any, prefix: list[int], inputs: Sequence[torch.Tensor], num_rows: int, max_new_tokens: int
) -> list[Written]:
    """All texts in so many rows, each free one taken at once."""
    waiting = list(enumerate(llm.get_input_embeddings()(ids) for ids in inputs))
    writer: Writer[int] = Writer(llm, prefix, max_new_tokens)
    found: dict[int, Written] = {}
    while waiting or writer.rows:
        free = num_rows - len(writer.rows)
        if begun := waiting[:free]:
            writer.add(begun)
            waiting = waiting[free:]
        assert len(writer.rows) <= num_rows
        found |= {row.name: (row.ids, row.capped) for row in writer.step()}
    return [found[name] for name in range(len(inputs))]


@pytest.mark.parametrize("num_rows", [1, 3, 8])
@pytest.mark.parametrize("max_new_tokens", [1, 3, 80])
@pytest.mark.parametrize("prefix_length", [0, 5])
@pytest.mark.parametrize("end", [NEVER, END_OF_TURN])
@torch.inference_mode()
def test_rows_write_what_generate_writes_for_each_alone(
    llm: Any,
    num_rows: int,
    max_new_tokens: int,
    prefix_length: int,
    end: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows end one after the other, or ramble to the cap, beyond the cache's first size."""
    assert llm.generation_config.eos_token_id == END_OF_TURN
    monkeypatch.setattr(llm.generation_config, "eos_token_id", [end])
    generator = torch.Generator().manual_seed(prefix_length)
    inputs = [_ids(generator, length) for length in LENGTHS]
    prefix = _ids(generator, prefix_length)
    expected = [_generated(llm, torch.cat([prefix, ids]), end, max_new_tokens) for ids in inputs]
    assert _written(llm, prefix.tolist(), inputs, num_rows, max_new_tokens) == expected
    if max_new_tokens == 3:
        assert any(capped for _, capped in expected)
    if max_new_tokens == 80:
        assert all(capped for _, capped in expected) == (end == NEVER)
