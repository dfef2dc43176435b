"""Failpoints and sync points of the core, from Python."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator

from uswap._core import check_error, ffi, lib, new_error


class Action(enum.IntEnum):
    """uswap_fail_action."""

    ERROR = 1
    DELAY = 2
    STOP = 3
    KILL = 4
    FLIP = 5
    FREEZE = 6


def names() -> list[str]:
    """All failpoints."""
    found: list[str] = []
    while (name := lib.uswap_failpoint_name(len(found))) != ffi.NULL:
        found.append(ffi.string(name).decode())
    return found


def hits(name: str) -> int:
    """How often name was passed since it was set."""
    error = new_error()
    return check_error(lib.uswap_failpoint_hits(name.encode(), error), error)


def set_failpoint(name: str, action: Action | int, argument: int = 0, *, nth: int = 1, every: bool = False) -> None:
    """From now on, until the process ends."""
    error = new_error()
    check_error(lib.uswap_failpoint_set(name.encode(), int(action), argument, nth, every, error), error)


@contextlib.contextmanager
def armed(name: str, action: Action, argument: int = 0, *, nth: int = 1, every: bool = False) -> Iterator[None]:
    """Inside the block the failpoint is set; at its end threads it holds are let go."""
    error = new_error()
    check_error(lib.uswap_failpoint_set(name.encode(), action, argument, nth, every, error), error)
    try:
        yield
    finally:
        check_error(lib.uswap_failpoint_set(name.encode(), 0, 0, 0, 0, error), error)


def await_stopped(name: str, timeout_seconds: float = 30) -> None:
    """Returns when a thread is held at the sync point."""
    error = new_error()
    there = check_error(lib.uswap_syncpoint_wait(name.encode(), int(timeout_seconds * 1e9), error), error)
    assert there, f"no thread came to {name} within {timeout_seconds} s"


def release(name: str) -> None:
    """Lets the threads held at the sync point go."""
    error = new_error()
    check_error(lib.uswap_syncpoint_release(name.encode(), error), error)
