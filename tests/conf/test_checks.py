"""The table of what is looked at before training."""

import pytest

from conf.checks import CHECKS, GREPS, SEVEN

pytestmark = pytest.mark.quick


def test_every_check_asks_says_why_and_how_to_mend_it() -> None:
    for id, check in CHECKS.items():
        assert check.id == id
        assert check.question.endswith("?"), id
        assert check.why.endswith("."), id
        assert check.mend.endswith("."), id


def test_the_source_documents_steps_come_first_and_six_have_a_command() -> None:
    """The seventh looks at the command line, which no file holds."""
    assert list(CHECKS)[: len(SEVEN)] == list(SEVEN)
    assert list(GREPS) == list(SEVEN[:6])
    assert all("{file}" in command for command in GREPS.values())


def test_the_first_steps_need_the_configuration_alone() -> None:
    assert {CHECKS[id].part for id in SEVEN} == {"config"}
