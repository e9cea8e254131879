"""Changing any value in conf/ makes a committed document stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis.alignment import align
from analysis.alignment.align import FILES, documents, gather
from analysis.alignment.pages import Page
from conf import keys, load
from conf.document.language import ENGLISH
from conf.load import HERE
from conf.reading import flatten, read_yaml
from conf.writing import to_yaml


def table(directory: Path) -> str:
    """All values of all configurations side by side, from a copy of conf/."""
    return Page(gather(directory), ENGLISH, "CONFIG_COMPARISON_TABLE", {}).modules()


def other_value(key: str, value: Any) -> Any:
    """Another value that the schema allows; the same one where there is none."""
    expected = keys.all_keys()[key].expected
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value / 2 if expected.endswith("<= 1") else value + 1
    if isinstance(value, list):
        return [*value[:-1], value[-1] + (1 if isinstance(value[-1], int) else "x")]
    choices = [choice for choice in expected.split(" or ") if choice not in ("null", "text")]
    others = [choice for choice in choices if choice != value]
    return others[0] if others else f"{value}x" if "text" in expected else value


@pytest.mark.parametrize("name", [*FILES.values(), "pretrained"])
def test_any_changed_value_makes_a_document_stale(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each value of each file in turn."""
    for path in HERE.glob("*.yaml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(load, "PRETRAINED", tmp_path / "pretrained.yaml")
    monkeypatch.setattr(align, "PRETRAINED", tmp_path / "pretrained.yaml")
    fresh = table(tmp_path)
    assert fresh in documents()["CONFIG_COMPARISON_TABLE.md"]
    file = tmp_path / f"{name}.yaml"
    values = flatten(read_yaml(file).values)
    tried = 0
    for key, value in values.items():
        if value is None or key in load.PATHS or "${" in str(value) or key == "model":
            continue
        if (other := other_value(key, value)) == value:
            continue
        file.write_text(to_yaml(load.unflatten({**values, key: other})), encoding="utf-8")
        assert table(tmp_path) != fresh, key
        tried += 1
    assert tried > 0.8 * len(values) - 8
