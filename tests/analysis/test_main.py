"""The command line itself."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from analysis import __main__ as module
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


def test_what_is_said_of_a_sweep_under_way_says_so(demo_store, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(module, "_store", lambda: demo_store)
    main(["compare", "--sweep", "demo", "--no_cache"])
    assert capsys.readouterr().err == ""
    demo_store.parent = replace(demo_store.parent, status="RUNNING")
    main(["compare", "--sweep", "demo", "--no_cache"])
    main(["report", "--sweep", "demo", "--no_cache", "--no_log", "--output_dir", str(tmp_path)])
    said = capsys.readouterr()
    assert said.err.count("note: sweep demo is still running, or was cut off") == 2
    assert "1 running" in said.out
