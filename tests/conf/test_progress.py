"""What is said of how far a pass is, on a terminal and off it."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
from pathlib import Path

import pytest

from conf import progress as module
from conf.load import load_config, stage_config_path
from conf.progress import ErrorStream, Progress, say_loading
from tests.conftest import BASE, until

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
    with Progress(forks=True).of("audio", 4000, about=True) as advance:
        for clock["s"] in (1.0, 11.0, 12.0, 22.0):
            advance(500)
    assert "\r" not in (said := capsys.readouterr().err)
    first, second = said.splitlines()
    assert first == "audio: 1,000 of about 4,000 lines, 91 a second, 33 s left"
    assert "2,000 of about 4,000" in second


def test_the_longer_it_takes_the_fewer_the_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = {"s": 0.0}
    monkeypatch.setattr("time.monotonic", lambda: clock["s"])
    told = []
    with Progress(forks=True).of("epoch 1", 3600, "batches") as advance:
        for second in range(1, 301):
            clock["s"] = float(second)
            advance(1)
            if capsys.readouterr().err:
                told.append(second)
    assert told == [5, 10, 20, 40, 80, 140, 200, 260]


def test_what_does_not_advance_is_told_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into the log that there was at the beginning, whatever a library's output goes to now."""
    monkeypatch.setattr(module, "_TICK_S", 0.01)
    monkeypatch.setattr(module, "_FIRST_S", 0.0)
    heard: list[str] = []

    def both() -> bool:
        heard.append(capsys.readouterr().err)
        said = "".join(heard)
        return all(f"{what} 0 s so far\n" in said for what in whats)

    whats = ("evaluate valid: 0 of 9 utterances,", "building the model:")
    with (
        Progress().step("building the model"),
        Progress().of("evaluate valid", 9, "utterances"),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        until(both)


def test_the_weights_are_named_with_their_size(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Of a stage's checkpoint, those too that it is filled from."""
    for name, num_bytes in (("model.pt", 2_127_000_000), ("epoch-003.safetensors", 12_000_000)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(num_bytes)
    for path in BASE.glob("*.yaml"):
        shutil.copy(path, tmp_path)
    config = load_config(stage_config_path("8k"), model=tmp_path)
    say_loading(config)
    assert capsys.readouterr().err == f"loading {tmp_path / 'model.pt'}, 2.13 GB\n"
    say_loading(config.replace({"init_param": str(tmp_path / "epoch-003.safetensors")}, "test"))
    assert capsys.readouterr().err.splitlines() == [
        f"loading {tmp_path / 'epoch-003.safetensors'}, 12 MB",
        f"loading {tmp_path / 'model.pt'}, 2.13 GB",
    ]
    say_loading(load_config(stage_config_path("8k")))
    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_bar_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Progress().of("audio", 4) as advance:
        advance(1)
    assert "audio" in terminal.getvalue()
    assert "25%" in terminal.getvalue()


def test_work_within_work_and_log_lines_share_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is printed for others to read goes where it always goes."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    log = logging.getLogger("a test of progress")
    log.addHandler(ErrorStream())
    with Progress().of("epoch 1", 4) as advance, Progress().step("evaluate valid"):
        advance(2)
        log.warning("update 50")
        print("a result")
    assert capsys.readouterr().out == "a result\n"
    for said in ("epoch 1", "evaluate valid", "50%", "update 50\n"):
        assert said in terminal.getvalue().replace("\r", "")
