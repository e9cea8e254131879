"""The errors of all packages, and how a command ends when one is raised.

- UserError: the user can mend it; one line per mistake, exit 2
    - ConfigError: a configuration, an override, a sweep file
    - DataError: a manifest, a recording, a model directory
- WorkError: the work failed (a NaN loss, a full disk); one line, exit 1
"""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C, as shells give it."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as batch systems and `kill` send it: Ctrl-C with another exit code."""


PRIVATE = 0o077
"""What a umask takes away at least: outputs, stores and reports hold transcripts."""
_USERINFO = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#'\"]+@")


def mask(text: str) -> str:
    """A text without the user and password of the URIs in it; every error's text passes here."""
    return _USERINFO.sub(r"\1***@", text)


class UserError(Exception):
    """One or more mistakes of the user; each is one line that names where it is."""

    exit_code = 2

    def __init__(self, problems: str | Iterable[str]) -> None:
        """Keep the mistakes as lines.

        Args:
            problems: One line, or several when all mistakes of a file are told at once.
        """
        lines = (problems,) if isinstance(problems, str) else tuple(problems)
        self.problems: tuple[str, ...] = tuple(map(mask, lines))
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type["UserError"], tuple[tuple[str, ...]]]:
        """Survive pickling: errors cross process borders in a sweep."""
        return type(self), (self.problems,)


class ConfigError(UserError):
    """A configuration, an override or a sweep file says something it may not say."""


class DataError(UserError):
    """A manifest, a recording or a model directory is not what it should be."""


class WorkError(Exception):
    """Work that was asked for correctly and failed."""

    exit_code = 1

    def __init__(self, line: str) -> None:
        """Keep what failed as one line."""
        super().__init__(mask(line))


def run_command(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Run a command and turn its errors into one line each and an exit code.

    `--debug` anywhere in `argv` is taken out, and then errors keep their traceback. What the
    command, and every process that it starts, writes is for its user alone.

    Args:
        main: The command; it gets the arguments and returns its exit code.
        argv: The arguments, without the program's name.

    Returns:
        The exit code: that of `main`, 2 for a UserError, 1 for a WorkError, 130 after Ctrl-C, 143
        after SIGTERM.
    """
    debug = "--debug" in argv
    arguments = [argument for argument in argv if argument != "--debug"]
    umask = os.umask(PRIVATE)
    os.umask(umask | PRIVATE)
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return main(arguments)
    except (UserError, WorkError) as error:
        if debug:
            raise
        for line in str(error).splitlines():
            print(f"{_program()}: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        if debug:
            raise
        print(f"{_program()}: interrupted", file=sys.stderr)
        return 128 + signal.SIGTERM if isinstance(error, Terminated) else INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
        os.umask(umask)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def _program() -> str:
    """`trainer` for `python -m trainer`, else the script's own name."""
    script = Path(sys.argv[0])
    return script.parent.name if script.name == "__main__.py" else script.stem
