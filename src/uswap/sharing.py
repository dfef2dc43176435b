"""Joining named pools, and finding what was pickled by reference: attach, reopen."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

from uswap._core import require_core
from uswap._errors import ClosedError
from uswap._group import Joining
from uswap._group_look import look
from uswap._options import CoreOptions, SwapSpec
from uswap._rendezvous import checked_pool_name, joining
from uswap.shared_region import Reference, SharedRegion, open_region_by_reference

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from uswap.policy import Policy
    from uswap.pool import Pool
    from uswap.shared_array import Place, SharedArray

_Shared = TypeVar("_Shared")


class AttachOptions(TypedDict, total=False):
    """What attach takes besides, by name: as Pool does, for this process's private memory."""

    transport: Literal["auto", "move", "copy"] | str
    recycle: bool
    overcommit: bool
    io: Literal["auto", "uring", "sync"] | str
    fault_around: int | None
    read_ahead: int | None
    reclaim_batch: int | None
    background: bool
    verify: bool
    faults: Literal["thread", "inline"] | None
    write_ahead: bool
    awake: bool
    io_depth: int | None
    snapshots: bool


# The pools of this process by name, and those of them that unpickling has joined: nobody else may refer to these.
_lock = threading.RLock()
_joined: dict[str, list[weakref.ref[Pool]]] = {}
_kept: dict[str, Pool] = {}


def attach(
    name: str,
    *,
    swap: SwapSpec = None,
    policy: Policy | type[Policy] | str | None = "default",
    reclaimer: bool = True,
    **options: Unpack[AttachOptions],
) -> Pool:
    """Joins the named pool that another process of this user has made: a Pool as any other, whose private regions
    live in this process, under its part of the common limit.

    swap, policy, reclaimer and the options are those of Pool, and hold for this process. Each call makes a member
    of its own.

    Raises:
        PoolNotFoundError: no living process is in a pool of that name.
        LimitError: the limit has no floor for one more member. BusyError: there are as many members as there can
            be, or all are stopped.
        UnsupportedError: the pool was made by an incompatible build of uswap.
        Otherwise as Pool.

    Example:
        >>> import uswap
        >>> with uswap.Pool(limit="64MiB", name="attach-example") as pool:
        ...     with uswap.attach("attach-example") as member:
        ...         print(member.limit == pool.limit, len(pool.members()))
        True 2
    """
    from uswap.pool import Pool

    require_core()
    for option in ("limit", "encrypt"):
        if option in options:
            raise TypeError(f"attach takes no {option}: that is the pool's")
    for option in options:
        if option not in AttachOptions.__annotations__:
            raise TypeError(f"attach takes no {option}")
    checked_pool_name(name)
    with joining(name) as folder:
        seen = look(folder)
        if seen is None:
            raise ClosedError("no living process is in that pool")
        pool = Pool.__new__(Pool)
        pool._start(CoreOptions(seen.group.limit_bytes, **options), swap, policy, reclaimer, enter=Joining(folder))
    return pool


def reopen(shared: _Shared) -> _Shared:
    """The same shared region or array as this process has it: for a forked child, which inherits the object but not
    its memory. The pool is joined, if it has not been.

    Raises:
        TypeError: it is no SharedRegion or SharedArray. ClosedError: the region has ended. Otherwise as attach.

    Example:
        >>> import uswap
        >>> with uswap.Pool(limit="64MiB", name="reopen-example") as pool:
        ...     a = pool.zeros(1000, shared=True)
        ...     again = uswap.reopen(a)             # in a forked child, or, as here, anywhere
        ...     again += 7
        ...     print(a.sum())
        ...     del a, again
        7000.0
    """
    if isinstance(shared, SharedRegion):
        found: Any = open_reference(shared._reference)
        return found  # type: ignore[no-any-return]
    region = getattr(shared, "region", None)
    if not isinstance(region, SharedRegion):
        raise TypeError(f"a SharedRegion or a SharedArray on one can be reopened, not {type(shared).__name__}")
    from uswap.shared_array import place_of

    found = open_array(region._reference, place_of(shared, region))  # type: ignore[arg-type]
    return found  # type: ignore[no-any-return]


# ---- pickling by reference ---------------------------------------------------------------------------------


def remember(pool: Pool) -> None:
    """What is unpickled finds this pool by its name from here on."""
    with _lock:
        others = [other for other in _joined.get(pool.name, ()) if _is_ours(other())]
        _joined[pool.name] = [*others, weakref.ref(pool)]


def pool_named(name: str) -> Pool:
    """The pool of this process that has that name, joined if need be; then it stays until the process ends. Raises
    as attach."""
    with _lock:
        for found in reversed(_joined.get(name, [])):
            pool = found()
            if pool is not None and _is_ours(pool):
                return pool
        pool = _kept[name] = attach(name)
        return pool


def _is_ours(pool: Pool | None) -> bool:
    return pool is not None and not pool.closed and pool._core.owner_pid == os.getpid()


def open_reference(reference: Reference) -> SharedRegion:
    """Unpickles a SharedRegion. Raises as attach; ClosedError: the region has ended."""
    return open_region_by_reference(pool_named(reference.pool)._core, reference)


def open_array(reference: Reference, place: Place) -> SharedArray:
    """Unpickles a SharedArray. Raises as open_reference."""
    from uswap.shared_array import array_at, end_of

    region = open_reference(reference)
    if end_of(place) > len(region):
        region.refresh()  # its BufferError says what is in the way
    return array_at(region, place)


def _reset_in_child() -> None:
    # Pools that the child goes on with are found by their names as before; the others are looked for anew.
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_in_child)
