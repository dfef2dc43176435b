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
import errno
import gc
import mmap
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

from uswap._attempt import attempt
from uswap._core import Core, capsule, ffi, keep_for_ever, lib, logger
from uswap._errors import OutOfSpaceError, UswapError

# Not in the mmap module before Python 3.11; the same on x86-64 and aarch64. The core counts frames, not the
# kernel.
_MAP_NORESERVE = 0x4000
_PRIVATE = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0) | _MAP_NORESERVE

_lock = threading.RLock()
_attempt = attempt(_lock)
_leaving: dict[ManagedMapping, weakref.ref[_Step]] = {}  # who is at it
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
    region._guard = cell, capsule(cell, lost)
    return cell


def any_leaving() -> bool:
    """Whether this code interrupts the end of a region, in this very thread. Context: inside locked()."""
    _settle_interrupted()
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
    step = _Step()
    _leaving[region] = weakref.ref(step)
    try:
        region._quiesce()
        region._unmap()
    finally:
        # Whether it was unmapped is what region.closed says, whatever exception has come in between.
        _settle(region)


class _Step:
    """Somebody is ending a region as long as this lives, which only his frame refers to."""

    __slots__ = ("__weakref__",)


def _interrupted() -> list[ManagedMapping]:
    """Those whose end an exception has cut off, or interrupts this very moment."""
    return [region for region, step in list(_leaving.items()) if region.closed or step() is None]


def _settle_interrupted() -> None:
    for region in _interrupted():
        _settle(region)


def _settle(region: ManagedMapping) -> None:
    """What is left to do. It may be interrupted anywhere, and is done again then (drain)."""
    if region not in _leaving:
        return
    if not region.closed:
        with contextlib.suppress(UswapError):  # then it has not been quiesced either
            region._resume()
        _leaving.pop(region, None)
        return
    try:
        region._destroy()
    except UswapError as error:  # stays quiesced: it leaks frames and slots, but harms nobody
        logger.error("a region could not be ended: %s", error)
    region._forget()
    _leaving.pop(region, None)
    region._core.free_if_unused()


def leave_from_finalizer(region: ManagedMapping) -> None:
    """Ends a region that nobody refers to any more: now, or when the lock is free, or when its last export is
    gone."""
    _limbo.append(region)
    drain()


def drain(*_: object) -> None:
    """Ends the regions in limbo, as far as that is possible without waiting."""
    mine, still_exported = True, False
    # After a failed try somebody else has the lock and comes by here when it lets go.
    while mine and not still_exported and (_limbo or _interrupted()):
        try:
            with _attempt as mine:
                still_exported = mine and _drain_once()
        except RuntimeError:
            if mine:
                raise


def _drain_once() -> bool:
    _settle_interrupted()
    kept = False
    for _ in range(len(_limbo)):
        try:
            region = _limbo.popleft()
        except IndexError:
            break
        try:
            if not region.closed:
                leave(region)
        except BufferError:
            _limbo.append(region)
            kept = True
        except UswapError as error:
            logger.error("a region could not be ended: %s", error)
            keep_for_ever(region)
    return kept


def _after_collection(phase: str, _: dict[str, int]) -> None:
    # The collector runs the finalizer of a region in a garbage cycle before it frees what exports it.
    if phase == "stop" and _limbo:
        drain()


def after_fork() -> None:
    """In a forked child, after its pools go on: what was in limbo ends here too, where it is the child's."""
    for region in [region for region in list(_limbo) if region._core.owner_pid != os.getpid()]:
        keep_for_ever(region)
        with contextlib.suppress(ValueError):
            _limbo.remove(region)
    drain()


def _unlock_in_child() -> None:
    try:
        _lock.release()
    except RuntimeError:  # the wait for it was interrupted, and another thread may have it, in the parent
        _lock._at_fork_reinit()  # type: ignore[attr-defined]
        _leaving.clear()


gc.callbacks.append(_after_collection)
if hasattr(os, "register_at_fork"):
    # A forked child has each region as a whole, or not at all. The lock's own methods: no exception of a signal
    # handler comes between them and the fork.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_unlock_in_child)
