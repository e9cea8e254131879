"""One line for each key that a schema refuses, whatever the schema."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from conf.explain import Problem, field_words, lines, nearest_hint, problems, show, unknown_key
from conf.reading import read_yaml

Name = Literal["s1", "s2"]


def _even(value: Any) -> Any:
    if isinstance(value, int) and value % 2:
        raise ValueError("an even number")
    return value


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Inner(Part):
    low: int | float | None = None
    hz: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = [50.0]


class Outer(Part):
    trials: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)] | None = None
    kind: Name = "s1"
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    pair: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    names: Annotated[tuple[Name, ...], Field(strict=False)] = ()
    inner: Inner = Inner()
    ranges: dict[str, Inner] = {}
    by_name: dict[Name, dict[str, Inner]] = {}
    values: dict[str, bool | int | float | str | list[Any] | None] = {}
    even: Annotated[float | str, BeforeValidator(_even)] = 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("trials: many", "1: trials: got many, expected a whole number >= 1"),
        ("trials: 0", "1: trials: got 0, expected a whole number >= 1"),
        ("trials: '3'", "1: trials: got '3', expected a whole number >= 1"),
        ("trials: true", "1: trials: got true, expected a whole number >= 1"),
        ("trials:", "1: trials: got null, expected a whole number >= 1"),
        ("trials: {a: 1}", "1: trials: got a block, expected a whole number >= 1"),
        ("seed: 1", " trials: got nothing, expected this key"),
        ("trials: 1\nseed: -1", "2: seed: got -1, expected a whole number >= 0 or null"),
        ("trials: 1\nkind: s3", "2: kind: got s3, expected s1 or s2"),
        ("trials: 1\nshare: .inf", "2: share: got inf, expected a number >= 0 and <= 1"),
        ("trials: 1\npair: [1]", "2: pair: got [1], expected a list of 2 whole numbers or null"),
        ("trials: 1\npair: [1, x]", "2: pair.1: got x, expected a whole number"),
        ("trials: 1\nnames:\n- s1\n- s3", "4: names.1: got s3, expected s1 or s2"),
        ("trials: 1\nnames: s1", "2: names: got s1, expected a list of s1 or s2"),
        ("trials: 1\ninner: 3", "2: inner: got 3, expected a block of keys"),
        ("trials: 1\ninner:\n  low: x", "3: inner.low: got x, expected a number or null"),
        ("trials: 1\ninner:\n  hz: [50, 0]", "3: inner.hz.1: got 0, expected a number > 0"),
        ("trials: 1\ninner: {hz: []}", "2: inner.hz: got [], expected a list of one or more"),
        ("trials: 1\nranges:\n  a.b: {low: x}", "3: ranges.a.b.low: got x, expected a number"),
        ("trials: 1\nranges: [x]", "2: ranges: got [x], expected a block of any keys"),
        (
            "trials: 1\nby_name:\n  s1:\n    a.b: {lo: 1}",
            "4: by_name.s1.a.b.lo: got an unknown key, expected one of low, hz (nearest: low)",
        ),
        ("trials: 1\nby_name: {s3: {}}", "2: by_name.s3: got s3, expected s1 or s2"),
        ("trials: 1\nvalues: {a: .nan}", "2: values.a: got nan, expected true or false or a num"),
        ("trials: 1\neven: 3", "2: even: got 3, expected an even number"),
        ("trials: 1\nshore: 1", "2: shore: got an unknown key, expected one of trials, seed, "),
        ("trials: 1\nshore: 1", "(nearest: share)"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(text: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"{text}\n", encoding="utf-8")
    document = read_yaml(path)
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate(document.values)
    [said] = lines(problems(raised.value, Outer), document.where)
    assert said.startswith(f"{path}:")
    assert line in said.removeprefix(f"{path}:")


def test_an_unknown_key_comes_before_what_is_missing_for_it() -> None:
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate({"trails": 3, "seed": -1})
    assert [problem.key for problem in problems(raised.value, Outer)] == [
        "trails",
        "trials",
        "seed",
    ]


def test_the_nearest_name_goes_by_all_of_it_or_its_last_part() -> None:
    known = ["optim_conf.lr", "scheduler_conf.warmup_steps", "trials"]
    assert nearest_hint("optm_conf.lr", known) == " (nearest: optim_conf.lr)"
    assert nearest_hint("lr", known) == " (nearest: optim_conf.lr)"
    assert nearest_hint("warmup_step", known) == " (nearest: scheduler_conf.warmup_steps)"
    assert nearest_hint("quite different", known) == ""


def test_an_unknown_key_lists_its_neighbours_but_not_a_whole_schema() -> None:
    assert unknown_key("steps.1.trails", ["name", "trials"]) == Problem(
        "steps.1.trails", "an unknown key", "one of name, trials (nearest: trials)"
    )
    problem = unknown_key("optm_conf.lr", ["optim_conf.lr"], listed=False)
    assert problem.message == ("got an unknown key, expected a known one (nearest: optim_conf.lr)")


def test_values_are_shown_as_yaml_and_cut() -> None:
    assert [show(value) for value in (5e-5, None, True, "5e-5", [0, 15], {"a": 1})] == [
        *("5e-5", "null", "true", "'5e-5'", "[0, 15]", "a block")
    ]
    assert show("x" * 81) == "x" * 77 + "..."


def test_what_a_field_expects_in_words() -> None:
    assert {name: field_words(field) for name, field in Outer.model_fields.items()} == {
        "trials": "a whole number >= 1",
        "seed": "a whole number >= 0 or null",
        "kind": "s1 or s2",
        "share": "a number >= 0 and <= 1",
        "pair": "a list of 2 whole numbers or null",
        "names": "a list of s1 or s2",
        "inner": "a block of keys",
        "ranges": "a block of any keys",
        "by_name": "a block of any keys",
        "values": "a block of any keys",
        "even": "a number or text",
    }
