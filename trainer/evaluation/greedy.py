"""Greedy writing by an LLM in rows: where one text ends another begins, the others go on.

The ids are those that transformers' ``generate(do_sample=False)`` writes for each text alone. Its
continuous batching (5.23) takes token ids only, no embeddings, and its static cache has one length
for all rows, so the rows are kept here:

- keys and values of a layer are one tensor, in which each row begins at position 0 whatever the
  others' lengths are: a step writes one position of each row and copies nothing;
- the prompt before the audio is the same for all, so its keys and values are computed once;
- only the last position is projected to the vocabulary;
- a text that has ended leaves: the last row takes its place, so that no step computes what is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import Cache, CacheLayerMixin

Name = TypeVar("Name")

_BLOCK = 64
"""Positions by which the cache grows: most texts end within the first."""


@dataclass
class Row(Generic[Name]):
    """One text while it is written.

    Attributes:
        name: The caller's own.
        length: Positions that it has in the cache.
        ids: Without the one that ends the turn.
        capped: The cap cut it short.
    """

    name: Name
    length: int
    ids: list[int] = field(default_factory=list)
    capped: bool = False


class Writer(Generic[Name]):
    """Writes texts to the end of their turn or to the cap.

    Of the LLM's generation settings only the end-of-turn ids count: FunASR builds the LLM from its
    config.json, which holds no others.

    Args:
        llm: A causal language model of transformers, with full attention in all layers.
        prefix: Token ids before every text; may be empty.
        max_new_tokens: The most ids a text may get.

    Attributes:
        rows: The texts that are being written.
    """

    def __init__(self, llm: Any, prefix: Sequence[int], max_new_tokens: int) -> None:
        self.rows: list[Row[Name]] = []
        self._llm = llm
        self._prefix_length = len(prefix)
        self._max_new_tokens = max_new_tokens
        end = llm.generation_config.eos_token_id
        self._ends = {end} if isinstance(end, int) else set(end or ())
        self._cache = _Places(llm.config.num_hidden_layers, len(prefix))
        weight = llm.get_input_embeddings().weight
        self._device, self._dtype = weight.device, weight.dtype
        self._hidden_BD = weight.new_empty(0, weight.shape[1])
        self._position_B = torch.empty(0, dtype=torch.long, device=self._device)
        if prefix:
            ids_1L = torch.tensor([list(prefix)], device=self._device)
            self._forward(slice(0, 1), self._range(0, len(prefix))[None], input_ids=ids_1L)

    def add(self, prompts: Sequence[tuple[Name, torch.Tensor]]) -> None:
        """Begins texts.

        Args:
            prompts: Of each its name and its own input behind the prefix, embeddings ``LD``.
        """
        first, prefix = len(self.rows), self._prefix_length
        self.rows += [Row(name, prefix + len(prompt_LD)) for name, prompt_LD in prompts]
        self._cache.hold(len(self.rows), max(row.length for row in self.rows))
        # Padding stands behind an input: the text's own ids replace it before they can see it.
        prompts_BLD = pad_sequence([prompt_LD for _, prompt_LD in prompts], batch_first=True)
        positions_1L = self._range(prefix, prefix + prompts_BLD.shape[1])[None]
        rows = slice(first, len(self.rows))
        hidden_BLD = self._forward(rows, positions_1L, inputs_embeds=prompts_BLD)
        length_B = torch.tensor([row.length for row in self.rows[rows]], device=self._device)
        last_BD = hidden_BLD[self._range(0, len(prompts)), length_B - prefix - 1]
        self._hidden_BD = torch.cat([self._hidden_BD, last_BD])
        self._position_B = torch.cat([self._position_B, length_B])

    def step(self) -> list[Row[Name]]:
        """Writes one id into each text; gives those that are done with it, which leave."""
        next_B = self._llm.lm_head(self._hidden_BD).argmax(dim=-1)
        done = []
        tokens: list[int] = next_B.tolist()  # the one wait for the device in each step
        for place, (row, token) in enumerate(zip(self.rows, tokens, strict=True)):
            if token not in self._ends:
                row.ids.append(token)
                row.capped = len(row.ids) == self._max_new_tokens
            if token in self._ends or row.capped:
                done.append(place)
        finished = [self.rows[place] for place in done]
        if done:
            next_B = self._leave(done, next_B)
        if self.rows:
            for row in self.rows:
                row.length += 1
            self._cache.lengthen(max(row.length for row in self.rows))
            rows, position_B1 = slice(0, len(self.rows)), self._position_B[:, None]
            self._hidden_BD = self._forward(rows, position_B1, input_ids=next_B[:, None])[:, 0]
            self._position_B = self._position_B + 1
        return finished

    def _leave(self, done: Sequence[int], next_B: torch.Tensor) -> torch.Tensor:
        """Lets rows go, and gives the ids of the others."""
        places = list(range(len(self.rows)))
        for place in reversed(done):
            places[place] = places[-1]
            places.pop()
        self.rows = [self.rows[place] for place in places]
        self._cache.move(places)
        places_B = torch.tensor(places, dtype=torch.long, device=self._device)
        self._position_B = self._position_B[places_B]
        self._hidden_BD = self._hidden_BD[:0]
        return next_B[places_B]

    def _forward(self, rows: slice, positions_BL: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """The LLM over some of the rows; ``positions_BL`` has one line where all have the same.

        A position sees those up to itself: behind it lie padding and what was of other texts.
        """
        length = self._prefix_length if not self.rows else max(r.length for r in self.rows[rows])
        self._cache.turn_to(rows, positions_BL, length)
        seen_BLT = self._range(0, length) <= positions_BL[:, :, None]
        # Numbers and not truth values: these are added where attention is computed step by step.
        mask_BLT = torch.zeros(seen_BLT.shape, dtype=self._dtype, device=self._device)
        hidden_BLD: torch.Tensor = self._llm.model(
            attention_mask=mask_BLT.masked_fill(~seen_BLT, -torch.inf)[:, None],
            position_ids=positions_BL,
            past_key_values=self._cache,
            use_cache=True,
            **inputs,
        ).last_hidden_state
        return hidden_BLD

    def _range(self, start: int, end: int) -> torch.Tensor:
        return torch.arange(start, end, device=self._device)


class _Places(Cache):  # type: ignore[misc]
    """Keys and values of the rows.

    Args:
        num_layers: Of the LLM.
        prefix_length: Positions at the beginning of each row that are the first row's.
    """

    def __init__(self, num_layers: int, prefix_length: int) -> None:
        super().__init__(layers=[_Layer() for _ in range(num_layers)])
        self._prefix_length = prefix_length
        self._size = (1, prefix_length)

    def turn_to(self, rows: slice, positions_BL: torch.Tensor, length: int) -> None:
        """What is computed next is of these rows and positions, and sees so many of each row."""
        rows_B1 = torch.arange(rows.start, rows.stop, device=positions_BL.device)[:, None]
        for layer in self.layers:
            layer.size, layer.written, layer.read = (
                self._size,
                (rows_B1, positions_BL),
                (rows, slice(0, length)),
            )

    def hold(self, num_rows: int, length: int) -> None:
        """Makes room for rows, no more of either than they need: their product is the memory."""
        if num_rows > self._size[0] or length > self._size[1]:
            self._resize(num_rows, length)

    def lengthen(self, length: int) -> None:
        """Makes room for longer rows."""
        if length > self._size[1]:
            self._resize(self._size[0], length)

    def move(self, places: Sequence[int]) -> None:
        """Puts rows where others were: a place for each row that is left, in their new order."""
        moved = [(to, place) for to, place in enumerate(places) if to != place]
        if moved:
            to_B, from_B = torch.tensor(moved, device=self.layers[0].keys.device).T
            for layer in self.layers:
                layer.keys[to_B] = layer.keys[from_B]
                layer.values[to_B] = layer.values[from_B]

    def _resize(self, num_rows: int, length: int) -> None:
        self._size = (num_rows, -(-length // _BLOCK) * _BLOCK)
        for layer in self.layers:
            layer.resize(self._size, self._prefix_length)


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, ``BTHD``: rows, positions, heads, values of a head.

    Attributes:
        size: Rows and positions that there is room for.
        written: Rows and positions of what comes next.
        read: Rows and positions that it sees.
    """

    is_sliding = False
    size: tuple[int, int]
    written: tuple[torch.Tensor, torch.Tensor]
    read: tuple[slice, slice]

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        # Zeros: what is masked out is multiplied by 0, which makes no number of no number.
        self.keys, self.values = (
            states.new_zeros(*self.size, states.shape[1], states.shape[3])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes in keys and values ``BHLD``; gives all that their queries may see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys[self.written] = key_states.transpose(1, 2)
        self.values[self.written] = value_states.transpose(1, 2)
        return self.keys[self.read].transpose(1, 2), self.values[self.read].transpose(1, 2)

    def resize(self, size: tuple[int, int], prefix_length: int) -> None:
        """Makes room for rows and positions; every row begins with the first one's prefix."""
        if self.is_initialized:
            self.keys, self.values = (
                _resized(old, size, prefix_length) for old in (self.keys, self.values)
            )

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length(), 0

    def get_seq_length(self) -> int:
        return int(self.read[1].stop)

    def get_max_length(self) -> int:
        return self.size[1]


def _resized(old: torch.Tensor, size: tuple[int, int], prefix_length: int) -> torch.Tensor:
    new = old.new_zeros(*size, *old.shape[2:])
    new[:, :prefix_length] = old[:1, :prefix_length]
    common = tuple(slice(min(was, now)) for was, now in zip(old.shape, size, strict=False))
    new[common] = old[common]
    return new
