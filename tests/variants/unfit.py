"""What of the suite does not run in a variant, and why.

Each entry: the variants, how the names of the tests begin, the reason. conftest.py leaves these out, and pytest
says how many.
"""

from __future__ import annotations

from typing import NamedTuple


class Unfit(NamedTuple):
    """Tests that a variant cannot run."""

    variants: tuple[str, ...]
    tests: tuple[str, ...]
    reason: str


SANITIZED = ("asan", "tsan", "leaks")

UNFIT: tuple[Unfit, ...] = (
    Unfit(SANITIZED, ("tests/unit/test_c_parts.py",), "its programs are compiled with both sanitizers anyway"),
)


def reason_for(variant: str, test: str) -> str | None:
    """Why this test does not run in that variant; None: it does."""
    for unfit in UNFIT:
        if variant in unfit.variants and test.startswith(unfit.tests):
            return unfit.reason
    return None
