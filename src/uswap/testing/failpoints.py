"""Failpoints and sync points of the core, from Python: only in a build with USWAP_FAILPOINTS=1 (`make build-test`).

A *failpoint* is a named place in the core where a step can be made to fail, to wait, or to end the process; one
that stops a thread until it is let go is a *sync point*. csrc/base/failpoint.h lists them all.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from typing import Any

from uswap._core import check_error, ffi, lib, new_error


class Action(enum.IntEnum):
    """What happens at a failpoint: uswap_fail_action."""

    ERROR = 1  #: the step fails with the errno that is the argument
    DELAY = 2  #: it takes so many microseconds longer
    STOP = 3  #: the thread is held until release()
    KILL = 4  #: the process is killed
    FLIP = 5  #: that bit of the data is flipped
    FREEZE = 6  #: the process is stopped, as by SIGSTOP


def built() -> bool:
    """Whether this build of the core has failpoints.

    Example:
        >>> from uswap.testing import failpoints
        >>> failpoints.built() in (True, False)
        True
    """
    return bool(lib.uswap_failpoints_built())


def names() -> list[str]:
    """All failpoints, also where they are not built in.

    Example:
        >>> "page_out.written" in names()
        True
    """
    found: list[str] = []
    while (name := lib.uswap_failpoint_name(len(found))) != ffi.NULL:
        found.append(ffi.string(name).decode())
    return found


def hits(name: str) -> int:
    """How often name was passed since it was set. Raises ArgumentError: there is none; UnsupportedError: not built
    in."""
    error = new_error()
    return check_error(lib.uswap_failpoint_hits(name.encode(), error), error)


def set_failpoint(name: str, action: Action | int, argument: int = 0, *, nth: int = 1, every: bool = False) -> None:
    """From now on, until clear or until the process ends, the nth thread to pass name has the action done to it;
    every: all from the nth on. Raises as hits."""
    error = new_error()
    check_error(lib.uswap_failpoint_set(name.encode(), int(action), argument, nth, every, error), error)


def set_for_page(name: str, action: Action, argument: int, region: Any, page: int) -> None:
    """The same for all threads from now on, but only where what they do is for that page of a private region:
    page_in.one, page_in.hash, page_out.one. Raises as hits."""
    error = new_error()
    found = lib.uswap_failpoint_set_page(name.encode(), int(action), argument, region._id_cell[0], page, error)
    check_error(found, error)


def clear(name: str) -> None:
    """Nothing happens at name any more; threads that are held there go on. Raises as hits."""
    error = new_error()
    check_error(lib.uswap_failpoint_set(name.encode(), 0, 0, 0, 0, error), error)


@contextlib.contextmanager
def armed(name: str, action: Action, argument: int = 0, *, nth: int = 1, every: bool = False) -> Iterator[None]:
    """Inside the block the failpoint is set; at its end threads it holds are let go. Raises as hits."""
    set_failpoint(name, action, argument, nth=nth, every=every)
    try:
        yield
    finally:
        clear(name)


@contextlib.contextmanager
def armed_for_page(name: str, action: Action, argument: int, region: Any, page: int) -> Iterator[None]:
    """Inside the block the failpoint is set, for that page alone. Raises as hits."""
    set_for_page(name, action, argument, region, page)
    try:
        yield
    finally:
        clear(name)


def is_held(name: str) -> bool:
    """Whether a thread is held there now. Raises as hits."""
    error = new_error()
    return bool(check_error(lib.uswap_syncpoint_wait(name.encode(), 0, error), error))


def await_stopped(name: str, timeout_seconds: float = 30) -> None:
    """Returns when a thread is held at the sync point. Raises AssertionError: none came in time."""
    error = new_error()
    there = check_error(lib.uswap_syncpoint_wait(name.encode(), int(timeout_seconds * 1e9), error), error)
    assert there, f"no thread came to {name} within {timeout_seconds} s"


def release(name: str) -> None:
    """Lets the threads held at the sync point go. Raises as hits."""
    error = new_error()
    check_error(lib.uswap_syncpoint_release(name.encode(), error), error)


def clear_all() -> None:
    """Nothing happens at any of them."""
    lib.uswap_failpoints_reset()
