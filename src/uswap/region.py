"""Region: a range of memory that a pool swaps, with the buffer protocol; and the words to talk about it."""

from __future__ import annotations

import contextlib
import enum
import mmap
import operator
import os
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from uswap import _mapping, _resizing, _sigbus
from uswap._core import Core, Known, check_error, ffi, keep_for_ever, lib, new_error
from uswap._errors import ClosedError
from uswap._group_info import PageUser
from uswap._options import fault_mode
from uswap._sizes import PAGE_BYTES, format_size, parse_size, round_to_pages
from uswap._stats import RegionInfo, region_info_from_core, region_key


class Advice(enum.IntEnum):
    """What a program can say about its use of a region, as in madvise(2)."""

    NORMAL = 0  #: read-ahead by what is seen
    RANDOM = 1  #: no read-ahead
    SEQUENTIAL = 2  #: the widest read-ahead at once
    WILLNEED = 3  #: start reading now, as far as frames allow
    DONTNEED = 4  #: throw the contents away: zeroes at the next touch
    COLD = 5  #: first to be evicted
    PAGEOUT = 6  #: evict now


class Protection(enum.IntFlag):
    """What may be done with pages, as in mprotect(2)."""

    NONE = 0
    READ = 1
    WRITE = 2


class PageClass(enum.IntEnum):
    """Where a page of a region is."""

    ZERO = 0  #: nowhere: untouched, discarded, or all zeroes
    RESIDENT = 1  #: in the region
    SWAPPED = 2  #: in its slot only
    CACHED = 3  #: out of the region, in the swap cache
    POISONED = 4  #: lost
    FILLED = 5  #: nowhere: one 64-bit word repeated, made again at the next touch


# What Region.priority may be.
PRIORITIES = range(-20, 20)

# madvise(2) numbers, for mmap.madvise. COLD and PAGEOUT are not in the mmap module of every Python.
_ADVICE_OF_MADVISE = {
    0: Advice.NORMAL,
    1: Advice.RANDOM,
    2: Advice.SEQUENTIAL,
    3: Advice.WILLNEED,
    4: Advice.DONTNEED,
    20: Advice.COLD,
    21: Advice.PAGEOUT,
}


def checked_protection(protection: Protection | int) -> int:
    """Raises TypeError, ValueError: it is none."""
    if not isinstance(protection, int):
        raise TypeError(f"protection must be made of uswap.Protection, not {type(protection).__name__}")
    if not 0 <= protection <= Protection.READ | Protection.WRITE:
        raise ValueError(f"protection is made of uswap.Protection.READ and WRITE, or NONE, not {protection}")
    return int(protection)


