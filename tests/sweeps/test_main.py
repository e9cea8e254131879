"""The commands of `python -m sweeps`: which there are, and what they take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.__main__ import main
from tests.sweeps.driving import ENVIRONMENT


@pytest.mark.quick
def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, sweeps.__main__ as m\n"
        "try: m.main(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'ray', 'optuna', 'mlflow', 'torch', 'pydantic'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, check=False
    )
    assert result.returncode == 0, result


@pytest.mark.quick
def test_looking_takes_no_overrides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`run` and `pipeline` take key=value; what only looks would pass over it without a word."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["status", "demo", "trials=4"])
    assert ended.value.code == 2
    assert "unrecognized arguments: trials=4" in capsys.readouterr().err
    assert main(["list"]) == 0
    assert "no sweep in outputs/sweeps" in capsys.readouterr().out
