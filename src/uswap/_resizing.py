"""How a region gets another length or other addresses, which its mmap object then must know.

An mmap object of CPython has three fields that matter here: where its memory is, how long it is, and how many
buffers export it. Python offers no way to change the first two but mmap.resize, and that calls mremap, which would
lose the userfaultfd, and with it all that is swapped out. So the core writes them, in the very call that changes
the region. Where they lie is found out by trying (_find), and asked again before each change: an mmap object of
another build is left alone, and UnsupportedError says so.

Growing in place touches nothing that anybody uses, and runs beside other threads. Everything else needs that
nobody is inside the memory, and that nobody begins to export it meanwhile: what the GIL gives. So that call is made
without letting go of it (ctypes.PYFUNCTYPE); the core's own threads do not know the GIL, and go on.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from uswap import _mapping
from uswap._core import check_error, error_from_core, ffi, lib, new_error
from uswap._errors import BusyError, UnsupportedError
from uswap._sizes import PAGE_BYTES

if TYPE_CHECKING:
    from uswap.region import Region
    from uswap.shared_region import SharedRegion

# The wait for those who are at the region is in the core, which the last of them wakes; but the GIL is held there,
# and one of them may need it to go on. So it ends after 50 ms, and for this long the GIL is theirs.
_PAUSE_SECONDS = 0.001
# How long another process may be at the size of a shared region, or at pages that are to go.
_PATIENCE_SECONDS = 10.0


class _Fields(ctypes.Structure):
    """What follows the object header of an mmap (Modules/mmapmodule.c). exports: an int up to Python 3.11, longer
    since then; on a little-endian machine its low half is where the int was."""

    _fields_ = (
        ("address", ctypes.c_uint64),
        ("length", ctypes.c_int64),
        ("position", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("exports", ctypes.c_int32),
    )


def _fields_of(mapping: mmap.mmap) -> _Fields:
    return _Fields.from_address(id(mapping) + object.__basicsize__)


def _is_right(fields: _Fields, mapping: mmap.mmap) -> bool:
    return (fields.address, fields.length, fields.position) == (
        _mapping.address_of(mapping),
        len(mapping),
        mapping.tell(),
    )


@functools.cache
def _find() -> bool:
    """Whether the fields are where they are thought to be."""
    if sys.implementation.name != "cpython" or sys.byteorder != "little":
        return False
    with mmap.mmap(-1, 3 * PAGE_BYTES) as probe:
        probe.seek(17)
        fields = _fields_of(probe)
        seen = [fields.exports]
        with memoryview(probe):
            seen.append(fields.exports)
            with memoryview(probe):
                seen.append(fields.exports)
        seen.append(fields.exports)
        return _is_right(fields, probe) and seen == [0, 1, 2, 0]


def is_possible() -> bool:
    """Whether mmap objects can be told of other addresses."""
    return _find()


def require() -> None:
    """Raises UnsupportedError where mmap objects cannot be told of other addresses."""
    if not _find():
        raise UnsupportedError("this Python keeps its mmap objects in a way that uswap does not know")


def mapping_for_core(region: Region) -> Any:
    """The fields of region as the core wants them; they stay valid as long as region."""
    require()
    fields = _fields_of(region)
    if not _is_right(fields, region):
        raise UnsupportedError("this region's mmap object is not what uswap knows")
    start = ctypes.addressof(fields)
    mapping = ffi.new("uswap_mapping *")
    mapping.address = ffi.cast("uint64_t *", start + _Fields.address.offset)
    mapping.length = ffi.cast("int64_t *", start + _Fields.length.offset)
    mapping.exports = ffi.cast("int32_t *", start + _Fields.exports.offset)
    return mapping


@functools.cache
def _with_gil(name: str) -> Any:
    """uswap_region_resize or uswap_shared_resize, called without letting go of the GIL."""
    kind = ctypes.PYFUNCTYPE(
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_uint64,
        ctypes.c_int64,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
    )
    return kind(int(ffi.cast("uintptr_t", ffi.addressof(lib, name))))


def keep_room(region: Region, size: int, reserve: int) -> None:
    """What lies beyond size bytes of a fresh region's mapping, of reserve bytes, is for it to grow into.

    Raises OutOfSpaceError: the kernel refuses; the region is to be given up.
    """
    region._core.call(lib.uswap_region_reserve, region._id_cell[0], reserve, size, mapping_for_core(region))


def resize(region: Region, size: int) -> None:
    """Region.resize. Context: inside _mapping.locked(); the region is open."""
    mapping = mapping_for_core(region)
    if size > len(region):
        _clear_last_page(region)
    outcome = _resize_beside(region, size, mapping)
    while outcome in (lib.USWAP_RESIZE_LATER, lib.USWAP_RESIZE_ALONE_ONLY):
        if outcome == lib.USWAP_RESIZE_LATER:
            time.sleep(_PAUSE_SECONDS)
        outcome = _resize_alone(region, "uswap_region_resize", region._id_cell[0], size, mapping, new_error())
    if outcome == lib.USWAP_RESIZE_EXPORTED:
        raise _exported(region, size)


def _exported(region: Region, size: int) -> BufferError:
    move = size == 0 or size > len(region)
    return BufferError(
        "an array or a memoryview uses the region, which would have to "
        + ("move: make it with reserve=, to grow where it is" if move else "shrink")
    )


def resize_shared(region: SharedRegion, size: int, patient: bool = True) -> None:
    """SharedRegion.resize; size 0: SharedRegion.refresh. patient: for a while, if another process is at it."""
    deadline = time.monotonic() + (_PATIENCE_SECONDS if patient else 0.0)
    while True:
        error = new_error()
        with _mapping.locked():
            region._check_open()
            try:
                outcome = _resize_shared_once(region, size, error)
            finally:
                region._note_addresses()
        if outcome == lib.USWAP_RESIZED:
            return
        if outcome == lib.USWAP_RESIZE_EXPORTED:
            raise _exported(region, size)
        if time.monotonic() >= deadline:
            raise error_from_core(error, lib.USWAP_E_BUSY)
        time.sleep(_PAUSE_SECONDS)


def _resize_shared_once(region: SharedRegion, size: int, error: Any) -> int:
    mapping, number, core = mapping_for_core(region), region._reference.index, region._core
    outcome = int(lib.USWAP_RESIZE_ALONE_ONLY)
    if not _mapping.any_leaving():
        call = core.enter()
        try:
            beside = lib.USWAP_RESIZE_BESIDE
            result = int(lib.uswap_shared_resize(call.pointer, number, size, beside, mapping, error))
        finally:
            core.leave(call)
        outcome = check_error(result, error)
    if outcome == lib.USWAP_RESIZE_ALONE_ONLY:
        outcome = _resize_alone(region, "uswap_shared_resize", number, size, mapping, error)
    return outcome


def _resize_beside(region: Region, size: int, mapping: Any) -> int:
    if size < len(region) or _mapping.any_leaving():
        return int(lib.USWAP_RESIZE_ALONE_ONLY)
    return region._core.call(lib.uswap_region_resize, region._id_cell[0], size, lib.USWAP_RESIZE_BESIDE, mapping)


def _resize_alone(region: Region, name: str, number: int, size: int, mapping: Any, error: Any) -> int:
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        raise UnsupportedError("without the GIL a region can only grow in place", hint="make it with reserve=")
    if _mapping.any_leaving() and not 0 < size <= len(region):
        raise BusyError("a region is being closed by the very code that this call has interrupted")
    core = region._core
    call = core.enter()
    try:
        result = _with_gil(name)(
            int(ffi.cast("uintptr_t", call.pointer)),
            number,
            size,
            lib.USWAP_RESIZE_ALONE,
            int(ffi.cast("uintptr_t", mapping)),
            int(ffi.cast("uintptr_t", error)),
        )
    finally:
        core.leave(call)
    return check_error(result, error)


def _clear_last_page(region: Region) -> None:
    """What lies behind the end in the last page is left from a longer life, and about to be seen again. Not by a
    store: the page may be protected."""
    size = len(region)
    left = -size % PAGE_BYTES
    if left == 0 or region.page_classes(size - 1, 1)[0] == 0:
        return
    with region.resident(size - 1, 1):
        memory = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(memory, bytes(left), _mapping.address_of(region) + size)
        finally:
            os.close(memory)
