"""What a named pool says about itself: GroupInfo, MemberInfo, PageUser."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

MEMBER_STATES = {1: "joining", 2: "alive", 3: "leaving", 4: "dead"}


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A named pool, all its members together, at one moment; Pool.group_info makes it.

    Counters are of shared pages, since the pool was made. The fields are those of uswap_group_info in
    csrc/include/uswap_api.h.

    Attributes:
        limit_bytes: the limit of all members together.
        free_bytes: of it, what is nobody's now.
        shared_limit_bytes: of it, what is for shared pages now.
        shared_resident_bytes: shared pages in memory, each counted once, however many processes have it mapped.
        shared_swap_used_bytes: slots of shared pages in use.
        floor_bytes: what each member has at least.
        members: how many there are.
        objects: shared regions.
        faults: on shared pages.
        soft_faults: of them, those on pages that were in memory.
        pages_read, pages_written: from and to the swap file: once a page, however many processes use it.
        evictions: shared pages that left memory.
        clean_drops, zero_drops: of them, those that needed no write: their slot had the same contents; they were
            full of zeroes.
        mapped_for_peers: pages that were set up in other members when one brought them in.
    """

    limit_bytes: int
    free_bytes: int
    shared_limit_bytes: int
    shared_resident_bytes: int
    shared_swap_used_bytes: int
    floor_bytes: int
    members: int
    objects: int
    faults: int
    soft_faults: int
    pages_read: int
    pages_written: int
    evictions: int
    clean_drops: int
    zero_drops: int
    mapped_for_peers: int

    def as_dict(self) -> dict[str, int]:
        """The fields by name, for JSON and the like."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class MemberInfo:
    """A process of a named pool at one moment; Pool.members makes it.

    Attributes:
        pid: of the process; 0: a forked child that has not said yet who it is.
        state: "joining", "alive", "leaving", or "dead": the others are cleaning up after it.
        itself: it is the process that asks.
        limit: its part of the pool's limit in bytes, for its private pages.
        used: of it, bytes in use when it last looked around.
        silent_seconds: since its runtime last looked around; large if the process is stopped.
        member: the core's number for it.
    """

    pid: int
    state: str
    itself: bool
    limit: int
    used: int
    silent_seconds: float
    member: int


@dataclass(frozen=True, slots=True)
class PageUser:
    """A process that uses a page; Region.users makes it.

    Attributes:
        pid: of the process.
        mapped: it has the page itself mapped now, as far as this process can tell; otherwise the region only.
        page: number of the page in the region.
    """

    pid: int
    mapped: bool
    page: int


def group_info_from_core(raw: Any) -> GroupInfo:
    """From a uswap_group_info."""
    return GroupInfo(**{name: int(getattr(raw, name)) for name in GroupInfo.__slots__})


def member_info_from_core(raw: Any) -> MemberInfo:
    """From a uswap_member_info."""
    return MemberInfo(
        pid=int(raw.pid),
        state=MEMBER_STATES.get(int(raw.state), "unknown"),
        itself=bool(raw.self),
        limit=int(raw.limit_bytes),
        used=int(raw.private_bytes),
        silent_seconds=int(raw.silent_ns) / 1e9,
        member=int(raw.member),
    )


def page_user_from_core(raw: Any) -> PageUser:
    """From a uswap_page_user."""
    return PageUser(pid=int(raw.pid), mapped=bool(raw.mapped), page=int(raw.page))
