"""Addresses of shared regions come free only when no other process can be about to map something there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from _support.failpoints import Action
from _support.members import Member
from _support.pagemap import PAGE
from _support.waiting import await_that
from _support.workload import Pages

import uswap
from uswap._core import lib

MIB = 1 << 20
pytestmark = pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")


@pytest.fixture
def pool(runtime_folder: Path, swap_directory: Path) -> Iterator[uswap.Pool]:
    swap = uswap.SwapArea(swap_directory, size="256MiB")
    with uswap.Pool("32MiB", name="addresses", swap=swap, map_for_peers=True) as pool:
        yield pool
        pool._core.call(lib.uswap_group_check)
        pool.check()


@pytest.fixture
def stopped(pool: uswap.Pool, swap_directory: Path) -> Iterator[Member]:
    """Another process, stopped when it was about to map pages of the region "old" here, at the addresses as they
    were then."""
    with Member() as process:
        process(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='256MiB')")
        process("pool = uswap.attach('addresses', swap=swap); from _support.workload import Pages")
        process("from _support.failpoints import set_failpoint")
        old = pool.region(MIB, shared=True, name="old")
        process("old = pool.open_region('old')")
        process(f"set_failpoint('shared.looked', {int(Action.FREEZE)}, 0)")
        process.send("Pages(old).fill(1)")
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert len(old.users(0)) == 2
        yield process


def overlaps(region: uswap.Region, start: int) -> bool:
    return start - len(region) < region._address < start + MIB


def test_another_region_does_not_come_where_a_stopped_process_may_map(pool: uswap.Pool, stopped: Member) -> None:
    old = pool.open_region("old")
    start = old._address
    old.close()
    others = [pool.region(MIB, shared=True) for _ in range(8)]
    assert not any(overlaps(other, start) for other in others)
    for number, other in enumerate(others):
        Pages(other).fill(number + 2)
    stopped.go_on()
    assert stopped.answer() is None
    stopped("old.close()")
    for number, other in enumerate(others):
        assert Pages(other).wrong(number + 2) == 0
        other.close()

    def comes_free() -> bool:
        with pool.region(MIB, shared=True) as last:
            last[:PAGE] = b"x" * PAGE
        return start not in occupied()

    await_that(comes_free)


def occupied() -> list[int]:
    """Where mappings begin."""
    return [int(line.split("-")[0], 16) for line in Path("/proc/self/maps").read_text().splitlines()]


def test_nobody_is_waited_for_where_nothing_is_under_way(pool: uswap.Pool) -> None:
    starts = set()
    for _ in range(20):
        with pool.region(MIB, shared=True) as region:
            region[:PAGE] = b"x" * PAGE
            starts.add(region._address)
    assert len(starts) < 20
