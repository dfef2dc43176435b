"""Who joins waits for a member that is busy, but not for one that is stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
from _support.failpoints import Action, armed, hits
from _support.members import Member

import uswap
from uswap._core import lib

pytestmark = pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")

# Longer than the three rounds that a stopped member is asked in.
BUSY_MICROSECONDS = 3_000_000


def test_a_member_that_is_busy_lets_in_who_waits(runtime_folder: Path, swap_directory: Path) -> None:
    """Its only thread that answers is at a slow disk, say."""
    swap = uswap.SwapArea(swap_directory, size="256MiB")
    with uswap.Pool("64MiB", name="jobs", swap=swap) as pool, Member() as member:
        before = hits("peer.hello")
        with armed("peer.hello", Action.DELAY, BUSY_MICROSECONDS):
            member("pool = uswap.attach('jobs')")
            assert hits("peer.hello") > before
        assert len(pool.members()) == 2
        member("pool.close()")
