"""What `python -m PACKAGE` says of itself, whichever package it is."""

from __future__ import annotations

import pytest

from conf.command_line import add_flag, add_several, command_line

pytestmark = pytest.mark.quick

EXAMPLES = """examples:
  python -m bakery bake rye      a loaf
"""


def test_the_help_shows_the_commands_and_the_examples_in_their_lines() -> None:
    parser, commands = command_line("bakery", "Bakes.", EXAMPLES)
    commands.add_parser("bake", help="one loaf")
    text = parser.format_help()
    assert text.startswith("usage: python -m bakery")
    assert "bake" in text
    assert "one loaf" in text
    assert text.endswith(EXAMPLES)


def test_without_a_command_it_ends_as_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    parser, _ = command_line("bakery", "Bakes.", EXAMPLES)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args([])
    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_a_flag_is_off_unless_it_is_given() -> None:
    parser, commands = command_line("bakery", "Bakes.", EXAMPLES)
    add_flag(commands.add_parser("bake"), "--no_salt", "leave the salt out")
    assert not parser.parse_args(["bake"]).no_salt
    assert parser.parse_args(["bake", "--no_salt"]).no_salt


def test_several_values_may_come_together_or_one_by_one() -> None:
    parser, commands = command_line("bakery", "Bakes.", EXAMPLES)
    add_several(commands.add_parser("bake"), "--loaves", type=int, help="of how many grams")
    assert parser.parse_args(["bake"]).loaves == []
    given = ["bake", "--loaves", "500", "750", "--loaves", "1000"]
    assert parser.parse_args(given).loaves == [500, 750, 1000]
    assert parser.parse_args(["bake"]).loaves == [], "nothing is left of the call before"
