"""How a command ends: one line per mistake, the exit code, a traceback only with --debug."""

import os
import pickle
import signal
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from conf.errors import ConfigError, DataError, UserError, WorkError, mask, run_command

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `python -m trainer` sees itself."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/trainer/__main__.py", "train"])


@pytest.mark.parametrize(
    ("error", "code", "stderr"),
    [
        (
            ConfigError(["a.yaml:1: x", "a.yaml:2: y"]),
            2,
            "trainer: a.yaml:1: x\ntrainer: a.yaml:2: y\n",
        ),
        (DataError("t.jsonl:3: not JSON"), 2, "trainer: t.jsonl:3: not JSON\n"),
        (WorkError("the loss is nan"), 1, "trainer: the loss is nan\n"),
        (KeyboardInterrupt(), 130, "trainer: interrupted\n"),
    ],
    ids=["config", "data", "work", "ctrl-c"],
)
def test_run_command(
    error: BaseException, code: int, stderr: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines on stderr, nothing on stdout; the error itself with --debug."""

    def main(argv: Sequence[str]) -> int:
        assert list(argv) == ["train"]
        raise error

    assert run_command(main, ["train"]) == code
    assert capsys.readouterr() == ("", stderr)
    with pytest.raises(type(error)):
        run_command(main, ["--debug", "train"])


def test_code_of_the_command() -> None:
    """Without an error its own."""
    assert run_command(lambda argv: len(argv), ["a", "b", "c"]) == 3


def test_errors_cross_processes() -> None:
    """A sweep's trials run in other processes."""
    error = pickle.loads(pickle.dumps(ConfigError(["one", "two"])))
    assert isinstance(error, UserError)
    assert (type(error), error.problems, str(error)) == (ConfigError, ("one", "two"), "one\ntwo")


@pytest.mark.parametrize(
    "module",
    ["conf.load", "conf.delta", "conf.errors", "conf.rules", "conf.checks", "conf.effects"],
)
def test_nothing_heavy_is_imported(module: str) -> None:
    """Argument parsing and documents stay fast."""
    import subprocess

    heavy = "{'torch', 'ray', 'mlflow', 'funasr', 'optuna', 'transformers', 'numpy'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.attack
@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://plant:PLANTPW1@host:5000/x", "http://***@host:5000/x"),
        ("postgresql+psycopg2://u:p@ss:w@db/mlflow", "postgresql+psycopg2://***@db/mlflow"),
        (
            "no answer from 'https://token@host' (HTTPS://a:b@c)",
            "no answer from 'https://***@host' (HTTPS://***@c)",
        ),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("s3://bucket/key@2 and x@y", "s3://bucket/key@2 and x@y"),
        ("http://host/?to=a@b", "http://host/?to=a@b"),
    ],
)
def test_no_error_shows_a_password(uri: str, shown: str) -> None:
    assert mask(uri) == shown
    for error in (UserError(uri), ConfigError([uri]), DataError(uri), WorkError(uri)):
        assert str(error) == shown
        assert str(pickle.loads(pickle.dumps(error))) == shown


@pytest.mark.attack
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o600), (0o277, 0o400), (0, 0o600)])
def test_what_a_command_writes_is_for_its_user(umask: int, mode: int, tmp_path: Path) -> None:
    def main(argv: Sequence[str]) -> int:
        (tmp_path / "hypotheses.jsonl").touch()
        return 0

    before = os.umask(umask)
    try:
        assert run_command(main, []) == 0
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "hypotheses.jsonl").stat().st_mode) == mode


def test_sigterm_is_ctrl_c_with_another_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def main(_: Sequence[str]) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    assert run_command(main, []) == 143
    assert capsys.readouterr() == ("", "trainer: interrupted\n")
    assert signal.getsignal(signal.SIGTERM) is before
