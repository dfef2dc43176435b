"""os.fork with a live pool: the child goes on with its parent's private regions as they were, by a pool of its own
(csrc/README.md, Fork). Here is what of that is Python's: whose a Core is, and the thread that steers reclaim."""

from __future__ import annotations

import os
import warnings

from uswap._core import Core, live_cores, logger
from uswap._errors import UswapWarning
from uswap._group import Group
from uswap.policy.interface import Policy
from uswap.reclaimer import Reclaimer
from uswap.shared_region import leave_to_parent


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
    if core.group is not None:
        # Its place, sockets and threads are the core's; what it knows of regions is the parent's.
        for region in list(core.group.open_regions.values()):
            leave_to_parent(region)
        for cell in core.shared:
            cell[1] = 0  # whatever has not become known by name
        core.shared.clear()
        core.group = Group(core, core.group.folder)
    before, core.reclaimer = core.reclaimer, None
    if not isinstance(before, Reclaimer) or core.closing:
        return
    try:
        Reclaimer(core, _fresh(before.policy))
    except Exception as error:  # the native one does it
        logger.warning("a forked child has no Python reclaimer: %s", error)


def _in_child() -> None:
    for core in list(live_cores):
        if core.adopt():
            _go_on(core)


def register() -> None:
    """Called once, at import, after those whose locks are used here."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_warn_before_fork, after_in_child=_in_child)
