"""os.fork with a live pool: the child goes on with its parent's private regions as they were, by a pool of its own
(csrc/README.md, Fork). Here is what of that is Python's: whose a Core is, and the thread that steers reclaim."""

from __future__ import annotations

import os
import warnings

from uswap._core import Core, lib, live_cores, logger
from uswap._errors import UswapWarning
from uswap._group import Group
from uswap._mapping import after_fork
from uswap.policy.interface import Policy
from uswap.reclaimer import Reclaimer
from uswap.shared_region import leave_to_parent

_INTERRUPTIONS_MAX = 100
_unfinished: set[Core] = set()


def _warn_before_fork() -> None:
    pid = os.getpid()
    lost = [
        core
        for core in live_cores
        if core.owner_pid == pid and not core.freed and core.group is None and not core.snapshots
    ]
    if lost:
        warnings.warn(
            "os.fork() with a live uswap.Pool made with snapshots=False: the child cannot use the pool's memory, "
            "and is ended if it touches it",
            UswapWarning,
            stacklevel=2,
        )


def _fresh(policy: Policy | None) -> Policy | None:
    """Another one of its kind, which knows nothing; None, and pages leave by age, if it cannot be made so."""
    if policy is None:
        return None
    try:
        return type(policy)()
    except Exception as error:
        logger.warning("the policy %r cannot be made again in a forked child: %s", policy, error)
        return None


def _go_on(core: Core) -> None:
    core.forget_threads()
    if core.group is not None:
        # Its place, sockets and threads are the core's; what it knows of regions is the parent's.
        for region in list(core.group.open_regions.values()):
            leave_to_parent(region)
        for cell in core.shared:
            cell[1] = 0  # whatever has not become known by name
        core.shared.clear()
        core.group = Group(core, core.group.folder)
    before = core.reclaimer
    if not isinstance(before, Reclaimer) or core.closing:
        core.reclaimer = None
    elif not before.running:  # it was the parent's
        try:
            core.call(lib.uswap_reclaimer_detach)  # an interrupted try may have been attached
            Reclaimer(core, _fresh(before.policy))
        except Exception as error:  # the native one does it
            core.reclaimer = None
            logger.warning("a forked child has no Python reclaimer: %s", error)


def in_child() -> None:
    """An exception of a signal handler, which the interpreter drops here as any other, must not leave the child
    without its pools: what it has cut off is done again, after as many of them as anybody can send."""
    interrupted: BaseException | None = None
    for _ in range(_INTERRUPTIONS_MAX):
        try:
            for core in list(live_cores):
                core.adopt(_unfinished)
            for core in list(_unfinished):
                _go_on(core)
                _unfinished.discard(core)
            after_fork()
            break
        except BaseException as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


def register() -> None:
    """Called once, at import, after those whose locks are used here."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_warn_before_fork, after_in_child=in_child)
