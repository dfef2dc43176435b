"""What makes a pool a member of a named one: how it comes in, what it knows of the others, and what is left when it
goes."""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uswap import _rendezvous
from uswap._core import Core, ffi, lib, live_cores, logger
from uswap._errors import UswapError
from uswap._group_info import GroupInfo, MemberInfo, group_info_from_core, member_info_from_core
from uswap._group_look import MEMBERS_MAX, OBJECTS_MAX
from uswap._options import SwapArea, default_directory

if TYPE_CHECKING:
    from uswap.shared_region import SharedRegion


# How long the end of the process waits for a thread that frees a core.
_END_SECONDS = 2.0


class Group:
    """A core's membership of a named pool. Thread-safe.

    Attributes:
        name: of the pool.
        folder: of the pool.
        open_regions: object's index -> the shared region that this process has of it: one mapping, whoever asks.
    """

    def __init__(self, core: Core, folder: Path) -> None:
        self.name = folder.name
        self.folder = folder
        self.open_regions: weakref.WeakValueDictionary[int, SharedRegion] = weakref.WeakValueDictionary()
        self._core = weakref.ref(core)

    @property
    def core(self) -> Core:
        core = self._core()
        assert core is not None  # it has us
        return core

    def info(self) -> GroupInfo:
        """Limit, members and counters of all together. Raises ClosedError, ForkError."""
        raw = ffi.new("uswap_group_info *")
        self.core.call(lib.uswap_group_get_info, raw)
        return group_info_from_core(raw)

    def members(self) -> list[MemberInfo]:
        """All of them, this one too. Raises ClosedError, ForkError."""
        raw = ffi.new("uswap_member_info[]", MEMBERS_MAX)
        count = self.core.call(lib.uswap_group_members, raw, MEMBERS_MAX)
        return [member_info_from_core(raw[i]) for i in range(min(count, MEMBERS_MAX))]

    def objects(self) -> list[Any]:
        """The uswap_object_info of each shared region. Raises ClosedError, ForkError."""
        raw = ffi.new("uswap_object_info[]", OBJECTS_MAX)
        count = self.core.call(lib.uswap_group_objects, raw, OBJECTS_MAX)
        # The array goes with the last of its elements only if they keep it.
        return [ffi.new("uswap_object_info *", raw[i]) for i in range(min(count, OBJECTS_MAX))]

    def left(self) -> None:
        """After the core has gone. Never waits."""
        _rendezvous.forget_lock(self.folder)

    def at_exit(self) -> None:
        """The process ends, with all it has mapped. If nobody else is a member (it may be one twice), nobody would
        remove the folder."""
        if not os.path.lexists(self.folder):
            return  # somebody else was the last; to lock it would only make a lock file again
        with _rendezvous.locked(self.folder, wait=1.0):
            if not self._is_found():
                return  # it may be another pool's by now
            # Who has died may not have been cleaned up after yet. 0: a forked child that is just coming.
            mine = os.getpid()
            if all(
                member.pid and (member.pid == mine or not os.path.exists(f"/proc/{member.pid}"))
                for member in self.members()
            ):
                self.core.abandon()  # what follows is for who comes next under that name
                _rendezvous.remove(self.folder)

    def _is_found(self) -> bool:
        """Whether a socket of this process is in the folder."""
        try:
            return any(entry.endswith(f"-{os.getpid()}") for entry in os.listdir(self.folder))
        except FileNotFoundError:
            return False


@dataclass(frozen=True)
class Making:
    """How a pool becomes the first member. Context: inside _rendezvous.making."""

    folder: Path
    limit: int
    map_for_peers: bool

    def __call__(self, core: Core, areas: list[SwapArea]) -> None:
        """Raises UswapError."""
        core.call(
            lib.uswap_group_create,
            os.fsencode(self.folder),
            self.limit,
            os.fsencode(_swap_folder(areas[0])),
            int(self.map_for_peers),
        )
        core.group = Group(core, self.folder)


@dataclass(frozen=True)
class Joining:
    """How a pool becomes a further member. Context: inside _rendezvous.joining."""

    folder: Path

    def __call__(self, core: Core, areas: list[SwapArea]) -> None:
        """Raises UswapError."""
        core.call(lib.uswap_group_join, os.fsencode(self.folder))
        core.group = Group(core, self.folder)


def run_group(core: Core) -> Group | None:
    """The named pool that `uswap run --shared` has made of the core of this process; None: it has not."""
    folder = os.environ.get("USWAP_RUN_POOL", "")
    info = ffi.new("uswap_group_info *")
    if not folder or int(lib.uswap_group_get_info(core.pointer, info, ffi.NULL)) != 0:
        return None
    return Group(core, Path(folder))


def _swap_folder(area: SwapArea) -> str:
    """Where the swap file of the shared pages goes: beside the first swap area, or, if that is a device, in the
    default directory. Raises SwapAreaError."""
    path = os.path.abspath(area.path)
    if area.is_directory:
        return path
    if os.path.exists(path) and not os.path.isfile(path):
        return default_directory()
    return os.path.dirname(path)


def _at_exit() -> None:
    for core in list(live_cores):
        if core.group is None or core.owner_pid != os.getpid():
            continue
        if core.closing and core.reclaimer is not None:
            core.reclaimer.join(
                _END_SECONDS
            )  # it may be just freeing the core, and would be cut off before it has left
        try:
            with contextlib.suppress(FileNotFoundError):
                if not core.freed:
                    core.group.at_exit()
        except UswapError as error:
            logger.debug("pool %r: its folder stays: %s", core.group.name, error)
        core.group.left()


atexit.register(_at_exit)
