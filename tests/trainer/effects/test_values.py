"""The value that is tried: another one than the present, for every key of the schema."""

from __future__ import annotations

import pytest

from conf import keys
from trainer.effects import values


@pytest.mark.quick
def test_the_tables_name_keys_of_the_schema() -> None:
    named = {
        *values.CASES,
        *values.CONDITIONS,
        *values.UNTRIED,
        *values.AT_LOADING,
        *values.REMARKS,
        *(name for name, _ in values.EXPLAINED),
        *(key for case in values.CASES.values() for key in case.scene),
        *(key for condition in values.CONDITIONS.values() for key in condition),
    }
    assert named <= set(keys.all_keys())


@pytest.mark.quick
def test_another_value_is_another_one() -> None:
    files_of_scene = {
        value[1:]: value
        for case in values.CASES.values()
        for value in case.values
        if isinstance(value, str) and value.startswith("@")
    }
    defaults = {name: key.default for name, key in keys.all_keys().items()}
    assert [
        name
        for name, default in defaults.items()
        if values.other_value(name, default, files_of_scene) == default
    ] == []
