"""A file named by mistake, or by someone else, is named in the error and never quoted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conf.channels import load_channel
from conf.errors import UserError
from conf.model_dir import file_paths
from conf.reading import read_yaml
from sweeps.spec.sweep_file import load_sweep
from trainer.data.manifest import read_data_list
from trainer.export.verify_process import _logged

pytestmark = [pytest.mark.quick, pytest.mark.attack]

SECRET = "TOPSECRETLINE1"
CONTENTS = (
    f"{SECRET}: x: hunter2\nroot:$6${SECRET}:19000:0\n",
    f"{SECRET} hunter2\n-----BEGIN KEY-----\n",
    f"[{SECRET}, {{\n",
    f'"{SECRET}"\n',
    f"*{SECRET}\n",
    f"!{SECRET} x\n",
)


def _description(path: Path) -> object:
    path.rename(path.with_name("configuration.json"))
    return file_paths(path.parent)


def _texts(path: Path) -> object:
    (path.parent / "hypotheses").mkdir()
    path.rename(path.parent / "hypotheses" / "valid.jsonl")
    return _logged(path.parent)


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a list of manifests": ("list.txt", read_data_list),
    "a manifest": ("train.jsonl", read_data_list),
    "a configuration": ("my.yaml", read_yaml),
    "a sweep": ("sweep.yaml", load_sweep),
    "a channel": ("channel.yaml", lambda path: load_channel(str(path))),
    "a model's description": ("some.json", _description),
    "logged texts": ("some.jsonl", _texts),
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("reader", READERS)
def test_it_is_not_quoted(reader: str, content: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as refused:
        read(tmp_path / name)
    assert SECRET not in str(refused.value)
    assert "hunter2" not in str(refused.value)
