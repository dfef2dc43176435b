"""A pool's heap: the memory behind the arrays that NumPy makes inside ``with pool.numpy()``.

The core's heap serves NumPy without Python; here is how it begins and ends. Each array refers to the heap's
capsule, and so does each context that has it as its handler; the heap itself refers to it until the pool closes.
With the last of these the capsule ends, and the heap with it. Nothing here takes a lock: that end may come at any
point of any thread.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import site
import sys
from pathlib import Path
from typing import Any

from uswap import _sigbus
from uswap._core import Core, check_error, ffi, lib, new_error
from uswap._errors import BusyError, ClosedError, UnsupportedError
from uswap._numpy_handler import make_capsule

_LIBRARY = "libtbbmalloc.so.2"
_REGIONS = 16384
_refer = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(("Py_IncRef", ctypes.pythonapi))
NAME = "NumPy arrays"


def _library_places() -> list[str]:
    """Where oneTBB's allocator may lie, best first."""
    asked = os.environ.get("USWAP_TBBMALLOC")
    if asked:
        return [asked]
    folders = [Path(sys.prefix), Path(sys.base_prefix), Path(site.getuserbase())]
    found = [path for folder in folders if (path := folder / "lib" / _LIBRARY).exists()]
    return [*map(str, found), _LIBRARY]


def load_small_allocator() -> None:
    """Raises UnsupportedError if there is none on this machine."""
    error = new_error()
    reasons = []
    for place in _library_places():
        if lib.uswap_heap_load(place.encode(), error) == 0:
            return
        reasons.append(ffi.string(error.detail).decode("utf-8", "replace"))
    raise UnsupportedError(
        f"NumPy's allocations need oneTBB's allocator, which cannot be loaded: {'; '.join(reasons)}",
        hint="pip install tbb, or apt install libtbbmalloc2; $USWAP_TBBMALLOC may name the library",
    )


class Heap:
    """Blocks of any size in a pool. Thread-safe.

    Attributes:
        pointer: the uswap_heap *, valid as long as this object.
        capsule: what NumPy takes as a handler; None: the pool is closing, and others may still have it.
    """

    def __init__(self, core: Core) -> None:
        load_small_allocator()
        if core.inline:
            _sigbus.guard()
        stats, out, error = ffi.new("uswap_stats *"), ffi.new("uswap_heap **"), new_error()
        core.call(lib.uswap_pool_stats, stats)
        call = core.enter()
        try:
            if core.closing:
                raise ClosedError("the pool is closed to new arrays")
            result = lib.uswap_heap_create(call.pointer, NAME.encode(), stats.limit_bytes, out, error)
            check_error(int(result), error)
            self.pointer = out[0]
            self.core = core
            self._over = False
            self.capsule = make_capsule(lib.uswap_heap_numpy_handler(self.pointer), self._capsule_gone)
            self.capsule_address = id(self.capsule)
            core.heaps[id(self)] = self
        finally:
            core.leave(call)
        _all[id(self)] = self

    @property
    def blocks(self) -> int:
        """How many are in use."""
        return int(lib.uswap_heap_blocks(self.pointer))

    def let_go(self) -> None:
        """The pool closes: no new arrays; the heap ends with the last one there is."""
        lib.uswap_heap_refuse(self.pointer)
        self.capsule = None

    def end(self) -> None:
        """Gives all memory back. Raises BusyError while arrays use it."""
        error = new_error()
        check_error(int(lib.uswap_heap_end(self.pointer, error)), error)
        self.core.heaps.pop(id(self), None)
        self.capsule = None

    def _capsule_gone(self) -> None:
        self.capsule = None
        _ending[id(self)] = self
        settle()

    def settle(self) -> bool:
        """After the end of the capsule: ends the heap. => False: blocks are in use that came from it without the
        capsule, by the default handler (limiting.py)."""
        try:
            self.end()
        except BusyError:
            return False
        if _ending.pop(id(self), None) is not None:  # and nobody else does it
            self._over = True
            _all.pop(id(self), None)
            self.core.free_if_unused()
        return True

    # Others may just be looking at it: the structure goes with the last reference.
    def __del__(self, _forget: Any = None if lib is None else lib.uswap_heap_forget) -> None:
        if getattr(self, "_over", False):
            _forget(self.pointer)

    def regions(self) -> list[int]:
        """The core's ids of the regions behind it."""
        ids = ffi.new("uint64_t[]", _REGIONS)
        return list(ids[0 : int(lib.uswap_heap_regions(self.pointer, ids, _REGIONS))])


_all: dict[int, Heap] = {}
_ending: dict[int, Heap] = {}


def settle(*_: object) -> None:
    """Ends the heaps whose capsules are gone, as far as no block of theirs is in use."""
    for heap in list(_ending.values()):
        heap.settle()


def _after_collection(phase: str, _: dict[str, int]) -> None:
    if phase == "stop" and _ending:
        settle()


def _keep_at_exit() -> None:
    """Arrays also end while the interpreter does, when no Python code can run any more: nothing is to end then."""
    for heap in list(_all.values()):
        if id(heap) not in _ending:
            _refer(heap.capsule_address)


gc.callbacks.append(_after_collection)
atexit.register(_keep_at_exit)


class PoolHeap:
    """The heap of a pool, made when it is first needed. Thread-safe, without a lock that a fork could leave
    held."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._made: dict[None, Heap] = {}

    def get(self) -> Heap:
        """Raises NumpyMissingError, UnsupportedError, ClosedError, ForkError, OutOfSpaceError."""
        self._core.check_process()
        if self._core.closing:
            raise ClosedError("the pool is closed to new arrays")
        heap = self._made.get(None)
        if heap is None:
            fresh = Heap(self._core)
            heap = self._made.setdefault(None, fresh)
            if heap is not fresh or self._core.closing:  # another thread was quicker, or has closed the pool
                fresh.let_go()
        return heap
