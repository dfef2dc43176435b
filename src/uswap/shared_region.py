"""SharedRegion: a region that several processes of a named pool have at once."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, cast

from uswap import _mapping, _resizing
from uswap._core import Core, ffi, lib
from uswap._errors import ArgumentError, BusyError, ClosedError, ForkError, SystemCallError, UswapError
from uswap._group import Group
from uswap._group_info import PageUser, page_user_from_core
from uswap._group_look import MEMBERS_MAX
from uswap._mapping import address_of, locked, map_fresh
from uswap._sizes import parse_size, round_to_pages
from uswap._stats import RegionInfo, shared_region_info_from_core
from uswap.region import Protection, Region, checked_priority

if TYPE_CHECKING:
    from uswap.shared_array import SharedArray

_Arguments = ParamSpec("_Arguments")

_ID_BITS = 62
# How long those that have a region may be too busy to hand it over, and how long to wait between two requests.
_PATIENCE_SECONDS = 10.0
_ASK_AGAIN_SECONDS = 0.02
# How the core calls for shared regions what it calls otherwise for private ones.
_CALLS = {"lock": "hold", "unlock": "release", "pin": "hold", "unpin": "release"}


@dataclass(frozen=True, slots=True)
class Reference:
    """A shared region as it is pickled: where any process of its pool finds it.

    Attributes:
        pool: the pool's name.
        index: of the object in the pool.
        id: the region's; 0 for one that is not exportable.
        name: the region's.
    """

    pool: str
    index: int
    id: int
    name: str


class SharedRegion(Region):
    """A region of a named pool that several processes have at once; made by Pool.region(shared=True), open_region,
    attach_region, or by unpickling.

    All that Region has; its pages count once, however many processes have them. In one
    process there is one object for each region, whoever asks for it. It pickles by reference: another process of
    the pool, or one that can join it, gets the same memory. The region ends with the last process that has it.

    lock and resident keep pages in for all processes; unlock takes the ranges that lock took. At most 64 such
    ranges of one process at a time.

    Example:
        >>> import pickle, uswap
        >>> with uswap.Pool(limit="32MiB", name="shared-region-example") as pool:
        ...     r = pool.region("64MiB", shared=True, name="x")
        ...     r[:5] = b"hello"
        ...     again = pickle.loads(pickle.dumps(r))
        ...     print(again is r, bytes(again[:5]), len(r.users(0)), len(pool.members()))
        ...     r.close()
        True b'hello' 1 1
    """

    __slots__ = ("_reference",)

    _reference: Reference

    @property
    def id(self) -> int:
        """The number by which Pool.attach_region finds it, the same in all processes; 0 if it is not exportable."""
        return self._reference.id

    @property
    def key(self) -> int:
        """The number by which stays of shared pages (uswap.policy, SharedBatch) name this region, the same in all
        processes; private regions have numbers of their own."""
        return self._look()[1]

    def _look(self) -> tuple[int, int]:
        """(bytes that could be seen, key)."""
        found = ffi.new("uint64_t[2]")
        self._call("size", found, found + 1)
        return int(found[0]), int(found[1])

    @property
    def priority(self) -> int:
        """How dear its pages are, for all processes: from -20 to 19, and 0 if nothing else was said. Shared pages
        leave in one order whatever the policies of the processes are; each step up weighs 1.25 times as much in it.
        A weight of 16 times that of the least of all shared regions is the most that has an effect. Any process may
        set it, at any time.

        Raises (when set): ValueError, TypeError for what is no priority; ClosedError, ForkError.
        """
        return self._priority(ffi.NULL)

    @priority.setter
    def priority(self, priority: int) -> None:
        self._priority(ffi.new("int32_t *", checked_priority(priority)))

    def _priority(self, new: Any) -> int:
        now = ffi.new("int32_t *")
        self._call("priority", new, now)
        return int(now[0])

    def __repr__(self) -> str:
        return super().__repr__().replace("Region", "SharedRegion", 1)

    def __reduce_ex__(self, protocol: object) -> Any:
        from uswap.sharing import open_reference

        return open_reference, (checked_reference(self._reference),)

    def array(self, shape: Any, dtype: Any = float, order: str = "C", *, offset: int = 0) -> SharedArray:
        """A NumPy array on the memory from byte offset on, which pickles by reference as the region does.

        Raises:
            ValueError: it does not fit. TypeError: dtype holds Python objects. NumpyMissingError.
        """
        from uswap.arrays import checked_dtype
        from uswap.shared_array import array_on

        self._check_open()
        return array_on(self, shape, checked_dtype(dtype), order, offset)

    def protect(self, protection: Protection | int, start: int = 0, length: int | None = None) -> None:
        """Allows only what protection says on all pages of the range, as mprotect(2), in this process alone and for
        as long as it has the region: a forbidden access here is a SIGSEGV. The pages come and leave as all others.
        Thread-safe.

        Raises:
            ValueError: the range is not in the region, or protection is none.

        Example:
            >>> import uswap
            >>> with uswap.Pool(limit="32MiB", name="protect-example") as pool:
            ...     with pool.region("1MiB", shared=True) as r:
            ...         r[:5] = b"hello"
            ...         r.protect(uswap.Protection.READ, 0, 4096)
            ...         r.advise(uswap.Advice.PAGEOUT)
            ...         print(bytes(r[:5]))
            b'hello'
        """
        super().protect(protection, start, length)

    def size(self) -> int:
        """len(self)."""
        return len(self)

    def resize(self, newsize: int | str, /) -> None:
        """Makes the region newsize bytes long, or "4GiB", rounded up to whole pages, for all processes. What is
        new is zeroes, for whoever sees it. Thread-safe.

        The other processes go on to see what they have seen, which is a part of it, until they call refresh (or
        resize themselves). In this one it grows in place as far as its reserve goes (Pool.region), or as the
        addresses behind it are free, also while arrays use it; otherwise it moves. To shrink or move takes that
        nothing in this process exports the memory, and to shrink that no other process sees more than the new size:
        what is beyond it is thrown away.

        Raises:
            ValueError, TypeError: not a size.
            BufferError: an array or a memoryview still uses the memory here, and it would have to shrink or move.
            OutOfSpaceError: no swap space or address space; or more than the region was made to grow to: at least
                the reserve, and, as a rule, eight times its first size.
            BlockingIOError: another process, which is named, sees more than the new size; or a page beyond it is
                locked, or inside resident; or a process that is stopped is just changing the size, or has such a
                page (after 10 s).
            UnsupportedError: this Python keeps its mmap objects in another way, or has no GIL.
            ClosedError, ForkError: as everywhere.
            On any of these nothing has changed.

        Example:
            >>> import uswap
            >>> with uswap.Pool(limit="32MiB", name="resize-example") as pool:
            ...     r = pool.region("1MiB", shared=True, reserve="1GiB")
            ...     before = memoryview(r)
            ...     r[:5] = b"hello"
            ...     r.resize("256MiB")
            ...     print(bytes(before[:5]), len(before), len(r), r.info().size)
            ...     before.release()
            ...     r.resize("4KiB")
            ...     print(bytes(r[:5]), len(r))
            ...     r.close()
            b'hello' 1048576 268435456 268435456
            b'hello' 4096
        """
        size = round_to_pages(parse_size(newsize, "new size"))
        self._core.check_process()
        _resizing.resize_shared(self, size)

    def refresh(self) -> None:
        """Sees all of the region: another process may have made it longer. Arrays and memoryviews made before stay
        as long as they were. open_region and its like do so by themselves where nothing has to move for it.
        Thread-safe. Raises as resize: BufferError, OutOfSpaceError, BlockingIOError, UnsupportedError.

        Example:
            >>> import uswap
            >>> with uswap.Pool(limit="64MiB", name="refresh-example") as pool:
            ...     r = pool.region("1MiB", shared=True, name="log", reserve="64MiB")
            ...     with uswap.attach("refresh-example") as other:      # in another process, say
            ...         same = other.open_region("log")
            ...         same.resize("2MiB")
            ...         print(len(r))
            ...         r.refresh()
            ...         print(len(r))
            ...         same.close()
            ...     r.close()
            1048576
            2097152
        """
        self._core.check_process()
        _resizing.resize_shared(self, 0)

    def _follow(self) -> None:
        """refresh, if nothing is in the way. Context: inside locked(), so nobody is waited for."""
        if self._look()[0] > len(self):
            with contextlib.suppress(BufferError, UswapError):
                _resizing.resize_shared(self, 0, patient=False)

    def info(self) -> RegionInfo:
        """Name, size, resident and swapped bytes of all processes together, and how many they are. Thread-safe."""
        raw = ffi.new("uswap_object_info *")
        self._call("get_info", raw)
        return shared_region_info_from_core(ffi, raw, self._address)

    def users(self, page: int) -> list[PageUser]:
        """The processes that have the region, and whether they have page number page mapped now, as far as this
        process can tell: of others it knows only that they have the region. Thread-safe. Raises ValueError: there
            is no such page."""
        self._page_start(page)
        raw = ffi.new("uswap_page_user[]", MEMBERS_MAX)
        count = self._call("users", page, raw, MEMBERS_MAX)
        return [page_user_from_core(raw[i]) for i in range(min(count, MEMBERS_MAX))]

    def _call(self, what: str, *arguments: Any) -> int:
        """uswap_shared_<what> of the core, for this region's object."""
        self._check_open()
        if what == "lock":
            arguments = (*arguments, ffi.new("uint8_t *"))
        return self._core.call(
            getattr(lib, f"uswap_shared_{_CALLS.get(what, what)}"), self._reference.index, *arguments
        )

    # ---- for _mapping: nothing is moved by the addresses, so unmapping needs no preparation ----------------

    def _quiesce(self) -> None:
        self._core.check_process()
        self._note_addresses()

    def _resume(self) -> None:
        pass

    def _destroy(self) -> None:
        self._core.call(lib.uswap_shared_end, self._id_cell)

    def _forget(self) -> None:
        self._id_cell[1] = 0
        self._core.shared.discard(self._id_cell)


