"""Pool.numpy: what NumPy allocates by itself comes from the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from uswap._core import Core
from uswap._errors import BusyError
from uswap._heap import PoolHeap
from uswap._numpy_block import NumpyBlock, PoolBlock

if TYPE_CHECKING:
    from uswap.pool import Pool


class PoolNumpy:
    """A base of Pool."""

    _core: Core
    _heap: PoolHeap

    def numpy(self) -> NumpyBlock:
        """A context manager and decorator: the data of every array that NumPy makes inside comes from the pool,
        results and temporaries of ufuncs, sorts and reshapes included. docs/numpy.md says what is not.

        It holds for the thread, or the asyncio task, that enters it, and for tasks made inside; other threads enter
        it themselves, or see uswap.limit. Arrays may outlive the block and the pool's own: they go back to the pool
        from wherever they end. Blocks nest; the innermost is in force. An allocation that the pool has no swap
        space for is NumPy's MemoryError.

        Raises (when entered):
            NumpyMissingError: NumPy is not installed.
            UnsupportedError: oneTBB's allocator (`pip install tbb`), which has the small blocks, is missing.
            ClosedError, ForkError: the pool is closed, or not this process's.

        Example:
            >>> import numpy as np, uswap
            >>> with uswap.Pool(limit="64MiB") as pool, pool.numpy():
            ...     a = np.random.default_rng(1).random(1 << 24)      # 128 MiB
            ...     a.sort()
            ...     print((np.diff(a) >= 0).all(), pool.stats().peak_resident_bytes <= pool.limit)
            True True

            >>> pool = uswap.Pool(limit="64MiB")
            >>> @pool.numpy()
            ... def table(n):
            ...     return np.arange(n) * np.arange(n)[:, None]
            >>> int(table(3000).sum())                           # an int64 table of 72 MB
            20236502250000
        """
        return PoolBlock(cast("Pool", self))

    def _end_heaps(self) -> None:
        """Raises BufferError while arrays use them; nothing has changed then."""
        heaps = list(self._core.heaps.values())
        blocks = sum(heap.blocks for heap in heaps)
        try:
            if blocks == 0:
                for heap in heaps:
                    heap.end()
        except BusyError:
            blocks = sum(heap.blocks for heap in heaps)
        if blocks:
            raise BufferError(
                f"the pool is in use by NumPy arrays ({blocks} blocks; a module that was first imported inside "
                "pool.numpy() may have kept some)"
            )
