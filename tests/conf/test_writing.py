"""YAML out: what is written reads back as the same values, by us and by plain YAML readers."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from conf.reading import flatten, unflatten
from conf.writing import COMMENT_COLUMN, format_value, to_yaml

pytestmark = pytest.mark.quick


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
NAMES = st.text(alphabet="abcxyz_0", min_size=1, max_size=4)
NESTED = st.recursive(
    st.dictionaries(NAMES, SCALARS | st.lists(st.integers()), min_size=1, max_size=3),
    lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=3),
    max_leaves=8,
)


@given(NESTED)
def test_round_trip(values: dict[str, object]) -> None:
    """What is written reads back as the same values and types, with and without comments."""
    assert unflatten(flatten(values)) == values
    for text in (to_yaml(values), to_yaml(values, lambda key: f"[NEW] {key}")):
        assert repr(parse_document(text)) == repr(values)


def parse_document(text: str) -> object:
    """`read_yaml` without a file."""
    from conf.reading import _compose, _plain

    node = _compose(text, "text")
    assert node is not None
    return _plain(node, "", "text", {})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5e-6, "5e-6"),
        (1e-4, "1e-4"),
        (0.00015, "1.5e-4"),
        (0.01, "0.01"),
        (0.0, "0.0"),
        (True, "true"),
        (None, "null"),
        (["q_proj", 1e-5], "[q_proj, 1e-5]"),
        ("", "''"),
        ("5e-5", "'5e-5'"),
    ],
)
def test_format_value(value: object, text: str) -> None:
    """As people write it."""
    assert format_value(value) == text


def test_a_plain_reader_of_yaml_takes_numbers_for_numbers() -> None:
    """YAML 1.1 takes `5e-5` for text, so files say `5.0e-05`."""
    values = {"lr": 5e-5, "steps": 1000, "name": "5e-5", "empty": None, "range": [0, 15]}
    assert yaml.safe_load(to_yaml(values)) == values


def test_comments_stand_in_one_column_behind_the_leaves() -> None:
    text = to_yaml({"optim_conf": {"lr": 1e-4}, "specaug": "x" * 60}, lambda key: f"why {key}")
    block, lr, long = text.splitlines()
    assert block == "optim_conf:"
    assert lr.index("  # why optim_conf.lr") == COMMENT_COLUMN
    assert long.endswith("x  # why specaug")
