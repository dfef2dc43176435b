"""What each member of a named pool needs at least, and has."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import pytest
from _support.failpoints import Action, armed
from _support.members import Member
from _support.program import run_program
from _support.waiting import await_that
from _support.workload import Pages

import uswap
from uswap._core import lib

MIB = 1 << 20


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


def test_a_forked_child_is_within_its_part_though_the_limit_was_raised(
    runtime_folder: Path, swap_directory: Path
) -> None:
    """Its bounce frames are those of its floor, which is its parent's."""
    out = run_program(
        """
        import os
        from _support.forks import child, end_of
        pool = uswap.Pool("64MiB", name="jobs", swap=SWAP)
        region = pool.region("8MiB")
        region[:] = b"x" * len(region)
        pool.limit = "512MiB"
        def work():
            pool.check()
            assert pool.stats().over_limit_frames == 0
            assert region[:].count(b"x") == len(region)
        for _ in range(4):
            assert end_of(child(work)) == 0
        region.close()
        pool.close()
        print("right")
        """,
        swap_directory,
    ).stdout
    assert out == "right\n"


@pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")
def test_one_chunk_is_not_shared_and_emptied_at_once(runtime_folder: Path, swap: uswap.SwapArea) -> None:
    """By two threads of one process, who have the same name for it while they are at it."""
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(uswap.Pool("96MiB", name="jobs", swap=swap))
        shared, private = pool.region("64MiB", shared=True), pool.region("48MiB")
        stack.callback(shared.close)
        stack.callback(private.close)
        for name in ("chunk.filled", "chunk.retired"):
            stack.enter_context(armed(name, Action.DELAY, 2000, every=True))
        for number in range(40):
            pool.limit = (40 * MIB, 56 * MIB, 96 * MIB)[number % 3]
            for region in (shared, private) if number % 2 else (private, shared):
                for start in range(0, len(region), 4096):
                    region[start] = number
                    if start % (4 * MIB) == 0:
                        pool.check()
