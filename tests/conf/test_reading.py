"""YAML in: numbers, lines, and one clear message for everything that is not a configuration."""

from pathlib import Path

import pytest

from conf.errors import ConfigError
from conf.reading import parse_value, read_yaml

pytestmark = pytest.mark.quick


def write(directory: Path, text: str) -> Path:
    """A file `my.yaml` with that text."""
    path = directory / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5),
        ("5.0e-5", 5e-5),
        ("5.e-05", 5e-5),
        ("1E3", 1000.0),
        ("-1e+2", -100.0),
        ("0.01", 0.01),
        ("20", 20),
        ("true", True),
        ("null", None),
        ("", None),
        ("'5e-5'", "5e-5"),
        ("2025-01-05", "2025-01-05"),
        ("e5", "e5"),
        ("[0, 15]", [0, 15]),
        ("<unk>", "<unk>"),
    ],
)
def test_values(text: str, value: object) -> None:
    """A value and its type."""
    read = parse_value(text, "here")
    assert read == value
    assert type(read) is type(value)


def test_lines(tmp_path: Path) -> None:
    """Every key knows its line, items of lists too; an unknown one takes its block's."""
    document = read_yaml(write(tmp_path, "# c\na:\n  b: 1\n  c:\n  - x: 2\n"))
    assert document.values == {"a": {"b": 1, "c": [{"x": 2}]}}
    assert document.lines == {"a": 2, "a.b": 3, "a.c": 4, "a.c.0": 5, "a.c.0.x": 5}
    assert document.where("a.new") == f"{tmp_path / 'my.yaml'}:2"
    assert document.where("z") == str(tmp_path / "my.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", ":2: a: got the key a second time, expected it once (first in line 1)"),
        ("b:\n  a: 1\n  a: 2\n", ":3: b.a: got the key a second time"),
        ("a:\n\tb: 1\n", ":2: got a tab, expected spaces"),
        ("a: !!python/object/apply:os.system [ls]\n", ":1: got the tag !!python/object/apply:os"),
        ("a: !mine x\n", ":1: got the tag !mine, expected a plain value"),
        ("a: &x 1\nb: *x\n", ":2: got an alias (*), expected the value itself"),
        ("a: &x [*x]\n", ":1: got an alias"),
        ("- 1\n", ":1: got a list, expected `key: value` pairs"),
        ("word\n", ":1: got a text, expected `key: value` pairs"),
        ("a: [1\nb: 2\n", ":2: not YAML: "),
        ("a: 1\n b: 2\n", ":2: not YAML: "),
        ("a: 1\n---\nb: 2\n", ":2: not YAML: "),
        ("[1]: 2\n", ":1: got a list as a key, expected a name"),
        ("a: !!int x\n", ":1: a: got 'x' as int"),
        ("a: \x00\n", ": not YAML: "),
        ("[" * 5000, ": nested too deeply"),
        ("a: " + "x" * 1_000_001, ": got 1,000,004 bytes, expected a YAML file below 1,000,000"),
    ],
)
def test_malformed(tmp_path: Path, text: str, message: str) -> None:
    """One line, with the file, the line and what was expected; nothing is executed."""
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}{message}")
    assert len(str(caught.value).splitlines()) == 1


def test_unreadable(tmp_path: Path) -> None:
    """No file, a directory, bytes that are no text."""
    with pytest.raises(ConfigError, match=r"none.yaml: no such file, expected a YAML file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"is a directory, expected a YAML file"):
        read_yaml(tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match=r"got a byte that is not UTF-8 at 3"):
        read_yaml(tmp_path / "b.yaml")
