"""A plugin of pytest: the whole process has a limit (uswap.limit) while other people's tests run.

    PYTHONPATH=tests python -m pytest -p _support.numpy_everywhere --pyargs numpy._core.tests.test_multiarray

$USWAP_EVERYWHERE is the limit, 64MiB if nothing is said. At the end it prints what the pool has done.
"""

from __future__ import annotations

import os
from typing import Any

import uswap

EVERYWHERE = uswap.limit(os.environ.get("USWAP_EVERYWHERE", "64MiB"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line."""
    stats = EVERYWHERE.pool.stats()
    EVERYWHERE.pool.check()
    terminalreporter.write_line(
        f"uswap: limit {stats.limit_bytes >> 20} MiB, peak {stats.peak_resident_bytes >> 20} MiB, "
        f"{stats.faults} faults, {stats.pages_in} pages in, {stats.pages_out} out, "
        f"{stats.over_limit_events} times over the limit"
    )
