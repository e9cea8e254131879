"""What is said of how far a pass is, on a terminal and off it."""

from __future__ import annotations

import io

import pytest

from trainer.prepare.progress import Progress

pytestmark = pytest.mark.quick


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_quietly_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(quiet=True).of("audio", 10) as advance:
        advance(10)
    assert capsys.readouterr().err == ""


def test_off_a_terminal_a_line_comes_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = {"s": 0.0}
    monkeypatch.setattr("time.monotonic", lambda: clock["s"])
    with Progress().of("audio", 4000) as advance:
        for clock["s"] in (1.0, 11.0, 12.0, 22.0):
            advance(500)
    first, second = capsys.readouterr().err.splitlines()
    assert "audio" in first
    assert "1,000 of about 4,000" in first
    assert "2,000 of about 4,000" in second


def test_on_a_terminal_a_bar_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Progress().of("audio", 4) as advance:
        advance(1)
    assert "audio" in terminal.getvalue()
    assert "25%" in terminal.getvalue()
