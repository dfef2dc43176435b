"""Pool: a hard limit on resident memory, and the swap areas that take the rest."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Literal

from uswap import _mapping, sharing
from uswap._core import Core, ffi, free_what_is_left, lib, require_core
from uswap._errors import ClosedError, UnsupportedError
from uswap._group import Joining, Making, run_group
from uswap._heap import PoolHeap
from uswap._options import (
    CoreOptions,
    SwapSpec,
    checked_limit,
    default_limit,
    minimum_limit,
    swap_areas,
)
from uswap._pool_areas import PoolAreas
from uswap._pool_arrays import PoolArrays
from uswap._pool_checks import checked_name, described, warn_of_user_mode
from uswap._pool_group import PoolGroup
from uswap._pool_numpy import PoolNumpy
from uswap._rendezvous import making
from uswap._sizes import PAGE_BYTES, format_size, parse_size
from uswap._small import SmallMemory
from uswap._stats import (
    RegionInfo,
    Stats,
    stats_from_core,
)
from uswap.auto_limit import DEFAULT_STALL, AutoLimit, checked_stall
from uswap.policy import DEFAULT_POLICY, Policy, make_policy
from uswap.reclaimer import Reclaimer
from uswap.region import Region, make_region, region_infos

if TYPE_CHECKING:
    from uswap.trace.recorder import Recording


class Pool(PoolAreas, PoolArrays, PoolNumpy, PoolGroup):
    """Memory with a hard limit: arrays and regions of any size, of which no more than limit is resident.

    Args:
        limit: bytes of resident memory, as an integer or text ("512MiB"). None: $USWAP_LIMIT, or what the
            machine or container can still give less a margin (a tenth of its memory, at least 128 MiB). "auto":
            found out while the program runs, from limit_max downwards; see AutoLimit.
        swap: a path, a SwapArea, or several of these. None: $USWAP_SWAP, or a file without a name in
            $USWAP_DIR, /var/tmp or the user's cache directory, whichever first can be written and does not
            lie in memory.
        transport: "move" (Linux 6.8 and up), "copy", or "auto" for the better one that works.
        recycle: frames circulate instead of going back to the kernel; csrc/README.md, Frames, says under
            which contract.
        overcommit: regions do not reserve swap space; a full disk then shows up late.
        io: "uring", "sync", or "auto" for the better one that works.
        fault_around: pages mapped at a first touch, or at one of an inactive page, at most; 1: only the page
            touched. None: the core's default, as below.
        read_ahead: the largest read-ahead window in pages; 0: none.
        reclaim_batch: pages a fault evicts at once if it must; 1 gives exact first in, first out.
        background: False: no reclaimer at all, faults evict.
        verify: check each page against its checksum when it is read back.
        faults: who serves the faults of regions and arrays that name nobody else. "thread": the pool's fault
            thread; system calls then work on managed memory as on any other. "inline": the thread that touches,
            by itself, which is faster; a system call on memory that is swapped out fails with EFAULT, unless
            Region.resident keeps it in (docs/limits.md). None: "thread", or, where this user may not have
            userfaultfd, "inline" and a UserModeWarning.
        write_ahead: the oldest pages, up to an eighth of the limit, are taken out and written before their
            frames are needed; a touch until then finds them in memory.
        awake: who waits for a single page does so awake where that pays: the fault thread, a thread that serves its
            own faults, and a helper of the idle scheduling class in the place of a thread that the fault thread
            serves. False: they sleep, which takes less of the machine's time and makes single pages slower.
        io_depth: requests (1 to 256) that each thread which moves pages may have in flight; None: 256. Fewer only
            serve to find out what a disk needs (`uswap bench`).
        reclaimer: a Python thread steers reclaim; False: the native one does.
        policy: which pages leave: a uswap.Policy, a class of them, or the name of one that ships (uswap.policy);
            "default" is "second-chance".
            None: the core's own choice, those that came first; so it is without reclaimer, and where nothing is to
            be taken out ahead of need (write_ahead=False) and no policy is named.
        encrypt: what goes to the swap areas is encrypted (AES-128-XTS) with a key that ends with the pool;
            docs/limits.md says against what that helps. It takes a part of the limit, Stats.bounce_bytes.
        snapshots: a forked child has the private regions as they were at the fork, under the same limit, and goes
            on with them. What is in memory is evicted at each fork; False: a fork costs nothing, and a child that
            touches the pool's memory is ended. In a named pool the child is a member of its own; shared regions are
            not inherited (docs/sharing.md).
        stall: with limit="auto", the share of its run time, above 0 and below 1, that the program may wait for
            pages; None: 0.02.
        limit_max: with limit="auto", the largest limit in bytes, or as text; None: as with limit=None.
        name: other processes of this user join the pool by it (uswap.attach); limit is then the limit of all of
            them together. 1 to 63 of A-Z a-z 0-9 . _ -, not beginning with ".". docs/sharing.md says what follows
            from it.
        map_for_peers: of a named pool, for all who join it: a shared page that one process brings in is set up in
            all that have its region. Fewer faults; slower where processes wait for a processor
            (benchmarks/README.md).

    Raises:
        ValueError, TypeError: a bad argument; LimitError for a limit below minimum_limit.
        UnsupportedError: the kernel or a container refuses userfaultfd, or what was asked for by name; also faults=
            "thread" where this user may not have it, and encrypt=True where uswap was built without libcrypto; and
            name together with limit="auto" or encrypt=True.
        PoolExistsError: a pool of that name is in use.
        SwapAreaError: a swap area cannot be used. SystemCallError: any other failure of the system.

    As a context manager it closes to new regions at the end of the block, and is freed with the last array or
    region, which may outlive the block. close() frees it at once, or says what is still in use. Nothing has
    to be closed: a pool that nobody refers to ends in the same way.

    Thread-safety: all methods may be called from any thread. In a forked child that could not go on with the
        pool they raise ForkError.

    Example:
        >>> import uswap
        >>> with uswap.Pool(limit="64MiB") as pool:
        ...     a = pool.zeros((1 << 25,), dtype="f8")      # 256 MiB
        ...     a += 1
        ...     print(a.sum(), pool.stats().peak_resident_bytes <= pool.limit)
        33554432.0 True

        >>> with uswap.Pool(limit="64MiB", encrypt=True) as pool:
        ...     print(pool.stats().codec)
        aes-128-xts
    """

    _auto_limit: AutoLimit | None

    def __init__(
        self,
        limit: int | str | None = None,
        *,
        stall: float | None = None,
        limit_max: int | str | None = None,
        swap: SwapSpec = None,
        transport: Literal["auto", "move", "copy"] | str = "auto",
        recycle: bool = False,
        overcommit: bool = False,
        io: Literal["auto", "uring", "sync"] | str = "auto",
        fault_around: int | None = None,
        read_ahead: int | None = None,
        reclaim_batch: int | None = None,
        background: bool = True,
        verify: bool = True,
        faults: Literal["thread", "inline"] | None = None,
        write_ahead: bool = True,
        awake: bool = True,
        io_depth: int | None = None,
        reclaimer: bool = True,
        policy: Policy | type[Policy] | str | None = "default",
        encrypt: bool = False,
        snapshots: bool = True,
        name: str | None = None,
        map_for_peers: bool = False,
    ) -> None:
        require_core()
        if name is not None:
            _check_can_be_shared(limit, encrypt)
        target = _auto_target(limit, stall, limit_max)
        options = CoreOptions(
            _first_limit(limit if target is None else limit_max),
            transport=transport,
            io=io,
            recycle=recycle,
            overcommit=overcommit,
            fault_around=fault_around,
            read_ahead=read_ahead,
            reclaim_batch=reclaim_batch,
            background=background,
            verify=verify,
            faults=faults,
            write_ahead=write_ahead,
            awake=awake,
            io_depth=io_depth,
            encrypt=encrypt,
            snapshots=snapshots,
        )
        with making(name) if name is not None else contextlib.nullcontext() as folder:
            enter = None if folder is None else Making(folder, options.limit, bool(map_for_peers))
            self._start(options, swap, policy, reclaimer, enter=enter, stall=target)

    def _start(
        self,
        options: CoreOptions,
        swap: SwapSpec,
        policy: Policy | type[Policy] | str | None,
        reclaimer: bool,
        *,
        enter: Making | Joining | None,
        stall: float | None = None,
    ) -> None:
        """The rest of __init__. enter: how it becomes a member of a named pool, if it is to be one. stall: that an
        auto limit is to keep to; None: there is none."""
        free_what_is_left()
        raw_options = options.to_core()
        areas = swap_areas(swap)
        if policy == "default":
            policy = DEFAULT_POLICY if options.write_ahead else None
        deciding = make_policy(policy)
        self._adopt(Core())
        self._core.create(raw_options)
        self._core.snapshots = options.snapshots
        try:
            self._note_fault_mode(options.faults)
            for area in areas:
                self._swapon(area)
            if enter is not None:
                enter(self._core, areas)
            if options.background and reclaimer:
                Reclaimer(self._core, deciding)
            if stall is not None:
                self._auto_limit = AutoLimit(self._core, stall, options.limit)
            if enter is not None:
                sharing.remember(self)
        except BaseException:
            self._core.close()
            raise

    def _adopt(self, core: Core) -> None:
        self._core = core
        self._small = SmallMemory(core)
        self._heap = PoolHeap(core)
        self._auto_limit = None

    def __repr__(self) -> str:
        if self._core.closing:
            return "<uswap.Pool closed>"
        try:
            stats = self.stats()
            named = f" {self.name!r} limit={format_size(self.limit)} part" if self.name else " limit"
        except (ClosedError, RuntimeError):
            return "<uswap.Pool>"
        return (
            f"<uswap.Pool{named}={format_size(stats.limit_bytes)} resident={format_size(stats.resident_bytes)}"
            f" managed={format_size(stats.managed_bytes)} swap={format_size(stats.swap_used_bytes)}>"
        )

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError("a Pool cannot be pickled: it is memory of this process")

    def _note_fault_mode(self, asked: str | None) -> None:
        stats = self.stats()
        self._core.inline = stats.fault_mode == "inline"
        if stats.user_mode_only and asked is None:
            warn_of_user_mode()

    # ---- the limit -----------------------------------------------------------------------------------------

    @property
    def limit(self) -> int:
        """The limit in bytes; of a named pool, that of all its processes together (Pool.stats has this one's part).
        It may be set at any time, to what Pool() takes: downwards, setting evicts until it holds. Setting it ends
        auto, if that is on: from then on it is what was set.

        Raises (when set): ValueError, TypeError, LimitError as Pool(); LimitError if too much is locked.
            BusyError: of a named pool, if processes that are stopped have too much of it, or another one has set
                another limit meanwhile: that one counts.
        """
        group = self._core.group
        return self.stats().limit_bytes if group is None else group.info().limit_bytes

    @limit.setter
    def limit(self, limit: int | str) -> None:
        wanted = checked_limit(limit)
        self._core.check_process()
        auto, self._auto_limit = self._auto_limit, None
        if auto is not None:
            auto.request_stop()
            auto.join()  # it may be just about to set another one
        group = self._core.group
        self._core.call(lib.uswap_pool_set_limit if group is None else lib.uswap_group_set_limit, wanted)

    @property
    def auto_limit(self) -> AutoLimit | None:
        """What adjusts the limit, and says which one it recommends; None: nothing does."""
        return self._auto_limit

    @property
    def minimum_limit(self) -> int:
        """The least limit in bytes that this pool can have."""
        return minimum_limit() + self.stats().bounce_bytes

    # ---- memory --------------------------------------------------------------------------------------------

    def region(
        self,
        size: int | str,
        name: str | None = None,
        *,
        faults: Literal["thread", "inline"] | None = None,
        priority: int = 0,
        reserve: int | str | None = None,
        shared: bool = False,
        exportable: bool = True,
    ) -> Region:
        """A region of size bytes (or "2GiB") of zeroes. name, up to 63 bytes of UTF-8, is for Pool.regions.

        shared: all processes of the (named) pool can have it: by its name (open_region), by pickling it or an array
        on it, and, if it is exportable, by its id (attach_region). Its size is rounded up to whole pages.

        faults: as in Pool; None: what the pool was made with. Fastest is "inline", if no system call is to see the
        memory, or only inside Region.resident. priority: see Region.priority. reserve: it can grow to so many bytes
        where it is, also while arrays use it (Region.resize): that takes addresses, no memory and no swap space.
        Of a shared region every process that opens it keeps as many.

        Raises:
            ValueError, TypeError: not a size, a bad name or no priority; reserve is less than size.
            OutOfSpaceError: not that much swap space left (see overcommit), or address space.
            UnsupportedError: shared=True in a pool without a name, or with faults="inline"; faults="thread" where
                it is not permitted.
            ClosedError, ForkError: the pool is closed, or not this process's.

        Example:
            >>> import uswap
            >>> with uswap.Pool(limit="64MiB") as pool:
            ...     r = pool.region("128MiB", faults="inline")
            ...     r[:5] = b"hello"
            ...     r.advise(uswap.Advice.PAGEOUT)
            ...     print(r[:5], r.info().fault_mode)
            ...     r.close()
            b'hello' inline
        """
        bytes_wanted = parse_size(size)
        room = bytes_wanted if reserve is None else parse_size(reserve, "reserve")
        if room < bytes_wanted:
            raise ValueError(f"reserve, {room} bytes, is less than the size of {bytes_wanted} bytes")
        if shared:
            return self._shared_region(bytes_wanted, room, name, faults, priority, exportable)
        return make_region(self._core, bytes_wanted, checked_name(name), faults, priority, room)

    # ---- what there is -------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """The state and the counters of this moment."""
        raw = ffi.new("uswap_stats *")
        self._core.call(lib.uswap_pool_stats, raw)
        return stats_from_core(ffi, lib, raw)

    def regions(self) -> list[RegionInfo]:
        """The private regions alive, oldest first; arrays of 256 KiB and up have a region each, smaller ones share
        some, and what NumPy allocates (Pool.numpy) others. Pool.shared_regions has the others."""
        return region_infos(self._core)

    @property
    def reclaimer(self) -> Reclaimer | None:
        """The Python thread that steers reclaim, if there is one."""
        found = self._core.reclaimer
        return found if isinstance(found, Reclaimer) else None

    def trace(
        self, path: str | os.PathLike[str], *, sample: float = 1.0, window: int | str | None = None
    ) -> Recording:
        """Records which pages the program touches, as far as it can be seen, into a file for ``uswap simulate`` and
        ``uswap curve``.

        Without a window these are the faults that happen anyway. With one, no more than that (bytes, or "4MiB")
        stays mapped: every touch of another page costs a soft fault, and is recorded; read-ahead is off meanwhile.
        sample: the share of pages that is watched and recorded, by their hash, for long runs: the rest stay mapped.

        The records pass through a buffer of half a MiB in memory; what does not fit while the disk is busy is lost
        and counted. Thread-safe.

        Raises:
            ArgumentError: sample or window is none; window without a policy.
            BusyError: a trace is being recorded. OSError: the file cannot be made.

        Example:
            >>> import tempfile, uswap
            >>> path = tempfile.mktemp(suffix=".trace")
            >>> with uswap.Pool(limit="64MiB") as pool:
            ...     a = pool.zeros((1 << 24,), dtype="f8")      # 128 MiB
            ...     with pool.trace(path, window="1MiB"):
            ...         a += 1
            >>> uswap.trace.Trace.open(path).end.complete
            True
        """
        from uswap.trace.recorder import Recording

        return Recording(self._core, self.reclaimer, path, sample, window)

    def evict(self, size: int | str) -> int:
        """Evicts the oldest pages, size bytes of them, and waits for the writes; => bytes evicted, 0 when
        none can be."""
        pages = -(-parse_size(size) // PAGE_BYTES)
        return self._core.call(lib.uswap_pool_evict, pages) * PAGE_BYTES

    def check(self) -> None:
        """The core's own consistency check over this process's pages and slots, and in a pool with a name over what
        all its processes share, whatever they are doing meanwhile; for tests. Raises CorruptionError."""
        self._core.call(lib.uswap_pool_check)
        if self._core.group is not None:
            self._core.call(lib.uswap_group_check)

    # ---- the end -------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """True if no new regions can be made."""
        return self._core.closing

    def close(self) -> None:
        """Frees everything now. Closing twice is no error.

        Raises:
            BufferError: regions or arrays are alive. Nothing has changed.
            ForkError: in a forked child.
        """
        core = self._core
        core.check_process()
        with _mapping.locked():
            self._small.settle()
            _mapping.drain()
            if core.has_regions:
                raise BufferError(f"the pool is in use: {described([*self.regions(), *self._shared_here()])}")
            self._end_heaps()
            core.close()
        self._join_threads()

    def _join_threads(self) -> None:
        for thread in (self._auto_limit, self.reclaimer):
            if thread is not None:
                thread.join()

    def __enter__(self) -> Pool:
        if self._core.closing:
            raise ClosedError("the pool is closed")
        return self

    def __exit__(self, *_: object) -> None:
        self._core.close()
        if not self._core.in_use:
            self._join_threads()

    def __del__(self) -> None:
        core = getattr(self, "_core", None)
        if core is not None:
            core.close()


def process_pool() -> Pool | None:
    """The pool that all memory of this process comes from, if it was started by `uswap run`; else None. Its limit
    may be set, and regions and arrays can be made in it; it ends with the process.

    Example:
        >>> import uswap
        >>> uswap.process_pool() is None        # an ordinary process
        True
    """
    global _process_pool
    if _process_pool is None and lib is not None and lib.uswap_process_pool() != ffi.NULL:
        core = Core(lib.uswap_process_pool())  # never freed
        pool = Pool.__new__(Pool)
        pool._adopt(core)
        core.group = run_group(core)
        _process_pool = pool
    return _process_pool


_process_pool: Pool | None = None


def _auto_target(limit: int | str | None, stall: float | None, limit_max: int | str | None) -> float | None:
    """The stall that an auto limit is to keep to; None: no auto limit. Raises ValueError, TypeError."""
    if limit == "auto":
        return checked_stall(DEFAULT_STALL if stall is None else stall)
    for name, value in (("stall", stall), ("limit_max", limit_max)):
        if value is not None:
            raise ValueError(f"{name} needs limit='auto'")
    return None


def _check_can_be_shared(limit: int | str | None, encrypt: bool) -> None:
    """Raises UnsupportedError for what a named pool cannot have yet."""
    if limit == "auto":
        raise UnsupportedError(
            "a named pool cannot find out its limit yet", hint="give one; it may be set at any time"
        )
    if encrypt:
        raise UnsupportedError("a named pool cannot be encrypted yet", hint="put its swap on an encrypted disk")


def _first_limit(limit: int | str | None) -> int:
    return checked_limit(default_limit() if limit is None else limit)
