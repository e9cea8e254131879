"""Write how each value stands to the released model behind it, into the user's own file.

    python -m analysis annotate my.yaml            # lr: 1e-4  # mine  # [MODIFIED] pretrained: 5e-6
    python -m analysis annotate my.yaml --remove   # the file as it was, byte for byte

Only ends of lines change: comments, order, alignment, quotes, line breaks stay as they are. A YAML
library that reads and writes again (ruamel.yaml too) rewrites spaces within lines and lists, so
the file is not written from values: marks are put where the parser says that a value ends. Marks of
an earlier run are replaced.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from conf.delta import MARK, RUN_KEYS, classify, mark
from conf.errors import ConfigError, WorkError
from conf.files import replacing
from conf.load import load_config
from conf.reading import read_yaml, value_ends

NAMED = rf"[\w.]+ {MARK}"
OURS = re.compile(rf"  # (?:{MARK}|{NAMED}(?:, {NAMED})*)(?=[\n\r\x85\u2028\u2029]|\Z)")
"""A mark of ours at a line's end; whatever stands before it belongs to the user."""
LINE_END = re.compile(r"\r?\n|[\r\x85\u2028\u2029]|$")


def annotate_file(
    path: Path, *, model: Path | None = None, allow_unknown: bool = False
) -> Mapping[str, int]:
    """Write the marks into a file.

    Args:
        path: A configuration.
        model: Directory of the weights, whose architecture it is compared with; else the released
            model's.
        allow_unknown: Let keys through that the schema does not know.

    Returns:
        How many values are aligned, modified and new.

    Raises:
        ConfigError: The file is no configuration; it is left as it was.
    """
    config = load_config(
        path, model=model, find_model=model is not None, allow_unknown=allow_unknown
    )
    marks = {delta.key: mark(delta) for delta in classify(config)}
    text = _read(path)
    marked = annotated(strip(text), marks, str(path))
    _write(path, text, marked)
    counts: dict[str, int] = defaultdict(int)
    for key in value_ends(marked, str(path)):
        if key in marks:
            counts[marks[key].split("]")[0].strip("[")] += 1
    return dict(counts)


def remove_marks(path: Path) -> None:
    """Take the marks out of a file again."""
    read_yaml(path)
    text = _read(path)
    _write(path, text, strip(text))


def strip(text: str) -> str:
    """A text without marks of ours."""
    return OURS.sub("", text)


def annotated(text: str, marks: Mapping[str, str], label: str) -> str:
    """A YAML text with the marks of its keys at the ends of their values' lines.

    Args:
        text: Without marks of ours.
        marks: By dotted key; other keys get none.
        label: Who says so if it is no YAML.
    """
    by_line: dict[int, list[str]] = defaultdict(list)
    for key, end in value_ends(text, label).items():
        if key in marks and key not in RUN_KEYS:
            found = LINE_END.search(text, end)
            assert found is not None
            by_line[found.start()].append(key)
    pieces, start = [], 0
    for position, keys in sorted(by_line.items()):
        said = (
            marks[keys[0]]
            if len(keys) == 1
            else ", ".join(f"{key.rpartition('.')[2]} {marks[key]}" for key in keys)
        )
        pieces += [text[start:position], f"  # {said}"]
        start = position
    return "".join([*pieces, text[start:]])


def _read(path: Path) -> str:
    # Not read_text: it would turn every line break into one kind.
    return path.read_bytes().decode("utf-8")


def _write(path: Path, before: str, after: str) -> None:
    """Write whole or not at all, and only what reads as the same values."""
    if after == before:
        return
    target = path.resolve()
    try:
        with replacing(target) as partial:
            partial.write_bytes(after.encode("utf-8"))
            partial.chmod(target.stat().st_mode)
            if read_yaml(partial).values != read_yaml(target).values:
                raise ConfigError(
                    f"{path}: got a layout that marks cannot be put into; left as it was"
                )
    except OSError as error:
        raise WorkError(f"{path}: could not be written ({error.strerror})") from error
