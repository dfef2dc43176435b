"""What a named Pool adds: shared regions, the other processes, and what all have together."""

from __future__ import annotations

from uswap._core import Core, ffi
from uswap._errors import ArgumentError, UnsupportedError
from uswap._group import Group
from uswap._group_info import GroupInfo, MemberInfo
from uswap._pool_checks import checked_name
from uswap._stats import RegionInfo, shared_region_info_from_core
from uswap.region import checked_priority
from uswap.shared_region import (
    SharedRegion,
    make_shared_region,
    open_region_by_id,
    open_region_by_name,
)


class PoolGroup:
    """A base of Pool. In a pool without a name all but ``name`` raise UnsupportedError."""

    _core: Core

    @property
    def name(self) -> str:
        """The pool's name; "" if it has none."""
        group = self._core.group
        return "" if group is None else group.name

    def _group(self) -> Group:
        group = self._core.group
        if group is None:
            raise UnsupportedError("nothing can be shared in a pool that has no name", hint="Pool(name=...)")
        return group

    def _shared_region(
        self, size: int, reserve: int, name: str | None, faults: str | None, priority: int, exportable: bool
    ) -> SharedRegion:
        self._group()
        if faults == "inline":
            raise UnsupportedError("faults of shared regions are served by a thread, not inline")
        checked_priority(priority)
        region = make_shared_region(self._core, size, reserve, checked_name(name), bool(exportable))
        if priority:
            region.priority = priority
        return region

    def open_region(self, name: str) -> SharedRegion:
        """The shared region of that name, whichever process has made it. In one process it is always the same
        object.

        Raises:
            ValueError: there is none. BusyError: nobody who has it answers (10 s): all are stopped.
            UnsupportedError: the pool has no name. ClosedError, ForkError: as everywhere.

        Example:
            >>> import uswap
            >>> with uswap.Pool(limit="32MiB", name="open-region-example") as pool:
            ...     r = pool.region("1MiB", shared=True, name="x")
            ...     print(pool.open_region("x") is r, r.users(0)[0].mapped)
            ...     r.close()
            True False
        """
        self._group()
        if not isinstance(name, str):
            raise TypeError(f"name must be text, not {type(name).__name__}")
        if not checked_name(name):
            raise ArgumentError("a shared region without a name is found by its id: attach_region")
        return open_region_by_name(self._core, name)

    def attach_region(self, pid: int, region_id: int) -> SharedRegion:
        """The shared region that the process pid, a member of this pool, knows by that id (Region.id): a
        large number chosen by chance, the same in all processes. A region made with exportable=False has none.

        Raises:
            ValueError: that process has no exportable shared region of that id.
            BusyError: nobody who has it answers (10 s): all are stopped.
            UnsupportedError: the pool has no name. ClosedError, ForkError: as everywhere.
        """
        self._group()
        return open_region_by_id(self._core, pid, region_id)

    def members(self) -> list[MemberInfo]:
        """The processes of the pool, this one among them."""
        return self._group().members()

    def group_info(self) -> GroupInfo:
        """Limit, shared pages and counters of all processes together."""
        return self._group().info()

    def shared_regions(self) -> list[RegionInfo]:
        """All shared regions of the pool, also those that this process does not have."""
        group = self._group()
        here = {index: region._address for index, region in list(group.open_regions.items())}
        return [shared_region_info_from_core(ffi, raw, here.get(int(raw.object), 0)) for raw in group.objects()]

    def _shared_here(self) -> list[RegionInfo]:
        """Those of them that this process has, for a message."""
        if self._core.group is None:
            return []
        mapped = {int(cell[0]) - 1 for cell in list(self._core.shared)}
        return [
            shared_region_info_from_core(ffi, raw)
            for raw in self._core.group.objects()
            if int(raw.object) in mapped
        ]
