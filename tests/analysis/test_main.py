"""The command line itself."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from analysis.__main__ import main

pytestmark = pytest.mark.quick


def test_help_is_quick_and_has_examples():
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "analysis", "--help"], capture_output=True, text=True, check=True
    )
    assert time.perf_counter() - started < 1
    assert "python -m analysis compare --sweep demo" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["compare"],
        ["compare", "--sweep", "demo", "--format", "html"],
        ["export", "--sweep", "d"],
    ],
)
def test_wrong_usage_is_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage:" in capsys.readouterr().err
