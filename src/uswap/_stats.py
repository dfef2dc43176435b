"""What a pool and a region say about themselves: Stats, RegionInfo and SwapAreaInfo."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Stats:
    """The state and the counters of a pool at one moment; Pool.stats makes it.

    Sizes are in bytes where the name says _bytes, in frames or pages of 4096 bytes where it says so; counters
    count since the pool was made. The fields are those of uswap_stats in csrc/include/uswap_api.h.

    Attributes:
        limit_bytes: the hard limit on resident memory; in a named pool, this process's part of it, for its private
            pages.
        capacity_frames: frames that faults can use: the limit less the reserve, the metadata charge and
            bounce_bytes.
        transport: "move" or "copy": how pages enter and leave regions.
        io_kind: "uring" or "sync": how swap areas are read and written.
        fault_mode: "thread" or "inline": who serves the faults of regions that name no other way.
        user_mode_only: faults inside system calls are not permitted: "thread" is refused.
        codec: "none" or "aes-128-xts" (Pool(encrypt=True)): what pages go through on their way to swap.
        key_locked: the keys of the codec are locked in memory (RLIMIT_MEMLOCK may refuse that).
        resident_bytes: frames counted now: mapped, swap cache, in flight, metadata charge.
        peak_resident_bytes: the largest resident_bytes so far.
        mapped_bytes: frames mapped in regions.
        cached_bytes: frames in the swap cache, I/O in flight included.
        inactive_bytes: of cached_bytes, those of pages taken out ahead of need: clean, or being written.
        metadata_bytes: metadata touched.
        metadata_charged_bytes: the part of metadata_bytes that is counted as frames.
        bounce_bytes: counted for pages on their way through the codec, whether in use or not; 0 without one.
        locked_bytes: locked by Region.lock.
        pinned_bytes: pinned by Region.resident.
        managed_bytes: sum of the region sizes.
        swap_total_bytes: what the areas may grow to.
        swap_allocated_bytes: on disk now.
        swap_reserved_bytes: promised to regions.
        swap_used_bytes: slots in use.
        swap_lent_bytes: of them, those that only forked processes use any more.
        bad_slots: slots the device refused; they are used again only when there are no others.
        over_limit_frames: frames over the limit now.
        over_limit_events: times the limit was exceeded by a frame that could not wait.
        poisoned_pages: pages whose contents are lost: a touch ends the process.
        regions: regions alive.
        unanswered_ns: for how long the oldest read or write that has no answer yet has been with its disk; 0: there
            is none.
        faults: faults that had something to do: zero_fills + soft_faults + major_faults + write_faults.
        inline_faults: faults served by the thread that had them, duplicates included.
        zero_fills: first touches.
        soft_faults: faults served without a read: from the swap cache, or made again from one value.
        major_faults: faults that waited for a read.
        write_faults: first stores to pages that had come in write-protected, to be dropped unseen if they stay as
            they are.
        duplicate_faults: messages for a page that was there already, or that another one had asked for at the same
            time.
        parked_faults: faults that had to wait for a frame.
        write_waits: of parked_faults, those that had to wait while pages were being written.
        fault_around_pages: pages mapped beside the one touched, that needed no read: fresh or inactive ones.
        pages_in: pages read from swap areas.
        pages_out: pages written to swap areas.
        reads: read requests.
        writes: write requests.
        read_ahead_pages: of pages_in, those read before their fault.
        read_ahead_hits: markers and cached pages that were then wanted. Pages that are mapped as soon as they are
            there show no access, so these are a sample: the first page of each window, whole blocks, and pages
            that are wanted while they are being read.
        read_ahead_misses: faults that read a page which nobody had asked for.
        read_ahead_waste: pages dropped from the swap cache unused; of the same sample.
        evictions: pages taken out of regions.
        evictions_steered: evictions by the Python reclaimer.
        evictions_native: evictions by the native reclaimer.
        evictions_direct: evictions in the fault path.
        evictions_api: evictions by advise, evict and a lowered limit.
        clean_drops: evictions that needed no write: the slot had the same contents.
        zero_drops: evictions of pages full of zeroes: no slot, no write.
        filled_drops: evictions of pages full of another value (one 64-bit word, repeated): the same.
        evict_busy: victims the kernel had pinned.
        copy_fallbacks: pages that went by copy where move was refused.
        read_errors: pages that could not be read.
        write_errors: pages that could not be written; they stay in memory.
        hash_errors: pages that came back damaged.
        swap_full_events: evictions refused for lack of a slot.
        write_ahead_pages: of pages_out, those written before their frames were needed.
        rescues: of soft_faults, those on pages that were inactive or being written.
        refaults: of the pages that were read, those whose eviction had left its time (Batch.distances).
        policy_orders: pages that a policy has named in its answers.
        policy_passed: of them, those that were passed over: out of date, locked, of no use, or no page at all.
        policy_errors: policies that have failed (Reclaimer.error).
        stall_ns: sum over faults of message read to wake, or of signal to return.
        disk_stalls: times that a disk had not answered for 5 s: said on standard error, once until all is well.

    Example:
        >>> import uswap
        >>> with uswap.Pool(limit="64MiB") as pool:
        ...     pool.stats().limit_bytes
        67108864
    """

    limit_bytes: int
    capacity_frames: int
    transport: str
    io_kind: str
    fault_mode: str
    user_mode_only: bool
    codec: str
    key_locked: bool
    resident_bytes: int
    peak_resident_bytes: int
    mapped_bytes: int
    cached_bytes: int
    inactive_bytes: int
    metadata_bytes: int
    metadata_charged_bytes: int
    bounce_bytes: int
    locked_bytes: int
    pinned_bytes: int
    managed_bytes: int
    swap_total_bytes: int
    swap_allocated_bytes: int
    swap_reserved_bytes: int
    swap_used_bytes: int
    swap_lent_bytes: int
    bad_slots: int
    over_limit_frames: int
    over_limit_events: int
    poisoned_pages: int
    regions: int
    unanswered_ns: int
    faults: int
    inline_faults: int
    zero_fills: int
    soft_faults: int
    major_faults: int
    write_faults: int
    duplicate_faults: int
    parked_faults: int
    write_waits: int
    fault_around_pages: int
    pages_in: int
    pages_out: int
    reads: int
    writes: int
    read_ahead_pages: int
    read_ahead_hits: int
    read_ahead_misses: int
    read_ahead_waste: int
    evictions: int
    evictions_steered: int
    evictions_native: int
    evictions_direct: int
    evictions_api: int
    clean_drops: int
    zero_drops: int
    filled_drops: int
    evict_busy: int
    copy_fallbacks: int
    read_errors: int
    write_errors: int
    hash_errors: int
    swap_full_events: int
    write_ahead_pages: int
    rescues: int
    refaults: int
    policy_orders: int
    policy_passed: int
    policy_errors: int
    stall_ns: int
    disk_stalls: int

    def as_dict(self) -> dict[str, int | str]:
        """The fields by name, for JSON and the like."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RegionInfo:
    """One region at one moment; Region.info and Pool.regions make it.

    Attributes:
        name: what the region was called when it was made; "" if nothing.
        address: of its first byte.
        size: in bytes, as it was asked for.
        resident: bytes that are in memory.
        swapped: bytes whose contents are in swap or in the swap cache.
        locked: bytes locked by Region.lock or pinned by Region.resident.
        faults: served in this region so far.
        poisoned_pages: pages whose contents are lost.
        fault_mode: "thread" or "inline": who serves its faults.
        id: the core's number for it.
        priority: Region.priority.
        shared: it is a shared region of a named pool. Its figures are then of all processes together, each page
            counted once, and address is 0 where this process does not have it.
        users: how many processes have it.
        creator_pid: of the process that made a shared one; 0 for the others.
        shared_key: SharedRegion.key; 0 for the others.
    """

    name: str
    address: int
    size: int
    resident: int
    swapped: int
    locked: int
    faults: int
    poisoned_pages: int
    fault_mode: str
    id: int
    priority: int
    shared: bool = False
    users: int = 1
    creator_pid: int = 0
    shared_key: int = 0

    @property
    def key(self) -> int:
        """Region.key."""
        return self.shared_key if self.shared else region_key(self.id)