def checked_reference(reference: Reference) -> Reference:
    """reference, if it leads anywhere. Raises TypeError: neither a name nor an id."""
    if not reference.id and not reference.name:
        raise TypeError("a shared region that is not exportable and has no name cannot be pickled")
    return reference


class _ParentsCore:
    """In a forked child, the core of a shared region that its parent has opened: nothing can be done with it.

    Attributes:
        owner_pid: no process's.
    """

    owner_pid = 0

    def check_process(self) -> None:
        """Raises ForkError."""
        raise ForkError(
            "this shared region was opened by the parent process, and its memory is not inherited by a fork",
            hint="uswap.reopen(...) gives the same region, or array on it, in the child",
        )

    def call(self, *_: object) -> int:
        """Raises ForkError."""
        self.check_process()
        raise AssertionError


def leave_to_parent(region: SharedRegion) -> None:
    """In a forked child whose pool goes on: the region is the parent's alone. It still pickles, and reopens."""
    region._id_cell[1] = 0  # its guard has nothing to do here
    region._core = cast(Core, _ParentsCore())


def make_shared_region(core: Core, size: int, reserve: int, name: str, exportable: bool) -> SharedRegion:
    """A new one of size bytes, with addresses to grow to reserve bytes, both rounded up to whole pages.
    Thread-safe. Context: core is of a named pool.

    Raises:
        ArgumentError: the name is taken. OutOfSpaceError, ClosedError, ForkError: as make_region.
    """
    region_id = 1 + secrets.randbits(_ID_BITS) if exportable else 0
    size, reserve, group = round_to_pages(size), round_to_pages(reserve), _group_of(core)
    if reserve > size:
        _resizing.require()
    with locked():
        _check_open(core)
        region = _fresh(core, size, reserve, name)
        _enter(region, reserve, lib.uswap_shared_create, name.encode(), region_id)
        return _known(region, group, region_id)


