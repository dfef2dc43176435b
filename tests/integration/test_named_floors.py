"""What each member of a named pool needs at least, and has."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from _support.members import Member
from _support.waiting import await_that
from _support.workload import Pages

import uswap

MIB = 1 << 20


@pytest.fixture
def swap(swap_directory: Path) -> uswap.SwapArea:
    return uswap.SwapArea(swap_directory, size="1GiB")


def limit_of(pool: uswap.Pool, pid: int) -> int:
    return next(one.limit for one in pool.members() if one.pid == pid)


@pytest.mark.parametrize("limit", [None, "5GiB", "8GiB", "20GiB"])
def test_large_limits_are_begun_within_a_part_of_them(
    limit: str | None, runtime_folder: Path, swap_directory: Path
) -> None:
    """What a pool needs to know of its pages grows with the limit, and is in its floor. None: the machine's."""
    swap = uswap.SwapArea(swap_directory, size="64MiB")
    with uswap.Pool(limit, name="large", swap=swap) as pool, Member() as other:
        assert pool.stats().over_limit_frames == 0
        other(f"pool = uswap.attach('large', swap=uswap.SwapArea({str(swap_directory)!r}, size='64MiB'))")
        assert other("pool.stats().over_limit_frames") == 0
        assert limit_of(pool, other.pid) >= pool.group_info().floor_bytes
        assert pool.group_info().floor_bytes <= 24 * MIB, "what grows with a member's part is not in its floor"
        pool.check()


def test_a_refused_limit_names_one_that_is_enough(runtime_folder: Path, swap_directory: Path) -> None:
    swap = uswap.SwapArea(swap_directory, size="64MiB")
    with pytest.raises(uswap.LimitError, match="below") as refused:
        uswap.Pool("4MiB", name="small", swap=swap)
    least = re.search(r"is below (\d+)", str(refused.value))
    assert least is not None
    with pytest.raises(uswap.LimitError, match="below"):
        uswap.Pool(int(least[1]) - 4096, name="small", swap=swap)
    with uswap.Pool(int(least[1]), name="small", swap=swap) as pool:
        pool.check()


def test_a_part_that_is_given_back_needs_no_large_rings(runtime_folder: Path, swap_directory: Path) -> None:
    swap = uswap.SwapArea(swap_directory, size="256MiB")
    with uswap.Pool("4GiB", name="wide", swap=swap) as pool:
        pages = Pages(pool.region("192MiB"))
        pages.fill(1)
        assert limit_of(pool, os.getpid()) >= 192 * MIB
        pool.limit = "40MiB"
        await_that(lambda: limit_of(pool, os.getpid()) <= 40 * MIB)
        assert pool.stats().metadata_charged_bytes < MIB
        assert pages.wrong(1) == 0
        del pages
        pool.check()


@pytest.mark.parametrize(("before", "after"), [("40MiB", "48MiB"), ("32MiB", "128MiB"), ("48MiB", "40MiB")])
def test_who_joins_later_finds_his_floor_though_that_of_the_first_is_another(
    before: str, after: str, runtime_folder: Path, swap: uswap.SwapArea
) -> None:
    """The limit was changed meanwhile, and shared pages have all that there is."""
    with uswap.Pool(before, name="jobs", swap=swap) as pool:
        region = pool.region("192MiB", shared=True, name="all")
        pool.limit = after
        region[:] = os.urandom(1 << 20) * 192
        with Member() as other:
            other(f"swap = uswap.SwapArea({str(swap.path)!r}, size='1GiB')")
            other("pool = uswap.attach('jobs', swap=swap)")
            assert limit_of(pool, other.pid) >= pool.group_info().floor_bytes
            other("pool.close()")
        region.close()
