"""The driver as a process: how signals end it, and where what is printed goes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.execute.process import Signals, output_to, own_console
from tests.conftest import ROOT

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_ends_in_order(sent: signal.Signals, code: int) -> None:
    before = signal.getsignal(sent)
    with Signals() as signals:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(sent)
        assert signals.exit_code == code
    assert signal.getsignal(sent) == before


def test_after_ctrl_c_the_sigterm_of_mlflow_run_is_no_second_signal() -> None:
    with Signals() as signals:
        signals.at_once = lambda: pytest.fail("ended at once")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert signals.exit_code == 130


@pytest.mark.parametrize("second", ["SIGINT", "SIGTERM"])
def test_a_second_signal_ends_at_once(second: str) -> None:
    code = f"""
import signal
from sweeps.execute.process import Signals

with Signals() as signals:
    signals.at_once = lambda: print("nothing is left behind", flush=True)
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        signal.raise_signal(signal.{second})
    print("never reached")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (143, "nothing is left behind\n"), done.stderr


def test_what_is_not_for_the_console_goes_to_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "sweep.log"
    with own_console() as console, output_to(log):
        logging.getLogger("elsewhere").error("the store is away")
        os.write(1, b"Ray says hello\n")
        console.print("trial 0 completed")
    os.write(1, b"afterwards\n")
    assert capfd.readouterr().out == "trial 0 completed\nafterwards\n"
    text = log.read_text()
    assert "elsewhere the store is away\n" in text
    assert "Ray says hello\n" in text


def test_a_console_that_went_away_is_no_error() -> None:
    code = """
import os
from sweeps.execute.process import own_console

reader, writer = os.pipe()
os.dup2(writer, 1)
os.close(writer)
with own_console() as console:
    os.close(reader)
    console.print("lost")
os._exit(7)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (7, "")
