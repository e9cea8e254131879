"""Layers of values: the later wins, references are followed, every mistake names who made it."""

import pytest

from conf.errors import ConfigError
from conf.layers import Layer, effective, merge, resolve, unknown_keys, who_said

pytestmark = pytest.mark.quick

FILE = Layer("my.yaml", {"optim_conf.lr": 1e-4, "specaug_conf.freq_mask_width_range": [0, 15]})
TYPED = Layer("command line", {"optim_conf.lr": 2e-4})


def test_the_later_layer_wins() -> None:
    assert merge([FILE, TYPED]) == {**FILE.values, "optim_conf.lr": 2e-4}
    assert effective((FILE, TYPED), frozenset())["optim_conf"] == {"lr": 2e-4}


def test_who_said_a_value_last() -> None:
    where = who_said([FILE, TYPED])
    assert where("optim_conf.lr") == "command line"
    assert where("specaug_conf") == "my.yaml"
    assert where("specaug_conf.freq_mask_width_range.1") == "my.yaml"
    assert where("train_conf.max_epoch") == "command line", "nobody did: the last layer"


def test_a_reference_takes_the_value_with_its_type_and_within_text_as_text() -> None:
    values, problems = resolve({"a": 0.5, "b": "${a}", "c": "is ${ b }", "d": ["${a}", 1]})
    assert values == {"a": 0.5, "b": 0.5, "c": "is 0.5", "d": [0.5, 1]}
    assert problems == ()


def test_a_reference_that_leads_nowhere_is_left_out_and_named() -> None:
    values, problems = resolve({"a": "${b}", "b": "${a}", "c": "${z}", "d": 1})
    assert values == {"d": 1}
    assert [problem.key for problem in problems] == ["a", "b", "c"]
    assert "a -> b -> a" in problems[0].expected
    assert "(z is not)" in problems[2].expected


def test_a_foreign_key_is_kept_unchecked() -> None:
    """The weights' own config.yaml may hold what only the model's code reads."""
    foreign = Layer("config.yaml", {"audio_encoder_conf.new_key": {"any": 1}})
    values = effective((foreign, TYPED), frozenset(foreign.values))
    assert values["audio_encoder_conf"] == {"new_key": {"any": 1}}


def test_all_mistakes_are_told_at_once_each_with_its_layer() -> None:
    wrong = Layer("my.yaml", {"optim_conf.rate": 1, "train_conf": 3, "remote_code": "m.py"})
    typed = Layer("command line", {"optim_conf.lr": -1, "optim": "${nothing}"})
    with pytest.raises(ConfigError) as caught:
        effective((wrong, typed), frozenset())
    assert [line.split(": got")[0] for line in caught.value.problems] == [
        "my.yaml: optim_conf.rate",
        "my.yaml: train_conf",
        "my.yaml: remote_code",
        "command line: optim",
        "command line: optim_conf.lr",
    ]


def test_unknown_keys_are_those_that_could_be_let_through() -> None:
    layer = Layer(
        "my.yaml",
        {
            "train_conf.new_key": 1,
            "optim_conf.lr.x": 1,  # inside a plain value
            "trust_remote_code": True,  # never
            "optim_conf": 1,  # a block
            "llm_conf.load_kwargs.device_map": "auto",  # in a block of any keys
        },
    )
    assert unknown_keys([layer, TYPED]) == ["train_conf.new_key"]
    assert unknown_keys([layer], frozenset({"train_conf.new_key"})) == []
