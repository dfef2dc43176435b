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
    Unfit(SANITIZED, ("tests/unit/test_variants.py",), "it sets up sanitizers itself"),
    Unfit(
        SANITIZED,
        (
            "tests/integration/test_run.py",
            "tests/integration/test_run_forks.py",
            "tests/integration/test_run_more.py",
            "tests/integration/test_run_report.py",
            "tests/integration/test_run_shared.py",
            "tests/integration/test_run_edges.py",
        ),
        "a build with a sanitizer has no library for `uswap run`",
    ),
    Unfit(
        ("tsan",),
        ("tests/integration/test_shared_tables.py",),
        "its processes share memory, which ThreadSanitizer does not follow, and are forked hundreds of times, "
        "which takes longer with it than the test has",
    ),
    Unfit(
        ("tsan",),
        (
            "tests/integration/test_shared_resize.py::test_more_than_there_is_room_for_is_refused_and_changes_nothing",
        ),
        "it wants the error of the last step, and ThreadSanitizer leaves too little address space to get there",
    ),
    Unfit(
        SANITIZED,
        (
            "tests/integration/test_limit.py",
            "tests/integration/test_numpy_allocator.py::test_arrays_of_four_times_the_limit",
            "tests/integration/test_fork_snapshots.py::test_forks_in_a_loop_under_load",
            "tests/unit/test_long_benchmarks.py::test_memory_of_processes_is_sampled",
        ),
        "memory is measured from outside, where the sanitizer's own shows too",
    ),
    Unfit(
        SANITIZED,
        ("tests/integration/test_encrypt.py::test_moving_pages_allocates_nothing_and_takes_no_library_lock",),
        "it preloads a library of its own, in the place of the sanitizer's, to see calls that the sanitizer makes",
    ),
)


def reason_for(variant: str, test: str) -> str | None:
    """Why this test does not run in that variant; None: it does."""
    for unfit in UNFIT:
        if variant in unfit.variants and test.startswith(unfit.tests):
            return unfit.reason
    return None
