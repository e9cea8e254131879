"""Results of checks, as tests ask for them."""

from __future__ import annotations

from trainer.checks.run_checks import CheckResult


def status(results: list[CheckResult], wanted: str) -> set[str]:
    """The ids of the results of that status."""
    return {result.id for result in results if result.status == wanted}


def by_id(results: list[CheckResult]) -> dict[str, CheckResult]:
    """The results by id."""
    return {result.id: result for result in results}
