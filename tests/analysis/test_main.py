"""The command line itself."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from analysis import __main__ as module
from analysis.__main__ import main
from analysis.report import page
from analysis.report.page import report
from conf.errors import UserError
from conf.files import locked_directory

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


def test_two_reports_at_once_to_one_place(demo_store, monkeypatch, tmp_path):
    """The second is refused, wherever the first is; the sweep's own lock stands in nobody's way."""
    monkeypatch.setattr(module, "_store", lambda: demo_store)
    root = tmp_path / "sweep"
    command = ["report", "--sweep", "demo", "--no_cache", "--no_log", "--output_dir", str(root)]
    refused: list[str] = []

    def while_another_writes(*arguments, **named):
        with pytest.raises(UserError) as error:
            main(command)
        refused.append(str(error.value))
        return report(*arguments, **named)

    monkeypatch.setattr(page, "report", while_another_writes)
    with locked_directory(root, "being run by"):
        assert main(command) == 0
        assert sorted(path.name for path in root.iterdir()) == ["lock", "report.html"]
    said = f"--output_dir: got {root}, which another process is writing: pid {os.getpid()} since "
    assert [line.startswith(said) for line in refused] == [True]


def test_a_report_that_fails_leaves_nothing(demo_store, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_store", lambda: demo_store)
    with pytest.raises(UserError):
        main(["report", "--sweep", "unknown", "--no_cache", "--output_dir", str(tmp_path / "a/b")])
    assert list(tmp_path.iterdir()) == []