class Region(mmap.mmap):
    """Memory of a pool; made by Pool.region.

    It is an mmap.mmap, so it has the buffer protocol (``memoryview(r)``, ``np.frombuffer(r, ...)``), slices,
    len and find. Fresh memory is zero. It ends with close(), or when nothing refers to it or to a buffer of
    it any more.

    Thread-safety: reading and writing the memory is as safe as with any memory; all methods of uswap may be
    called from any thread, also while others use the memory. Reading and writing through the file-like
    methods of mmap (read, write, seek) share one position, as in any mmap.

    In a forked child the memory is not there; methods raise ForkError.

    Example:
        >>> import uswap
        >>> with uswap.Pool(limit="64MiB") as pool:
        ...     r = pool.region("256MiB", name="data")
        ...     r[:5] = b"hello"
        ...     r.advise(uswap.Advice.PAGEOUT, 0, 4096)
        ...     print(bytes(r[:5]), len(r))
        ...     r.close()
        b'hello' 268435456
    """

    __slots__ = ("_address", "_core", "_guard", "_id_cell", "_mapping_bytes", "_name")

    # Set together, before the core knows the region (make_region); all but the last are for
    # _mapping.ManagedMapping.
    _core: Core
    _address: int
    _mapping_bytes: int
    _id_cell: Any
    _guard: Any
    _name: str

    def __new__(cls, *_: object, **__: object) -> Region:
        raise TypeError("a Region is made by Pool.region()")

    @property
    def name(self) -> str:
        """What the region was called when it was made; "" if nothing."""
        return self._name

    @property
    def id(self) -> int:
        """The core's number for this region."""
        return int(self._id_cell[0])

    @property
    def key(self) -> int:
        """The number by which stays (uswap.policy) name this region; it may be that of a region long gone."""
        return region_key(self.id)

    @property
    def priority(self) -> int:
        """How dear its pages are to a policy that looks at it (uswap.policy.ByRegion): from -20 to 19, and 0 if
        nothing else was said. Pages of a higher one stay longer (the opposite of nice): each step up weighs 1.25
        times as much. It may be set at any time.

        Raises (when set): ValueError, TypeError for what is no priority; ClosedError, ForkError.
        """
        return self._known().priority

    @priority.setter
    def priority(self, priority: int) -> None:
        self._known().priority = checked_priority(priority)

    def _known(self) -> Known:
        self._core.check_process()
        known = self._core.regions.get(self._id_cell)
        if known is None:
            raise ClosedError(f"region {self._name!r} is closed")
        return known

    def __repr__(self) -> str:
        name = f" {self._name!r}" if self._name else ""
        state = "closed" if self.closed else format_size(len(self))
        return f"<uswap.Region{name} {state}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            "a Region cannot be pickled: it is memory of this process; send bytes(region) or an array of it"
        )

    # ---- calls into the core -------------------------------------------------------------------------------

    def _call(self, what: str, *arguments: Any) -> int:
        """uswap_region_<what> of the core, for this region."""
        self._check_open()
        return self._core.call(getattr(lib, f"uswap_region_{what}"), self._id_cell[0], *arguments)

    def _check_open(self) -> None:
        self._core.check_process()
        if self.closed:
            raise ClosedError(f"region {self._name!r} is closed")

    def _range(self, start: int, length: int | None) -> tuple[int, int]:
        """(start, length) in bytes; up to the end means the rest of the last page too."""
        self._check_open()
        size = len(self)
        start = _bytes(start, "start")
        length = size - start if length is None else _bytes(length, "length")
        if start < 0 or length < 0 or start + length > size:
            raise ValueError(f"bytes {start} to {start + length} are not all in a region of {size} bytes")
        return start, length if start + length < size else round_to_pages(size) - start

    def advise(self, advice: Advice | int, start: int = 0, length: int | None = None) -> None:
        """Says how bytes start to start + length (default: to the end) will be used. Thread-safe.

        DONTNEED covers the pages that lie wholly inside the range, every other advice all pages it touches.

        Raises:
            ValueError: the range is not in the region, or advice is none.
            BlockingIOError: DONTNEED, and a page of the range is locked or inside Region.resident. Pages before
                that one may be gone.
            ClosedError, ForkError: as everywhere.
        """
        kind = Advice(advice)
        self._call("advise", *self._range(start, length), int(kind))

    def lock(self, start: int = 0, length: int | None = None) -> None:
        """Brings the pages of the range in, and keeps them in until unlock. Locks do not nest. Thread-safe.

        Raises:
            LimitError: too little of the limit would be left.
            SwapError: a page of the range cannot be read back.
            ValueError: the range is not in the region.
        """
        self._call("lock", *self._range(start, length))

    def unlock(self, start: int = 0, length: int | None = None) -> None:
        """Ends lock for the pages of the range. Thread-safe. Raises ValueError as lock does."""
        self._call("unlock", *self._range(start, length))

    @contextlib.contextmanager
    def resident(self, start: int = 0, length: int | None = None) -> Iterator[None]:
        """Inside the with block the pages of the range are in memory and stay there. Nests, up to 100 deep.
        Thread-safe.

        Needed around DMA and system calls that the kernel does not pin for, and around every system call on memory
        whose faults are served inline; docs/limits.md lists them.

        Raises:
            LimitError: too little of the limit would be left.
            SwapError: a page of the range cannot be read back: found here, without a touch.
            ValueError: the range is not in the region.
        """
        span = self._range(start, length)
        held = ffi.new("uint8_t *")  # also known when a signal's exception comes where the call has ended
        try:
            self._call("pin", *span, held)
            yield
        finally:
            # A region closed inside the block has no pins left to end.
            if held[0] and not self.closed:
                self._call("unpin", *span)

    def protect(self, protection: Protection | int, start: int = 0, length: int | None = None) -> None:
        """Allows only what protection says on all pages of the range, as mprotect(2): a forbidden access is a
        SIGSEGV.

        Pages that are not read-write are evicted by copy, whatever the transport. Thread-safe.

        Raises:
            ValueError: the range is not in the region, or protection is none. TypeError: it is no number.
        """
        self._call("protect", *self._range(start, length), checked_protection(protection))

    def verify(self, start: int = 0, length: int | None = None) -> None:
        """Reads back and checks every swapped page of the range, without bringing it in. Thread-safe.

        Raises:
            SwapError: the first bad page; offset is its place in the region.
            ValueError: the range is not in the region.
        """
        self._call("verify", *self._range(start, length))

    def page_classes(self, start: int = 0, length: int | None = None) -> bytes:
        """One byte a page of the range, each a PageClass, as they are at one moment or another.
        Thread-safe."""
        start, length = self._range(start, length)
        first = start // PAGE_BYTES
        pages = -(-(start + length) // PAGE_BYTES) - first
        classes = bytearray(pages)
        self._call("page_classes", first, pages, ffi.from_buffer("uint8_t *", classes))
        return bytes(classes)

    def info(self) -> RegionInfo:
        """Name, size, resident and swapped bytes, faults. Thread-safe."""
        raw = ffi.new("uswap_region_info *")
        self._call("get_info", raw)
        return region_info_from_core(ffi, lib, raw, len(self), self._known().priority)

    def users(self, page: int) -> list[PageUser]:
        """The processes that use page number page, and whether they have it mapped now; of a private region, this
        one. Thread-safe.

        Raises:
            ValueError: the region has no such page.

        Example:
            >>> import os, uswap
            >>> with uswap.Pool(limit="16MiB") as pool, pool.region("1MiB") as r:
            ...     print([user.pid == os.getpid() for user in r.users(200)])
            [True]
        """
        (kind,) = self.page_classes(self._page_start(page), 1)
        return [PageUser(os.getpid(), kind == PageClass.RESIDENT, page)]

    def _page_start(self, page: int) -> int:
        page = _whole(page, "page must be a number")
        if not 0 <= page < self._mapping_bytes // PAGE_BYTES:
            raise ValueError(f"page {page} is not in a region of {self._mapping_bytes // PAGE_BYTES} pages")
        return page * PAGE_BYTES

    def resize(self, newsize: int | str, /) -> None:
        """Makes the region newsize bytes long, or "4GiB". What is new is zeroes; the rest stays as it is, in memory
        or in swap: nothing is read or written for it. Thread-safe.

        It grows in place as far as its reserve goes (Pool.region), or as the addresses behind it are free; arrays
        and memoryviews made before stay right, and as long as they were. Otherwise it moves, as mremap(2); what
        lock and protect have said moves with it. To shrink or move takes that nothing exports the memory. What is
        beyond the new end is thrown away, its swap space with it, and its addresses are not the region's any more.

        Raises:
            ValueError, TypeError: not a size.
            BufferError: an array or a memoryview still uses the memory, and it would have to shrink or move.
            OutOfSpaceError: not that much swap space left, or address space.
            BlockingIOError: a page beyond the new end is locked, or inside Region.resident; or it would have to
                move while a page of it is inside Region.resident or pinned by the kernel.
            UnsupportedError: this Python keeps its mmap objects in another way, or has no GIL.
            SwapError: the last page, which is to be filled up, cannot be read back.
            ClosedError, ForkError: as everywhere.
            On any of these nothing has changed.

        Example:
            >>> import uswap
            >>> with uswap.Pool(limit="64MiB") as pool:
            ...     r = pool.region("1MiB", reserve="1GiB")
            ...     before = memoryview(r)
            ...     r[:5] = b"hello"
            ...     r.resize("256MiB")
            ...     print(bytes(before[:5]), len(before), len(r))
            ...     before.release()
            ...     r.resize(5)
            ...     print(r[:])
            ...     r.close()
            b'hello' 1048576 268435456
            b'hello'
        """
        size = parse_size(newsize, "new size")
        self._core.check_process()
        with _mapping.locked():
            if self.closed:
                raise ClosedError(f"region {self._name!r} is closed")
            try:
                _resizing.resize(self, size)
            finally:
                self._note_addresses()
                self._known().size = len(self)

    # ---- methods of mmap that would break management -------------------------------------------------------

    def madvise(self, option: int, start: int = 0, length: int | None = None) -> None:
        """advise by the numbers of madvise(2) (mmap.MADV_...). Raises ValueError for those with no
        counterpart."""
        advice = _ADVICE_OF_MADVISE.get(option)
        if advice is None:
            raise ValueError(f"madvise option {option} is not for managed memory; see uswap.Advice")
        self.advise(advice, start, length)

    def flush(self, offset: int = 0, size: int = 0, /) -> None:
        """Nothing: a region has no file behind it."""

    # ---- the end -------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Frees the memory and its swap space. Closing twice is no error. Thread-safe.

        Raises:
            BufferError: an array or a memoryview still uses the memory. Nothing has changed.
            ForkError: in a forked child.
        """
        if self.closed:
            return
        self._core.check_process()
        with _mapping.locked():
            if not self.closed:
                _mapping.leave(self)

    def __exit__(self, *_: object) -> None:
        self.close()

    def _note_addresses(self) -> None:
        self._address = _mapping.address_of(self)
        self._mapping_bytes = round_to_pages(len(self))

    def _unmap(self) -> None:
        super().close()

    def _quiesce(self) -> None:
        self._note_addresses()  # it may have been resized, and afterwards it is too late to ask
        self._core.call(lib.uswap_region_quiesce, self._id_cell[0])

    def _resume(self) -> None:
        self._core.call(lib.uswap_region_resume, self._id_cell[0])

    def _destroy(self) -> None:
        self._core.call(lib.uswap_region_end, self._id_cell)

    def _forget(self) -> None:
        self._id_cell[1] = 0
        self._core.regions.pop(self._id_cell, None)

    # What it needs is bound here: at interpreter exit the globals of this module may be gone.
    def __del__(
        self,
        _leave: Any = _mapping.leave_from_finalizer,
        _keep: Any = keep_for_ever,
        _getpid: Any = os.getpid,
        _is_finalizing: Any = sys.is_finalizing,
    ) -> None:
        core = getattr(self, "_core", None)
        if core is None or self.closed or not self._id_cell[0]:
            return  # the core does not know this mapping
        if core.owner_pid != _getpid():
            # The child has nothing at these addresses, or something of its own: it must not unmap there.
            _keep(self)
        elif _is_finalizing():
            # The last arrays go while the interpreter is torn down, and C destructors may still use them.
            _keep(self)
        else:
            _leave(self)


def checked_priority(priority: int) -> int:
    """priority, if it is one. Raises ValueError, TypeError."""
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise TypeError(f"priority must be an integer, not {type(priority).__name__}")
    if priority not in PRIORITIES:
        raise ValueError(f"priority must be from {PRIORITIES[0]} to {PRIORITIES[-1]}, not {priority}")
    return priority


def region_infos(core: Core) -> list[RegionInfo]:
    """What the core knows of each region alive, oldest first, those of heaps last. Thread-safe."""
    infos = []
    raw = ffi.new("uswap_region_info *")
    for cell, known in list(core.regions.items()):
        # One that has ended meanwhile is no region alive.
        with contextlib.suppress(ClosedError):
            if cell[0]:
                core.call(lib.uswap_region_get_info, cell[0], raw)
                infos.append(region_info_from_core(ffi, lib, raw, known.size, known.priority))
    for number in [number for heap in list(core.heaps.values()) for number in heap.regions()]:
        with contextlib.suppress(ClosedError):
            core.call(lib.uswap_region_get_info, number, raw)
            infos.append(region_info_from_core(ffi, lib, raw, int(raw.size_bytes), 0))
    return infos


def _whole(value: int, rule: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{rule}, not {type(value).__name__}") from None


def _bytes(value: int, what: str) -> int:
    return _whole(value, f"{what} must be a number of bytes")


def make_region(
    core: Core, size: int, name: str, faults: str | None = None, priority: int = 0, reserve: int = 0
) -> Region:
    """A region of size bytes in core, with addresses to grow to reserve bytes; faults None: as the pool says.
    Thread-safe.

    Raises:
        ValueError, TypeError: no priority.
        OutOfSpaceError: no swap space, metadata or address space.
        UnsupportedError: faults is "thread", which is not permitted here.
        ClosedError, ForkError: the pool is closed, or not this process's.
    """
    mode = fault_mode(faults)
    checked_priority(priority)
    reserve = round_to_pages(reserve)
    if reserve > round_to_pages(size):
        _resizing.require()
    else:
        reserve = 0
    if faults == "inline" or (faults is None and core.inline):
        _sigbus.guard()
    with _mapping.locked():
        call = core.enter()
        try:
            if core.closing:
                raise ClosedError("the pool is closed to new regions")
            region = _create(core, call.pointer, Known(size, priority), name, mode, reserve)
            if reserve:
                _resizing.keep_room(region, size, reserve)
            return region
        finally:
            core.leave(call)


def _create(core: Core, pointer: Any, known: Known, name: str, mode: int, reserve: int) -> Region:
    region: Region = _mapping.map_fresh(Region, reserve or known.size)
    region._address = _mapping.address_of(region)
    region._mapping_bytes = round_to_pages(known.size)
    region._name = name
    cell = _mapping.guard(region, core, "uswap_region_lost")
    core.regions[cell] = known
    error = new_error()
    address = ffi.cast("void *", region._address)
    try:
        check_error(
            int(lib.uswap_region_create(pointer, address, region._mapping_bytes, name.encode(), mode, cell, error)),
            error,
        )
    finally:
        if not cell[0]:
            del core.regions[cell]
    return region
