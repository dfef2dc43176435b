"""The order in which mappings and the core's regions come and go.

A mapping belongs to Python (mmap.mmap), the region behind it to the core. Four rules keep them apart from
the mappings of everybody else in the process:

1. A private region is quiesced before its mapping goes: from then on the core moves no page by these addresses.
   (Nothing is moved by the addresses of a shared one.) Only then is it tried to unmap, because only mmap.close
   knows, at the moment it happens, whether something still exports the memory.
2. Between the unmapping and the end of the core's region, no new region may be made on the addresses that
   have just become free. One lock covers both; what the same thread makes in between (a finalizer may run at
   any point) looks into ``_leaving``. So does what gives a region other addresses (_resizing.py).
3. A finalizer never waits for that lock. What it cannot do at once it puts on ``_limbo``, and whoever has the
lock does it.
4. An exception may come at the very start of a finalizer (KeyboardInterrupt, after a long calculation whose result
takes the place of the mapping's last user). Then the mapping goes with nothing said, and the core would move pages
to and from addresses that are somebody else's. So each has a *guard*, which is the core's own code and comes after
the finalizer, before the unmapping (``guard``).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import mmap
import os
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

from uswap._core import Core, ffi, lib, logger
from uswap._errors import OutOfSpaceError, UswapError

# Not in the mmap module before Python 3.11; the same on x86-64 and aarch64. The core counts frames, not the
# kernel.
_MAP_NORESERVE = 0x4000
_PRIVATE = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0) | _MAP_NORESERVE

_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_new_capsule.restype = ctypes.py_object

if lib is not None:
    lib.uswap_guards_use(
        *(
            ffi.cast("void *", ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value)
            for name in ("PyCapsule_GetPointer", "PyEval_SaveThread", "PyEval_RestoreThread")
        )
    )

_lock = threading.RLock()
_leaving: list[ManagedMapping] = []
_limbo: deque[ManagedMapping] = deque()


class ManagedMapping(Protocol):
    """What is to be known here about a region (region.py)."""

    _core: Core
    _address: int
    _mapping_bytes: int
    # uint64_t[2]: the core's id, 0 as long as the core does not know it. The core itself writes it, so that
    # no exception (KeyboardInterrupt comes anywhere) can get between the core's knowing the region and ours. Then
    # the pool's address; 0: the region has ended.
    _id_cell: Any
    _guard: Any

    @property
    def closed(self) -> bool:
        """True once the mapping is gone."""

    def _unmap(self) -> None:
        """mmap.close: raises BufferError, and changes nothing, if something exports the memory."""

    def _quiesce(self) -> None:
        """The core lets the addresses alone. Raises UswapError."""

    def _resume(self) -> None:
        """Ends that: the mapping stays. Raises UswapError."""

    def _destroy(self) -> None:
        """The core forgets the region, whose mapping is gone. Raises UswapError."""

    def _forget(self) -> None:
        """So does the Core object."""


def map_fresh(kind: type[Any], size: int) -> Any:
    """An instance of kind (mmap.mmap or a child of it) on a fresh mapping, private and anonymous: of a file it
    would keep a descriptor, which forked children inherit, and the file's memory with it. Raises OutOfSpaceError:
    no address space. Context: inside locked()."""
    unusable = []
    while True:
        lib.uswap_map_directly(1)
        try:
            mapping = mmap.mmap.__new__(kind, -1, size, flags=_PRIVATE)
        except (OSError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno != errno.ENOMEM:
                raise
            raise OutOfSpaceError(
                f"no address space for a region of {size} bytes",
                operation="mmap",
                errno=errno.ENOMEM,
                hint="`ulimit -v` may bound it",
            ) from error
        finally:
            lib.uswap_map_directly(0)
        start = address_of(mapping)
        if not any(start < old._address + old._mapping_bytes and old._address < start + size for old in _leaving):
            return mapping
        unusable.append(mapping)  # kept until we have another: the kernel would offer the same addresses again


def address_of(mapping: Any) -> int:
    """The address of the first byte of an open mmap."""
    return int(ffi.cast("uintptr_t", ffi.from_buffer(mapping)))


def guard(region: ManagedMapping, core: Core, lost: str) -> Any:
    """=> a cell for region, which from now on has a guard: lost is the core's function.

    What is in the slots of an object goes after __del__, and before what mmap has. It is a capsule, because the
    collector finalizes all that it knows of, in any order, and __del__ may have taken the region back. A tuple goes
    from its end: so the memory that the guard looks at goes after it."""
    cell = ffi.new("uint64_t[2]")
    cell[1] = int(ffi.cast("uintptr_t", core.pointer))
    region._core = core
    region._id_cell = cell
    function = ffi.cast("uintptr_t", ffi.addressof(lib, lost))
    region._guard = (cell, _new_capsule(int(ffi.cast("uintptr_t", cell)), None, int(function)))
    return cell


def any_leaving() -> bool:
    """Whether this thread has been interrupted between the unmapping of a region and its end. Context: inside
    locked()."""
    return bool(_leaving)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Around the making and the ending of a region."""
    try:
        with _lock:
            yield
    finally:
        drain()


