"""os.fork with a live pool: until forked children can share swap, it is allowed, but said aloud. Not for named
pools: there a child has a way to the memory (uswap.reopen, and all that is unpickled)."""

from __future__ import annotations

import os
import warnings

from uswap._core import live_cores
from uswap._errors import UswapWarning


def _warn_before_fork() -> None:
    pid = os.getpid()
    mine = [core for core in live_cores if core.owner_pid == pid and not core.freed and core.group is None]
    if mine:
        warnings.warn(
            "os.fork() with a live uswap.Pool: the child cannot use the pool's memory, and is ended if it "
            "touches it; start processes with subprocess, or with multiprocessing's spawn method",
            UswapWarning,
            stacklevel=2,
        )


def register() -> None:
    """Called once, at import."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_warn_before_fork)