def _fresh(core: Core, size: int, reserve: int, name: str) -> SharedRegion:
    """Size bytes of memory, and addresses to grow to reserve bytes, for an object that the core does not know here.
    Context: inside locked()."""
    region: SharedRegion = map_fresh(SharedRegion, reserve)
    region._address = address_of(region)
    region._mapping_bytes = size
    region._name = name
    _mapping.guard(region, core, "uswap_shared_lost")
    return region


def _enter(region: SharedRegion, reserve: int, function: Any, *arguments: Any) -> None:
    """function, of the core, with arguments, maps an object there: after that the cell names it, whatever exception
    comes."""
    core, size, cell = region._core, region._mapping_bytes, region._id_cell
    mapping = _resizing.mapping_for_core(region) if reserve > size else ffi.NULL
    address = ffi.cast("void *", region._address)
    try:
        core.shared.add(cell)  # before: a pool that is closed meanwhile stays as long as there is one
        core.call(function, address, size, reserve, mapping, *arguments, cell)
    finally:
        if not cell[0]:
            core.shared.discard(cell)
            core.free_if_unused()


def _known(region: SharedRegion, group: Group, region_id: int) -> SharedRegion:
    """It is open in this process."""
    index = region._id_cell[0] - 1
    region._reference = Reference(group.name, index, region_id, region._name)
    group.open_regions[index] = region
    return region


class _EndedMeanwhile(Exception):
    """What was found is not there any more."""


