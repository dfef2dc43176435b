"""A lock that is taken without waiting, by a with statement.

``lock.acquire(blocking=False)`` has a place after it, before any ``try:``, where an exception of a signal handler
(KeyboardInterrupt, say) may come, and then nobody lets go of the lock. Where both ends of a with statement are
functions of C there is none.
"""

from __future__ import annotations

import functools
import threading
from contextlib import AbstractContextManager


def attempt(lock: threading.RLock) -> AbstractContextManager[bool]:
    """=> for ``with ... as mine``, which says whether the lock is this thread's inside; if not, RuntimeError comes
    at its end, and is to be dropped. As often as one likes."""
    ends = {
        "__enter__": staticmethod(functools.partial(lock.acquire, False)),
        "__exit__": staticmethod(lock.__exit__),
    }
    return type("Attempt", (), ends)()  # type: ignore[no-any-return]


def is_mine(lock: threading.RLock) -> bool:
    """Whether this thread has it."""
    return bool(lock._is_owned())  # type: ignore[attr-defined]  # what threading.Condition asks
