"""conf/effects.yaml and conf/parameters.yaml: made from the proof, or checked against it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from conf.effects import EFFECTS_FILE, PARAMETERS_FILE
from conf.errors import UserError
from conf.load import STAGES
from trainer.demo.corpus import ensure
from trainer.effects.parameters import Counts, count_parameters
from trainer.effects.prove import Row, prove
from trainer.effects.scene import make_scene
from trainer.funasr_parts import version

EFFECTS_HEADER = """\
# Which keys do something, stage by stage; made by `python -m trainer effects`, not by hand.
#
#   both   stock FunASR's training acts on it, and so does our trainer
#   stock  stock FunASR's training acts on it, our trainer does not
#   here   stock FunASR's training ignores it, our trainer acts on it
#   none   neither acts on it
#
# Proven on the tiny model by tracing who reads the key and by changing it; where the two do not
# agree the note says why. read_by holds the classes and functions that read it; where a key does
# nothing without others, `needs` names those and `then` is its effect with them.

"""

PARAMETERS_HEADER = """\
# Parameters at full size by stage and module, how many of them our trainer trains, and in which
# precision they are held; counted by `python -m trainer effects` on PyTorch's meta device.

"""


def write_or_check(
    stages: Sequence[str] = (),
    *,
    check: bool = False,
    corpus: Path = Path("data/demo"),
    on_progress: Callable[[str], None] = lambda _: None,
) -> int:
    """Proves the effects, and writes the files or compares them.

    Args:
        stages: Short names; all if there are none. The files need all of them: with fewer the rows
            are printed, or their effects compared.
        check: Compare with the committed files instead of writing them.
        corpus: The demonstration's corpus; made if it is not there.
        on_progress: Gets a line now and then.

    Returns:
        The exit code: 1 if a committed file is stale.

    Raises:
        UserError: There is no such stage.
        WorkError: Trace and trial disagree, and nothing says why.
    """
    for stage in stages:
        if stage not in STAGES:
            raise UserError(f"--stage: got {stage!r}, expected one of {', '.join(STAGES)}")
    chosen = tuple(stage for stage in STAGES if stage in stages or not stages)
    torch.set_num_threads(1)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as directory:
        scene = make_scene(Path(directory), ensure(corpus), chosen)
        rows = prove(scene, on_progress=on_progress)
    if len(chosen) < len(STAGES):
        return _compare_rows(rows) if check else _print(rows)
    files = {
        EFFECTS_FILE: effects_text(rows),
        PARAMETERS_FILE: parameters_text(count_parameters()),
    }
    if check:
        return _compare_files(files)
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")
    return 0


def effects_text(rows: Mapping[str, Row]) -> str:
    """The content of conf/effects.yaml."""
    lines = [f"funasr: {_flow(version())}", "keys:"]
    for name, row in sorted(rows.items()):
        lines += [
            f"  {name}:",
            f"    stages: {_flow(dict(row.stages))}",
            f"    read_by: {_flow(list(row.read_by))}",
        ]
        if row.needs:
            lines += [f"    needs: {_flow(dict(row.needs))}", f"    then: {row.then}"]
        if row.note:
            lines.append(f"    note: {_flow(row.note)}")
    return EFFECTS_HEADER + "".join(f"{line}\n" for line in lines)


def parameters_text(counts: Mapping[str, Counts]) -> str:
    """The content of conf/parameters.yaml."""
    lines = [f"funasr: {_flow(version())}", "stages:"]
    for stage, modules in counts.items():
        lines.append(f"  {stage}:")
        lines += [f"    {name}: {_flow(dict(count))}" for name, count in modules.items()]
    return PARAMETERS_HEADER + "".join(f"{line}\n" for line in lines)


def _flow(value: Any) -> str:
    """A value in one line of YAML."""
    text: str = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10_000
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _print(rows: Mapping[str, Row]) -> int:
    for name, row in rows.items():
        effects = ", ".join(f"{stage} {effect}" for stage, effect in row.stages.items())
        print(f"{name}: {effects}" + (f" ({row.note})" if row.note else ""))
    return 0


def _compare_rows(rows: Mapping[str, Row]) -> int:
    committed = yaml.safe_load(EFFECTS_FILE.read_text(encoding="utf-8"))["keys"]
    stale = [
        f"{EFFECTS_FILE}: {name}: got {committed.get(name, {}).get('stages', {}).get(stage)} "
        f"in {stage}, proven {effect}"
        for name, row in rows.items()
        for stage, effect in row.stages.items()
        if committed.get(name, {}).get("stages", {}).get(stage) != effect
    ]
    return _tell(stale)


def _compare_files(files: Mapping[Path, str]) -> int:
    stale = []
    for path, text in files.items():
        committed = path.read_text(encoding="utf-8") if path.is_file() else ""
        known = set(committed.splitlines())
        if committed != text:
            line = next((line for line in text.splitlines() if line not in known), "the order")
            stale.append(f"{path}: stale, expected {line.strip()!r}")
    return _tell(stale)


def _tell(stale: Sequence[str]) -> int:
    for line in stale:
        print(line, file=sys.stderr)
    if stale:
        print("make them again with `python -m trainer effects`", file=sys.stderr)
    return 1 if stale else 0
