"""The generator after skipped draws is the generator after drawn ones."""

import pytest
import torch

from trainer.model import random_skip
from trainer.model.random_skip import skip_draws

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("few", [10_000_000, 624], ids=["drawing", "jumping"])
@pytest.mark.parametrize(
    ("before", "number"),
    [(0, 1000), (3, 5000), (623, 700), (624, 701), (625, 1249), (1000, 123_457), (1248, 1_000_003)],
)
def test_what_is_drawn_next_is_the_same(
    monkeypatch: pytest.MonkeyPatch, few: int, before: int, number: int
) -> None:
    monkeypatch.setattr(random_skip, "_FEW", few)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        torch.empty(before).uniform_()
        here = torch.get_rng_state()
        torch.empty(number).uniform_()
        expected = torch.rand(2000), torch.randn(2000)
        torch.set_rng_state(here)
        skip_draws(number)
        found = torch.rand(2000), torch.randn(2000)
    assert all(map(torch.equal, found, expected))


def test_as_many_as_a_model_has_weights_are_skipped_at_once() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        here = torch.get_rng_state()
        torch.empty(60_000_000, dtype=torch.bfloat16).uniform_()
        expected = torch.rand(2000)
        torch.set_rng_state(here)
        skip_draws(60_000_000)
        assert torch.equal(torch.rand(2000), expected)


def test_nothing_is_skipped_where_nothing_would_be_drawn() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        here = torch.get_rng_state()
        skip_draws(0)
        found = torch.rand(3)
        torch.set_rng_state(here)
        assert torch.equal(torch.rand(3), found)
