"""The schema as a table: keys, blocks, and what belongs to the weights."""

import pytest

from conf.keys import all_keys, belongs_to_model, blocks, find_key, is_block, validate

pytestmark = pytest.mark.quick


def test_a_key_is_a_row_with_all_that_the_schema_says() -> None:
    key = all_keys()["optim_conf.lr"]
    assert (key.name, key.default) == ("optim_conf.lr", 1e-3)
    assert (key.expected, key.role, key.severity) == ("a number > 0", "optimization", "critical")
    assert key.meaning


def test_blocks_are_what_keys_lie_in() -> None:
    assert {"optim_conf", "llm_conf", "llm_conf.lora_conf"} <= blocks()
    assert not blocks() & all_keys().keys()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("optim_conf.lr", "optim_conf.lr"),
        ("llm_conf.lora_conf.r", "llm_conf.lora_conf.r"),
        ("llm_conf.load_kwargs.device_map", "llm_conf.load_kwargs"),  # a block of any keys
        ("optim_conf.lr.x", None),
        ("optim_conf", None),
        ("nothing", None),
    ],
)
def test_a_key_is_found_by_its_name_or_by_the_free_block_around_it(
    name: str, found: str | None
) -> None:
    key = find_key(name)
    assert (key and key.name) == found


@pytest.mark.parametrize(
    ("name", "holds"),
    [("optim_conf", True), ("llm_conf.load_kwargs", True), ("optim_conf.lr", False), ("x", False)],
)
def test_a_block_holds_keys_of_the_schema_or_any(name: str, holds: bool) -> None:
    assert is_block(name) == holds


@pytest.mark.parametrize(
    ("name", "of_model"),
    [
        ("audio_encoder_conf.output_size", True),
        ("audio_encoder_conf.freeze", False),  # a choice of the fine-tune
        ("audio_encoder_conf.key_of_tomorrow", True),  # as its block
        ("optim_conf.lr", False),
        ("train_conf.key_of_tomorrow", False),
        ("key_of_tomorrow", True),  # the model reads what lies in no block
    ],
)
def test_what_comes_with_the_weights(name: str, of_model: bool) -> None:
    assert belongs_to_model(name) == of_model


def test_checked_values_are_those_that_were_set_in_the_schemas_order() -> None:
    values, problems = validate({"train_conf": {"max_epoch": 3}, "optim_conf": {"lr": 1}})
    assert problems == ()
    assert values == {"optim_conf": {"lr": 1}, "train_conf": {"max_epoch": 3}}


def test_wrong_values_are_named_one_by_one() -> None:
    values, problems = validate({"train_conf": {"max_epoch": 0}, "optim_conf": {"lr": "high"}})
    assert values == {}
    assert {problem.key for problem in problems} == {"optim_conf.lr", "train_conf.max_epoch"}
