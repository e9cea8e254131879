"""Run every attack and say how many were tried and survived.

    python -m tests.attacks [arguments of pytest]

An attack is a test marked `attack`, which stands with the tests of the module that it is aimed at.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Count:
    """Outcomes of the tests; one that did not come to its end in all three phases has failed."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take note; pytest calls this."""
        if report.outcome != "passed" or report.nodeid not in self.outcomes:
            self.outcomes[report.nodeid] = report.outcome

    def __str__(self) -> str:
        of = Counter(self.outcomes.values())
        lines = [
            f"gave way: {name}" for name, outcome in self.outcomes.items() if outcome == "failed"
        ]
        tried = f"attacks tried: {of.total() - of['skipped']}, survived: {of['passed']}"
        skipped = f", left out for want of a tool: {of['skipped']}" if of["skipped"] else ""
        return "\n".join([*lines, tried + skipped])


def main(arguments: list[str]) -> int:
    """Run them; pytest's exit code."""
    count = Count()
    status = pytest.main([str(ROOT / "tests"), "-q", "-m", "attack", *arguments], plugins=[count])
    print(count)
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
