"""The command line itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from analysis.__main__ import main
from conf.errors import UserError

pytestmark = pytest.mark.quick


def test_help_has_examples():
    done = subprocess.run(
        [sys.executable, "-m", "analysis", "--help"], capture_output=True, text=True, check=True
    )
    assert "python -m analysis compare --sweep demo" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["compare"],
        ["compare", "--sweep", "demo", "--format", "html"],
        ["export", "--sweep", "d"],
        ["report", "--sweep", "d"],
        ["report", "--sweep", "d", "--output_dir", "o", "--lang", "fr"],
    ],
)
def test_wrong_usage_is_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_table_is_chosen_for_csv_alone():
    with pytest.raises(UserError, match=r"^--table: got it with --format table, expected .*csv$"):
        main(["compare", "--sweep", "d", "--table", "slices"])
