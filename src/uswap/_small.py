"""Memory for small arrays: many share a region (a slab), because the kernel allows few mappings and a page is
4 KiB.

A slab is a buddy system: blocks are powers of two, a freed block joins its free neighbour, and a slab that is
one free block again is given back. Free and used blocks are known by offset only; nothing about them lies in
managed memory.

Blocks end in finalizers (the last array that uses them goes), which may interrupt any thread, also one in
this file. So a finalizer only notes the block; whoever holds the lock, or gets it without waiting, frees what
is noted.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable

from uswap._core import Core
from uswap.region import Region, make_region

SLAB_BYTES = 4 * 1024 * 1024
# Smaller arrays share slabs; larger ones have a region each.
SMALL_BYTES = 256 * 1024
# The least block: a cache line, which is also more alignment than any dtype wants.
_LEAST_ORDER = 6
_SLAB_ORDER = SLAB_BYTES.bit_length() - 1


class Slab:
    """A region cut into blocks. Context: the lock of its SmallMemory."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self._free: list[dict[int, None]] = [{} for _ in range(_SLAB_ORDER + 1)]
        self._free[_SLAB_ORDER][0] = None
        self._used: dict[int, int] = {}
        self._fresh_from = 0  # nothing at or above was ever handed out: zeroes

    @property
    def empty(self) -> bool:
        return not self._used

    def take(self, order: int) -> tuple[int, bool] | None:
        """=> (offset of a block of 2**order bytes, whether it was used before); None if there is none."""
        found = next((size for size in range(order, _SLAB_ORDER + 1) if self._free[size]), None)
        if found is None:
            return None
        offset, _ = self._free[found].popitem()
        for size in range(found - 1, order - 1, -1):
            self._free[size][offset + (1 << size)] = None
        self._used[offset] = order
        dirty = offset < self._fresh_from
        self._fresh_from = max(self._fresh_from, offset + (1 << order))
        return offset, dirty

    def give_back(self, offset: int) -> None:
        """A block is free again."""
        order = self._used.pop(offset)
        while order < _SLAB_ORDER:
            buddy = offset ^ (1 << order)
            if buddy not in self._free[order]:
                break
            del self._free[order][buddy]
            offset = min(offset, buddy)
            order += 1
        self._free[order][offset] = None


class Block:
    """A piece of a slab as NumPy wants it: an array made from it keeps it alive. Its end frees the piece."""

    __slots__ = ("__array_interface__", "_memory", "_offset", "_slab")

    def __init__(self, memory: SmallMemory, slab: Slab, offset: int, size: int) -> None:
        self._memory = memory
        self._slab = slab
        self._offset = offset
        self.__array_interface__ = {
            "version": 3,
            "shape": (size,),
            "typestr": "|u1",
            "data": (slab.region._address + offset, False),
        }

    def __del__(self) -> None:
        # An array is opaque to the garbage collector, so this never runs while one still uses the block.
        self._memory.note_unused(self._slab, self._offset)


class SmallMemory:
    """The slabs of a pool. Thread-safe."""

    def __init__(self, core: Core) -> None:
        self._core = core
        _all.add(self)
        self._lock = threading.Lock()
        self._inside: set[int] = set()  # threads that have the lock or wait for it
        self._slabs: list[Slab] = []
        self._unused: deque[tuple[Slab, int]] = deque()

    def allocate(self, size: int) -> Block | Region:
        """size bytes (1 to SMALL_BYTES) of zeroes. Raises as make_region does."""
        self._core.check_process()
        thread = threading.get_ident()
        if thread in self._inside:
            # A finalizer has interrupted this very thread in here, and makes an array: that one shares
            # nothing.
            return make_region(self._core, size, "")
        order = max((size - 1).bit_length(), _LEAST_ORDER)
        self._inside.add(thread)
        try:
            with self._lock:
                self._free_noted()
                slab, offset, dirty = self._take(order)
                block = Block(self, slab, offset, size)
        finally:
            self._inside.discard(thread)
        self.settle()
        if dirty:
            slab.region[offset : offset + size] = bytes(size)
        return block

    def note_unused(self, slab: Slab, offset: int) -> None:
        """A block's last user is gone. Never waits."""
        self._unused.append((slab, offset))
        self.settle()

    # What it needs is bound here: arrays also end while the interpreter does, when this module's globals may
    # be gone.
    def settle(self, _thread_id: Callable[[], int] = threading.get_ident) -> None:
        """Frees the blocks that are noted, unless somebody is inside, who then comes by here afterwards."""
        thread = _thread_id()
        interrupted = thread in self._inside
        while self._unused and not interrupted and self._lock.acquire(blocking=False):
            self._inside.add(thread)
            try:
                self._free_noted()
            finally:
                self._lock.release()
                self._inside.discard(thread)

    def _take(self, order: int) -> tuple[Slab, int, bool]:
        for slab in self._slabs:
            taken = slab.take(order)
            if taken is not None:
                return slab, *taken
        slab = Slab(make_region(self._core, SLAB_BYTES, "small arrays"))
        self._slabs.insert(0, slab)
        taken = slab.take(order)
        assert taken is not None
        return slab, *taken

    def _free_noted(self) -> None:
        while self._unused:
            slab, offset = self._unused.popleft()
            slab.give_back(offset)
            if slab.empty:
                # With the last reference to the slab its region ends, in the region's own finalizer.
                self._slabs.remove(slab)


_all: weakref.WeakSet[SmallMemory] = weakref.WeakSet()
_kept: list[SmallMemory] = []


def _before_fork() -> None:
    """A forked child is to find no slab half changed."""
    for memory in list(_all):
        if threading.get_ident() not in memory._inside:
            memory._lock.acquire()
            _kept.append(memory)


def _after_fork() -> None:
    while _kept:
        _kept.pop()._lock.release()


def _in_child() -> None:
    for memory in _all:
        memory._inside &= {threading.get_ident()}
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
