"""A machine with PyTorch, transformers and the wheels that are carried runs the GPU tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conf.errors import UserError, WorkError
from tests.conftest import ROOT
from tests.gpu import carry

BARE = """
import importlib.metadata, re, sys
from importlib.machinery import PathFinder
from packaging.requirements import Requirement

def normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()

def with_needs(names):
    found, left = set(), [normalised(name) for name in names]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        left += [
            normalised(need.name)
            for need in map(Requirement, needs)
            if need.marker is None or need.marker.evaluate({"extra": ""})
        ]
    return found

there = with_needs(["torch", "transformers"]) | set(sys.argv[1].split(","))
packages = importlib.metadata.packages_distributions()
absent = {
    name for name, owners in packages.items() if not there & set(map(normalised, owners))
} - {"conf", "trainer", "tests", "pip", "setuptools"}

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in absent:
            return PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
import pytest
options = ["-q", "-p", "no:cacheprovider", "-p", "pytest_timeout"]
sys.exit(pytest.main([*options, *sys.argv[2:]]))
"""
"""Runs tests where only these distributions can be imported."""


def test_nothing_else_is_imported() -> None:
    """Measurements on the CPU, and the GPU's tests as far as they go without one."""
    names = ("test_an_update_of_each_stage[s3]", "test_the_same_device_gives_the_same[8k]")
    tests = [f"tests/gpu/test_on_the_cpu.py::{name}" for name in names]
    tests += ["tests/gpu/test_training.py", "tests/gpu/test_decoding.py"]
    done = subprocess.run(
        [sys.executable, "-c", BARE, ",".join(carry.NEEDED), *tests],
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "REQUIRE_ALL": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_every_version_is_locked() -> None:
    assert set(carry.NEEDED) <= set(carry.locked())
    assert list(carry.NEEDED) == sorted(set(carry.NEEDED))


def test_wheels_are_listed_with_the_commands(tmp_path: Path) -> None:
    for name, size in (("a-1-py3-none-any.whl", 1_000), ("b-1-py3-none-any.whl", 2_000_000)):
        (tmp_path / name).write_bytes(bytes(size))
    said = carry.listing(sorted(tmp_path.iterdir()))
    assert "2.0 MB  together" in said
    assert f"--target site {tmp_path}/*.whl\n" in said
    assert said.endswith("python3.12 -m pytest -m gpu tests/gpu/test_decoding.py\n")


def test_too_much_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carry, "LIMIT", 1_000_000)
    (tmp_path / "big-1-py3-none-any.whl").write_bytes(bytes(1_000_001))
    expected = r"^wheels: got 1\.0 MB, expected at most 1\.0 MB; the largest is big-1-py3-none-any"
    with pytest.raises(WorkError, match=expected):
        carry.listing(list(tmp_path.iterdir()))


def test_wheels_go_to_a_directory_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "funasr-0.1-py3-none-any.whl").touch()
    with pytest.raises(UserError, match=r"^DIR: got .*, which is not empty, expected a new"):
        carry.download(tmp_path)