def _patient(opening: Callable[_Arguments, SharedRegion]) -> Callable[_Arguments, SharedRegion]:
    """Asks again while no process that has the region answers (on a machine that is busy enough, that need not mean
    that it is stopped), and for the one that has come in its place. Raises BusyError after some time."""

    @functools.wraps(opening)
    def ask_again(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> SharedRegion:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return opening(*arguments, **named)
            except (SystemCallError, _EndedMeanwhile) as error:
                if isinstance(error, SystemCallError) and error.errno not in (errno.ETIMEDOUT, errno.EAGAIN):
                    raise
                if time.monotonic() >= deadline:
                    raise BusyError("no process that has the shared region answers: all are stopped") from error
            _wait()

    return ask_again


def _wait() -> None:
    time.sleep(_ASK_AGAIN_SECONDS)


def _find(group: Group, name: str) -> Reference | None:
    for raw in group.objects():
        if ffi.string(raw.name) == name.encode():
            return Reference(group.name, int(raw.object), int(raw.creator_region), name)
    return None


@_patient
def open_region_by_name(core: Core, name: str) -> SharedRegion:
    """The one of that name. Thread-safe. Raises ArgumentError: there is none; BusyError."""
    group = _group_of(core)
    with locked():
        _check_open(core)
        found = _find(group, name)
        if found is not None:
            try:
                return _open(core, group, found)
            except ArgumentError as error:
                raise _EndedMeanwhile from error  # there may be another one
    raise ArgumentError(f"there is no shared region {name!r} in the pool {group.name!r}")


@_patient
def open_region_by_id(core: Core, pid: int, region_id: int) -> SharedRegion:
    """The one of that id, which the process pid must have. Thread-safe. Raises ArgumentError, BusyError."""
    group = _group_of(core)
    with locked():
        _check_open(core)
        for raw in group.objects():
            # Looked at before it is opened: after that this process has it.
            may_have = pid != os.getpid() or int(raw.object) in group.open_regions
            if region_id and int(raw.creator_region) == region_id and may_have:
                name = ffi.string(raw.name).decode()
                try:
                    region = _open(core, group, Reference(group.name, int(raw.object), region_id, name))
                except ArgumentError:  # it has ended meanwhile
                    break
                if any(user.pid == pid for user in region.users(0)):
                    return region
    raise ArgumentError(f"process {pid} has no exportable shared region {region_id} in the pool {group.name!r}")


@_patient
def open_region_by_reference(core: Core, reference: Reference) -> SharedRegion:
    """The one that was pickled. Thread-safe. Raises ClosedError: it has ended; BusyError."""
    if not reference.id:
        try:
            return open_region_by_name(core, reference.name)
        except ArgumentError as error:
            raise _ended(reference) from error
    group = _group_of(core)
    with locked():
        _check_open(core)
        region = group.open_regions.get(reference.index)
        if region is not None and region.id == reference.id and not region.closed:
            region._follow()
            return region
        if not any(_is(raw, reference) for raw in group.objects()):
            raise _ended(reference)
        try:
            return _open(core, group, reference)
        except ArgumentError as error:  # meanwhile
            raise _ended(reference) from error


def _is(raw: Any, reference: Reference) -> bool:
    return int(raw.object) == reference.index and int(raw.creator_region) == reference.id


def _ended(reference: Reference) -> ClosedError:
    named = f" {reference.name!r}" if reference.name else ""
    return ClosedError(
        f"the shared region{named} of the pool {reference.pool!r} has ended",
        hint="it ends with the last process that has it: keep it until the others have opened it",
    )


def _group_of(core: Core) -> Group:
    assert core.group is not None
    return core.group


def _check_open(core: Core) -> None:
    core.check_process()
    if core.closing:
        raise ClosedError("the pool is closed to new regions")


def _open(core: Core, group: Group, reference: Reference) -> SharedRegion:
    """Context: inside locked()."""
    region = group.open_regions.get(reference.index)
    if region is not None and not region.closed and region.id == reference.id:
        region._follow()
        return region
    if _is_mapped(core, reference.index):
        _mapping.drain()
        if _is_mapped(core, reference.index):
            raise BusyError("the region's last mapping in this process is just going: buffers of it are alive")
    sizes = ffi.new("uint64_t[2]")
    who = reference.index, reference.id, reference.name.encode()
    core.call(lib.uswap_shared_find, *who, sizes, sizes + 1)
    size = int(sizes[0])
    reserve = int(sizes[1]) if _resizing.is_possible() else size
    region = _fresh(core, size, reserve, reference.name)
    _enter(region, reserve, lib.uswap_shared_open, *who)
    return _known(region, group, reference.id)


def _is_mapped(core: Core, index: int) -> bool:
    return any(cell[0] == index + 1 for cell in list(core.shared))
