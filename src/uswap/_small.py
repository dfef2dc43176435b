"""Memory for small arrays: many share a region (a slab), because the kernel allows few mappings and a page is
4 KiB.

A slab is a buddy system: blocks are powers of two, a freed block joins its free neighbour, and a slab that is
one free block again is given back. Free and used blocks are known by offset only; nothing about them lies in
managed memory.

Blocks end in finalizers (the last array that uses them goes), which may interrupt any thread, also one in
this file. So a finalizer only notes the block; whoever holds the lock, or gets it without waiting, frees what
is noted. An exception of a signal handler may come at the very start of a finalizer; then the block's weak
reference notes it, by no code of Python's.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from uswap._attempt import attempt, is_mine
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
        self._used: dict[int, Use] = {}
        self._fresh_from = 0  # nothing at or above was ever handed out: zeroes

    @property
    def empty(self) -> bool:
        return not self._used

    def take(self, order: int, block: Block) -> bool:
        """=> whether there were 2**order bytes for block. An exception of a signal handler may come wherever a
        function is called or a loop goes on, so each of these halves is whole."""
        found = next((size for size in range(order, _SLAB_ORDER + 1) if self._free[size]), None)
        if found is None:
            return False
        offset = next(iter(self._free[found]))
        beyond = offset + (1 << order)
        while found > order:  # a free block becomes two
            free, smaller, half = self._free[found], self._free[found - 1], offset + (1 << (found - 1))
            del free[offset]
            smaller[offset] = smaller[half] = None
            found -= 1
        free, dirty = self._free[order], offset < self._fresh_from
        fresh_from = self._fresh_from if dirty else beyond
        use = Use(block, block._memory.unused.append)
        use.slab, use.offset, use.order = self, offset, order
        del free[offset]
        self._used[offset] = use
        self._fresh_from = fresh_from
        block._use = use
        block._dirty = dirty
        return True

    def give_back(self, offset: int) -> None:
        """A block is free again, if it is not yet."""
        if offset not in self._used:
            return
        order = self._used[offset].order
        free = self._free[order]
        del self._used[offset]
        free[offset] = None
        while order < _SLAB_ORDER and offset ^ (1 << order) in free:  # two free neighbours become one
            buddy, larger = offset ^ (1 << order), self._free[order + 1]
            del free[offset], free[buddy]
            offset &= buddy
            larger[offset] = None
            order += 1
            free = larger


class Use(weakref.ref["Block"]):
    """That a block has its place in a slab. It is noted by the block's finalizer, and once more at its end."""

    __slots__ = ("offset", "order", "slab")
    slab: Slab | None  # until the place is given back
    offset: int
    order: int


class Block:
    """A piece of a slab as NumPy wants it: an array made from it keeps it alive. Its end frees the piece."""

    __slots__ = ("__array_interface__", "__weakref__", "_dirty", "_memory", "_use")

    def __init__(self, memory: SmallMemory) -> None:
        """Of no slab yet: Slab.take."""
        self._memory = memory
        self._use: Use | None = None
        self._dirty = False

    def describe(self, size: int) -> None:
        """For NumPy: size bytes."""
        assert self._use is not None
        assert self._use.slab is not None
        self.__array_interface__ = {
            "version": 3,
            "shape": (size,),
            "typestr": "|u1",
            "data": (self._use.slab.region._address + self._use.offset, False),
        }

    def clean(self, size: int) -> None:
        """What was used before becomes zeroes."""
        if self._dirty and self._use is not None and self._use.slab is not None:
            self._use.slab.region[self._use.offset : self._use.offset + size] = bytes(size)

    def __del__(self) -> None:
        # An array is opaque to the garbage collector, so this never runs while one still uses the block.
        if self._use is not None:
            self._memory.unused.append(self._use)
            self._memory.settle()


class SmallMemory:
    """The slabs of a pool. Thread-safe."""

    def __init__(self, core: Core) -> None:
        self._core = core
        _all.add(self)
        self._lock = threading.RLock()  # whoever has it already interrupts himself, and stays out
        self._attempt = attempt(self._lock)
        self._slabs: list[Slab] = []
        self.unused: deque[Use] = deque()  # more than once, it may be

    def allocate(self, size: int) -> Block | Region:
        """size bytes (1 to SMALL_BYTES) of zeroes. Raises as make_region does."""
        self._core.check_process()
        if is_mine(self._lock):
            # A finalizer has interrupted this very thread in here, and makes an array: that one shares
            # nothing.
            return make_region(self._core, size, "")
        order = max((size - 1).bit_length(), _LEAST_ORDER)
        with self._lock:
            self._free_noted()
            block = Block(self)
            self._take(order, block)
        self.settle()
        block.describe(size)
        block.clean(size)
        return block

    # What it needs is bound here: arrays also end while the interpreter does, when this module's globals may
    # be gone.
    def settle(self, _is_mine: Callable[[Any], bool] = is_mine) -> None:
        """Frees the blocks that are noted, unless somebody is inside, who then comes by here afterwards."""
        mine = not _is_mine(self._lock)
        while mine and self.unused:
            try:
                with self._attempt as mine:
                    if mine:
                        self._free_noted()
            except RuntimeError:
                if mine:
                    raise

    def _take(self, order: int, block: Block) -> None:
        if any(slab.take(order, block) for slab in self._slabs):
            return
        slab = Slab(make_region(self._core, SLAB_BYTES, "small arrays"))
        slab.take(order, block)
        self._slabs.insert(0, slab)

    def _free_noted(self) -> None:
        while self.unused:
            use = self.unused[0]  # it goes last: an interrupted one is done again
            if use.slab is not None:
                use.slab.give_back(use.offset)
                if use.slab.empty and use.slab in self._slabs:
                    # With the last reference to the slab its region ends, in the region's own finalizer.
                    self._slabs.remove(use.slab)
                use.slab = None
            self.unused.popleft()


_all: weakref.WeakSet[SmallMemory] = weakref.WeakSet()
_kept: list[SmallMemory] = []


def _before_fork() -> None:
    """A forked child is to find no slab half changed."""
    for memory in list(_all):
        if not is_mine(memory._lock):
            _kept.append(memory)
            memory._lock.acquire()


def _after_fork() -> None:
    while _kept:
        memory = _kept.pop()
        if is_mine(memory._lock):  # the wait for it may have been interrupted
            memory._lock.release()


def _in_child() -> None:
    _after_fork()
    for memory in list(_all):
        if not is_mine(memory._lock):
            memory._lock._at_fork_reinit()  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