def leave(region: ManagedMapping) -> None:
    """Ends a region. Context: inside locked().

    Raises:
        BufferError: something exports the memory; nothing has changed.
        UswapError: the core refused to quiesce the region; nothing has changed.
    """
    region._quiesce()
    _leaving.append(region)
    try:
        region._unmap()
    finally:
        # Whether it was unmapped is what region.closed says, whatever exception has come in between.
        _settle(region)


def _settle(region: ManagedMapping) -> None:
    """What is left to do. It may be interrupted anywhere, and is done again then (drain)."""
    if region not in _leaving:
        return
    if not region.closed:
        region._resume()
        _leaving.remove(region)
        return
    try:
        region._destroy()
    except UswapError as error:  # stays quiesced: it leaks frames and slots, but harms nobody
        logger.error("a region could not be ended: %s", error)
    region._forget()
    with contextlib.suppress(ValueError):  # a finalizer that came in between has done it (drain)
        _leaving.remove(region)
    region._core.free_if_unused()


def leave_from_finalizer(region: ManagedMapping) -> None:
    """Ends a region that nobody refers to any more: now, or when the lock is free, or when its last export is
    gone."""
    _limbo.append(region)
    drain()


def drain(*_: object) -> None:
    """Ends the regions in limbo, as far as that is possible without waiting."""
    # After a failed try somebody else has the lock and comes by here when it lets go.
    while (_limbo or any(region.closed for region in _leaving)) and _lock.acquire(blocking=False):
        try:
            still_exported = _drain_once()
        finally:
            _lock.release()
        if still_exported:
            return


def _drain_once() -> bool:
    for region in [region for region in _leaving if region.closed]:  # an exception has come in between
        _settle(region)
    kept = []
    for _ in range(len(_limbo)):
        try:
            region = _limbo.popleft()
        except IndexError:
            break
        try:
            if not region.closed:
                leave(region)
        except BufferError:
            kept.append(region)
        except Exception as error:
            logger.error("a region could not be ended: %s", error)
            keep_for_ever(region)
    _limbo.extend(kept)
    return bool(kept)


def _after_collection(phase: str, _: dict[str, int]) -> None:
    # The collector runs the finalizer of a region in a garbage cycle before it frees what exports it.
    if phase == "stop" and _limbo:
        drain()


# What it needs is bound here: it is called while the interpreter ends, when the globals of this module may be
# gone.
def keep_for_ever(
    mapping: object, _take: Any = ctypes.pythonapi.Py_IncRef, _as_object: Any = ctypes.py_object
) -> None:
    """Leaks a reference: the mapping is never unmapped, also not at exit."""
    _take(_as_object(mapping))


def _reset_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    _leaving.clear()
    while _limbo:
        keep_for_ever(_limbo.popleft())


gc.callbacks.append(_after_collection)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_in_child)
