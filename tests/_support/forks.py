"""For programs that fork with a live pool: children that say how they ended, and what is to be exact afterwards."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

import uswap


def child(work: Callable[[], object]) -> int:
    """Forks a child that does work and ends: with 0 if nothing was raised. => its pid."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    return pid


def end_of(pid: int) -> int:
    """How the child ended; a signal is negative."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def await_true(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Returns when it is."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.01)


def await_alone(pool: uswap.Pool) -> None:
    """Returns when nothing is lent to children any more. Then Pool.check counts each used slot as one page's."""
    await_true(lambda: pool.stats().swap_lent_bytes == 0, "slots come back")


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional set size of all that are alive."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        total += next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)
    return total << 10