@dataclass(frozen=True, slots=True)
class SwapAreaInfo:
    """One swap area at one moment; Pool.areas makes it.

    Attributes:
        path: of the file or device; of the directory, where the file has no name.
        size: bytes it may grow to.
        allocated: bytes it takes on the disk now.
        used: bytes of slots in use.
        priority: areas with a higher one are filled first.
        unlinked: the file has no name: it is gone when the process is.
        direct: the page cache is bypassed (O_DIRECT).
        index: the core's number for it.
    """

    path: str
    size: int
    allocated: int
    used: int
    priority: int
    unlinked: bool
    direct: bool
    index: int


def stats_from_core(ffi: Any, lib: Any, raw: Any) -> Stats:
    """Stats from a uswap_stats."""
    values = {name: int(getattr(raw, name)) for name in _field_names(ffi, "uswap_stats")}
    transports = {lib.USWAP_TRANSPORT_MOVE: "move", lib.USWAP_TRANSPORT_COPY: "copy"}
    kinds = {lib.USWAP_IO_URING: "uring", lib.USWAP_IO_SYNC: "sync"}
    named: dict[str, Any] = dict(values)
    named["transport"] = transports.get(values["transport"], "auto")
    named["io_kind"] = kinds.get(values["io_kind"], "auto")
    named["fault_mode"] = _fault_mode_name(lib, values["fault_mode"])
    named["user_mode_only"] = bool(values["user_mode_only"])
    named["codec"] = "aes-128-xts" if values["codec"] == lib.USWAP_CODEC_AES_128_XTS else "none"
    named["key_locked"] = bool(values["key_locked"])
    return Stats(**named)


