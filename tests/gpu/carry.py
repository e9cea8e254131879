"""Gather what a machine with PyTorch and transformers lacks to run the GPU tests, as wheels.

    python -m tests.gpu.carry DIR

Versions are those of requirements.lock. The machine needs x86-64 Linux, Python 3.12, a clone of
this repository, PyTorch 2.11 and transformers, and no network; the commands to run there are
printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from conf.document.numbers import size
from conf.errors import UserError, WorkError, run_command
from tests.conftest import ROOT

NEEDED = (
    *("annotated-types", "cffi", "funasr", "hypothesis", "iniconfig", "kaldiio", "lazy-loader"),
    *("librosa", "lmdb", "orjson", "pluggy", "pycparser", "pydantic", "pydantic-core", "pygments"),
    *("pytest", "pytest-timeout", "rapidfuzz", "six", "sortedcontainers", "soundfile", "soxr"),
    *("tiktoken", "torchaudio", "typing-extensions", "typing-inspection"),
)
"""What the GPU tests load beside what PyTorch and transformers bring; `test_carry.py` sees that
nothing is missing."""
PYTHON = "3.12"
PLATFORMS = tuple(
    f"manylinux{name}_x86_64" for name in ("_2_28", "_2_27", "_2_17", "2014", "2010", "1")
)
LIMIT = 64 * 2**20
COMMANDS = """\
python{python} -m pip install --no-index --no-deps --target site {wheels}/*.whl
export PYTHONPATH=site
python{python} -m pytest -m gpu tests/gpu/test_training.py
python{python} -m pytest -m gpu tests/gpu/test_decoding.py
"""


def locked() -> dict[str, str]:
    """Versions by name, as requirements.lock has them."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def download(directory: Path) -> list[Path]:
    """Download the wheels.

    Args:
        directory: New or empty, so that there is one version of each.

    Raises:
        UserError: It holds something, or there is no pip.
        WorkError: A wheel is not to be had.
    """
    if directory.exists() and any(directory.iterdir()):
        raise UserError(f"DIR: got {directory}, which is not empty, expected a new directory")
    versions = locked()
    command = [*_pip(), "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    command += ["--dest", str(directory), *(f"{name}=={versions[name]}" for name in NEEDED)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        raise WorkError(f"pip download: {(said or ['failed'])[-1].removeprefix('ERROR: ')}")
    return sorted(directory.glob("*.whl"))


def _pip() -> list[str]:
    """This environment's pip; those that uv makes have none, and uv's own cannot download."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    if (uvx := shutil.which("uvx")) is not None:
        return [uvx, "--quiet", "pip"]
    raise UserError("pip: got neither pip nor uvx, expected one to download wheels with")


def listing(wheels: Sequence[Path]) -> str:
    """Each wheel's size, their sum, and the commands to run there.

    Raises:
        WorkError: They are larger than what can be carried.
    """
    sizes = {wheel.name: wheel.stat().st_size for wheel in wheels}
    total = sum(sizes.values())
    if total > LIMIT:
        largest = max(sizes, key=lambda name: sizes[name])
        raise WorkError(
            f"wheels: got {size(total)}, expected at most {size(LIMIT)}; the largest is {largest} "
            f"({size(sizes[largest])})"
        )
    lines = [f"{size(bytes_):>9}  {name}" for name, bytes_ in sizes.items()]
    commands = COMMANDS.format(python=PYTHON, wheels=wheels[0].parent)
    return "\n".join([*lines, f"{size(total):>9}  together", "", commands])


def main(argv: Sequence[str]) -> int:
    """Download the wheels and say what to do with them."""
    parser = argparse.ArgumentParser(prog="carry", description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path, metavar="DIR", help="for the wheels: new or empty")
    print(listing(download(parser.parse_args(argv).directory)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
