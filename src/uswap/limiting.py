"""uswap.limit: a limit for what NumPy allocates, in a block, in a function, or in the whole process."""

from __future__ import annotations

import os
import threading
import warnings
from typing import Any, ClassVar

from uswap._core import ffi, lib
from uswap._errors import ClosedError, UswapWarning
from uswap._heap import Heap, load_small_allocator
from uswap._numpy_block import Function, NumpyBlock
from uswap._numpy_handler import numpy_api
from uswap._options import SwapSpec, checked_limit
from uswap.pool import Pool

# Around changes of whose limit is the process's, and of a limit's pool. Never held over anything that runs other
# code of the program but the making of a pool.
_lock = threading.RLock()


class limit(NumpyBlock):
    """A pool of its own for the data of NumPy arrays: limit, swap and other options as for Pool.

    Three ways to use it:

    - ``with uswap.limit("2GiB"):`` for a block, in this thread or asyncio task (as Pool.numpy); => the pool.
    - ``@uswap.limit("2GiB")`` for each call of a function, or await of a coroutine function.
    - ``uswap.limit("2GiB")`` as a statement, for the whole process: all threads, from now on, wherever no block
      says otherwise. What it returns has end().

    Entries of one limit that overlap (recursion, several threads in a decorated function) share its pool, and so
    the limit; the pool ends with the last of them, and its memory with the last array. Limits nest: the innermost
    is in force, and each is for itself.

    A process has one limit of its own at a time. While it has, another ``uswap.limit(...)`` as a mere statement
    does nothing, and says so by a UswapWarning; change the first one by ``.pool.limit``.

    Raises:
        ValueError, TypeError, LimitError and all else that Pool raises; at once, or when entered.
        NumpyMissingError, UnsupportedError: as Pool.numpy, at once.

    Thread-safe.

    Example:
        >>> import numpy as np, uswap
        >>> with uswap.limit("64MiB") as pool:
        ...     a = np.arange(1 << 24) % 1000                    # 128 MiB, and as much for a moment
        ...     print(int(a.sum()), pool.stats().peak_resident_bytes <= pool.limit)
        8380134720 True

        >>> @uswap.limit("64MiB")
        ... def norm(n):
        ...     return float(np.linalg.norm(np.ones((n, n))))
        >>> norm(3000)
        3000.0

        For the whole process:

        >>> everywhere = uswap.limit("64MiB")
        >>> a = np.ones(1 << 24)
        >>> everywhere.pool.stats().managed_bytes >= a.nbytes
        True
        >>> everywhere.end()
    """

    _process: ClassVar[limit | None] = None

    def __init__(self, limit: int | str | None = None, *, swap: SwapSpec = None, **options: Any) -> None:
        self._pool: Pool | None = None
        self._entries = 0
        self._unused = False  # made, and without any effect so far
        numpy_api()
        load_small_allocator()
        if limit is not None and limit != "auto":
            checked_limit(limit)
        self._arguments = {"limit": limit, "swap": swap, **options}
        with _lock:
            if type(self)._process is None:
                self._be_everywhere()
            else:
                self._unused = True

    @property
    def pool(self) -> Pool:
        """The pool in force. Raises ClosedError outside the block, and after end()."""
        pool = self._pool
        if pool is None:
            raise ClosedError("this limit is not in force", hint="its pool exists inside the block or the function")
        return pool

    def end(self) -> None:
        """Ends a limit of the whole process: NumPy allocates from now on as without. Arrays that exist stay, and
        stay under the limit. Ending twice is no error."""
        with _lock:
            self._be_nowhere()
            self._give_up_pool()

    # ---- the whole process ---------------------------------------------------------------------------------------

    def _be_everywhere(self) -> None:
        """Context: the lock."""
        self._pool = Pool(**self._arguments)
        lib.uswap_heap_everywhere(ffi.cast("void *", numpy_api().default), self._pool._heap.get().pointer)
        type(self)._process = self

    def _be_nowhere(self) -> None:
        """It is no limit of the process (any more). Context: the lock."""
        if type(self)._process is self:
            lib.uswap_heap_everywhere(ffi.cast("void *", numpy_api().default), ffi.NULL)
            type(self)._process = None

    def _give_up_pool(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.__exit__()

    # ---- a block, a function -------------------------------------------------------------------------------------

    def _begin(self) -> tuple[Pool, Heap]:
        with _lock:
            self._unused = False
            self._be_nowhere()
            if self._pool is None:
                self._pool = Pool(**self._arguments)
            heap = self._pool._heap.get()
            self._entries += 1
            return self._pool, heap

    def _end(self) -> None:
        with _lock:
            self._entries -= 1
            if self._entries == 0:
                self._give_up_pool()

    def __call__(self, function: Function) -> Function:
        with _lock:
            self._unused = False
            self._be_nowhere()
            self._give_up_pool()
        return super().__call__(function)

    def __del__(self) -> None:
        if getattr(self, "_unused", False):
            warnings.warn(
                "uswap.limit(...) has done nothing: this process has a limit already, and this one was not used "
                "for a block or a function; a live limit is changed by its .pool.limit",
                UswapWarning,
                stacklevel=2,
            )


def _in_child() -> None:
    """Another thread may have held it, which is not in this process."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