def region_key(region_id: int) -> int:
    """How stays (uswap.policy) name the region: the low four bits of its generation, and its index.

    Example:
        >>> region_key(17 << 16 | 5) == 1 << 14 | 5
        True
    """
    return (region_id >> 16 & 15) << 14 | region_id & 0x3FFF


def region_info_from_core(ffi: Any, lib: Any, raw: Any, size: int, priority: int) -> RegionInfo:
    """RegionInfo from a uswap_region_info; size and priority are what the program asked for."""
    return RegionInfo(
        name=ffi.string(raw.name).decode("utf-8", "replace"),
        address=int(raw.address),
        size=size,
        resident=int(raw.resident_bytes),
        swapped=int(raw.swapped_bytes),
        locked=int(raw.locked_bytes),
        faults=int(raw.faults),
        poisoned_pages=int(raw.poisoned_pages),
        fault_mode=_fault_mode_name(lib, int(raw.fault_mode)),
        id=int(raw.region),
        priority=priority,
    )


def shared_region_info_from_core(ffi: Any, raw: Any, address: int = 0) -> RegionInfo:
    """RegionInfo from a uswap_object_info; address: where this process has it."""
    return RegionInfo(
        name=ffi.string(raw.name).decode("utf-8", "replace"),
        address=address,
        size=int(raw.size_bytes),
        resident=int(raw.resident_bytes),
        swapped=int(raw.swapped_bytes),
        locked=int(raw.locked_bytes),
        faults=int(raw.faults),
        poisoned_pages=int(raw.poisoned_pages),
        fault_mode="thread",
        id=int(raw.creator_region),
        priority=int(raw.priority),
        shared=True,
        users=int(raw.mappers),
        creator_pid=int(raw.creator_pid),
        shared_key=int(raw.key),
    )


def area_info_from_core(ffi: Any, lib: Any, raw: Any) -> SwapAreaInfo:
    """SwapAreaInfo from a uswap_area_info."""
    return SwapAreaInfo(
        path=ffi.string(raw.path).decode("utf-8", "surrogateescape"),
        size=int(raw.size_bytes),
        allocated=int(raw.allocated_bytes),
        used=int(raw.used_bytes),
        priority=int(raw.priority),
        unlinked=bool(raw.notes & lib.USWAP_AREA_UNLINKED),
        direct=not raw.notes & lib.USWAP_AREA_NO_O_DIRECT,
        index=int(raw.area),
    )


def _fault_mode_name(lib: Any, mode: int) -> str:
    return "inline" if mode == lib.USWAP_FAULTS_INLINE else "thread"


def _field_names(ffi: Any, struct: str) -> list[str]:
    return [name for name, _ in ffi.typeof(struct).fields]
