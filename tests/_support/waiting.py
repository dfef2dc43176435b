"""Waiting for what comes by itself, and tells nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable

# Against hangs only.
DEADLINE_SECONDS = 50.0
LOOK_SECONDS = 0.05


def await_that(what: Callable[[], bool]) -> None:
    """Looks until it is so. Raises AssertionError if it does not come."""
    pause = threading.Event()
    for _ in range(int(DEADLINE_SECONDS / LOOK_SECONDS)):
        if what():
            return
        pause.wait(LOOK_SECONDS)
    raise AssertionError("it has not come")
