"""What the command lines of all packages share: commands below a help with examples, and flags."""

from __future__ import annotations

import argparse
from typing import Any

_Commands = argparse._SubParsersAction  # argparse has no public name for it


def command_line(
    package: str, description: str, examples: str
) -> tuple[argparse.ArgumentParser, _Commands[argparse.ArgumentParser]]:
    """The parser of `python -m PACKAGE COMMAND`, and what its commands are added to."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {package}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser, parser.add_subparsers(dest="command", required=True, metavar="COMMAND")


def add_several(parser: argparse._ActionsContainer, name: str, **options: Any) -> None:
    """Add an option of one or more values, which may also be given more than once."""
    options.setdefault("default", None if options.get("required") else [])
    parser.add_argument(name, action="extend", nargs="+", **options)


def add_flag(parser: argparse._ActionsContainer, name: str, help: str) -> None:
    """Add what is said or not, without a value."""
    parser.add_argument(name, action="store_true", help=help)
