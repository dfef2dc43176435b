"""What a named pool looks like from outside: for `uswap ls`, and to tell a pool in use from what one has left
behind."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from uswap._core import check_error, error_from_core, ffi, lib, new_error
from uswap._errors import BusyError, ClosedError, UnsupportedError
from uswap._group_info import GroupInfo, MemberInfo, group_info_from_core, member_info_from_core
from uswap._stats import RegionInfo, shared_region_info_from_core

MEMBERS_MAX = 64
OBJECTS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Look:
    """A named pool at one moment, its members and its shared regions."""

    group: GroupInfo
    members: list[MemberInfo]
    regions: list[RegionInfo]


def look(folder: Path) -> Look | None:
    """The pool whose folder that is; None: it has no living member.

    Raises:
        UnsupportedError: it is of an incompatible build, or in another process namespace. BusyError: all its
            processes are stopped. SwapAreaError: another user's. SystemCallError.
    """
    info = ffi.new("uswap_group_info *")
    members = ffi.new("uswap_member_info[]", MEMBERS_MAX)
    objects = ffi.new("uswap_object_info[]", OBJECTS_MAX)
    error = new_error()
    status = int(lib.uswap_group_look(os.fsencode(folder), info, members, MEMBERS_MAX, objects, OBJECTS_MAX, error))
    if status < 0 and isinstance(error_from_core(error, status), ClosedError):
        return None
    check_error(status, error)
    return Look(
        group_info_from_core(info),
        [member_info_from_core(members[i]) for i in range(min(int(info.members), MEMBERS_MAX))],
        [shared_region_info_from_core(ffi, objects[i]) for i in range(min(int(info.objects), OBJECTS_MAX))],
    )


def is_deserted(folder: Path) -> bool:
    """Whether nobody alive is in the pool whose folder that is. Waits for nobody, also where all are stopped.
    Context: the folder is locked, so nobody is just coming. Raises as look, but BusyError."""
    error = new_error()
    try:
        return check_error(lib.uswap_group_living(os.fsencode(folder), error), error) == 0
    except ClosedError:  # it has gone
        return True


def is_alive(folder: Path) -> bool:
    """Whether the pool whose folder that is has a living member, also one that does not answer. Raises as look."""
    try:
        return look(folder) is not None
    except (UnsupportedError, BusyError):
        return True
