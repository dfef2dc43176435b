"""What a program may say about its memory: every Advice, locks and what they count for, and the live limit."""

import time

import pytest
from _support.waiting import await_that
from _support.workload import PAGE, Pages
from conftest import PoolFactory

import uswap
from uswap import Advice, PageClass

MIB = 1 << 20
OUT = {PageClass.SWAPPED, PageClass.CACHED}


def evictions_of_a_pass(pool: uswap.Pool, pages: Pages) -> int:
    before = pool.stats().evictions
    assert pages.wrong(1) == 0
    return pool.stats().evictions - before


def swapped_region(pool: uswap.Pool, size: int = 4 * MIB) -> tuple[uswap.Region, Pages]:
    """A region of pages that are all in their slots only."""
    region = pool.region(size)
    pages = Pages(region)
    pages.fill(1)
    region.advise(Advice.PAGEOUT)
    assert set(region.page_classes()) == {PageClass.SWAPPED}
    return region, pages


# ---- advice


def test_random_reads_only_what_is_touched(pool_factory: PoolFactory) -> None:
    pool = pool_factory()
    region, pages = swapped_region(pool)
    region.advise(Advice.RANDOM)
    assert pages.wrong(1, 0, 100) == 0
    stats = pool.stats()
    assert (stats.pages_in, stats.read_ahead_pages) == (100, 0)


def test_normal_reads_ahead_where_faults_follow_each_other(pool_factory: PoolFactory) -> None:
    pool = pool_factory()
    region, pages = swapped_region(pool)
    region.advise(Advice.RANDOM)
    region.advise(Advice.NORMAL)
    assert pages.wrong(1, 0, 512) == 0
    assert pool.stats().read_ahead_pages > 100


def test_sequential_reads_wide_from_the_first_fault_on(pool_factory: PoolFactory) -> None:
    read = {}
    for advice in (Advice.NORMAL, Advice.SEQUENTIAL):
        pool = pool_factory()
        region, pages = swapped_region(pool)
        region.advise(advice)
        pages.touch([100])
        region.lock(100 * PAGE, PAGE)  # the fault has ended for the core as well
        read[advice] = pool.stats().pages_in
        region.unlock(100 * PAGE, PAGE)
    assert read[Advice.SEQUENTIAL] >= read[Advice.NORMAL] + 16


def test_what_will_be_needed_is_read_without_a_touch(pool_factory: PoolFactory) -> None:
    pool = pool_factory()
    region, pages = swapped_region(pool)
    region.advise(Advice.WILLNEED, MIB, MIB)
    deadline = time.monotonic() + 30
    while PageClass.SWAPPED in region.page_classes(MIB, MIB) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert PageClass.SWAPPED not in region.page_classes(MIB, MIB)
    assert set(region.page_classes(2 * MIB, MIB)) == {PageClass.SWAPPED}
    assert pages.wrong(1, MIB // PAGE, MIB // PAGE) == 0
    assert pool.stats().read_ahead_misses == 0


def test_what_is_not_needed_is_zero_and_needs_no_slot(pool_factory: PoolFactory) -> None:
    pool = pool_factory()
    region, pages = swapped_region(pool)
    region.advise(Advice.DONTNEED, PAGE // 2, MIB)
    assert pages.wrong(1, 0, 1) == 0, "a page that lies only in part in the range stays"
    assert pages.wrong(0, 1, MIB // PAGE - 1) == 0
    assert pages.wrong(1, MIB // PAGE, 1) == 0
    assert pool.stats().swap_used_bytes <= 3 * MIB + 2 * PAGE


def test_what_is_cold_goes_first(pool_factory: PoolFactory) -> None:
    pool = pool_factory(write_ahead=False, background=False, fault_around=1)
    old, young = pool.region(2 * MIB), pool.region(2 * MIB)
    for region in (old, young):
        Pages(region).fill(1)
    young.advise(Advice.COLD, 0, MIB)
    assert pool.evict(MIB) == MIB
    assert set(young.page_classes(0, MIB)) <= OUT
    assert set(young.page_classes(MIB, MIB)) == set(old.page_classes()) == {PageClass.RESIDENT}


def test_what_is_paged_out_is_gone_from_memory_at_once(pool_factory: PoolFactory) -> None:
    pool = pool_factory()
    region = pool.region(4 * MIB)
    pages = Pages(region)
    pages.fill(1)
    region.advise(Advice.PAGEOUT, MIB, MIB)
    assert set(region.page_classes(MIB, MIB)) == {PageClass.SWAPPED}
    assert region.info().resident == 3 * MIB
    assert pages.wrong(1) == 0


# ---- locks


def test_locked_bytes_count_and_end_with_the_region(pool_factory: PoolFactory) -> None:
    pool = pool_factory()
    region, pages = swapped_region(pool)
    region.lock(MIB, 2 * MIB)
    region.lock(MIB, MIB)  # locks do not nest
    assert (pool.stats().locked_bytes, region.info().locked) == (2 * MIB, 2 * MIB)
    region.advise(Advice.PAGEOUT)
    pool.evict("16MiB")
    assert set(region.page_classes(MIB, 2 * MIB)) == {PageClass.RESIDENT}
    with pytest.raises(BlockingIOError, match="locked or pinned"):
        region.advise(Advice.DONTNEED, MIB, 2 * MIB)
    region.unlock(0, 2 * MIB)
    assert pool.stats().locked_bytes == MIB
    assert pages.wrong(1) == 0
    del pages
    region.close()
    assert pool.stats().locked_bytes == 0


def test_locks_are_bounded_and_one_too_large_changes_nothing(pool_factory: PoolFactory) -> None:
    pool = pool_factory("16MiB")
    region = pool.region("64MiB")
    pages = Pages(region)
    pages.fill(1)
    region.lock(0, 4 * MIB)
    for start, length in ((0, 64 * MIB), (4 * MIB, 12 * MIB)):
        with pytest.raises(uswap.LimitError):
            region.lock(start, length)
        assert pool.stats().locked_bytes == 4 * MIB
    assert pages.wrong(1) == 0, "what is left of the limit is enough to go on"
    stats = pool.stats()
    assert (stats.over_limit_events, stats.locked_bytes) == (0, 4 * MIB)


def test_the_limit_cannot_go_below_what_is_locked(pool_factory: PoolFactory) -> None:
    pool = pool_factory("32MiB")
    region = pool.region("16MiB")
    region.lock(0, 12 * MIB)
    with pytest.raises(uswap.LimitError, match="locked"):
        pool.limit = 12 * MIB
    assert pool.limit == 32 * MIB
    pool.limit = 20 * MIB
    assert pool.stats().resident_bytes <= 20 * MIB
    region.unlock()
    pool.limit = 8 * MIB
    assert pool.stats().resident_bytes <= 8 * MIB


# ---- the live limit


def test_a_raised_limit_is_used_at_once_and_a_lowered_one_holds(pool_factory: PoolFactory) -> None:
    pool = pool_factory("8MiB")
    region = pool.region("32MiB")
    pages = Pages(region)
    pages.fill(1)
    assert pool.stats().resident_bytes <= 8 * MIB
    pool.limit = "64MiB"
    # What was ordered to leave before that may still do so, and come back; then all of it stays.
    await_that(lambda: evictions_of_a_pass(pool, pages) == 0)
    now = pool.stats()
    assert now.mapped_bytes + now.cached_bytes >= 32 * MIB
    pool.limit = "8MiB"
    after = pool.stats()
    assert after.limit_bytes == 8 * MIB
    assert after.resident_bytes <= 8 * MIB
    assert pages.wrong(1) == 0
    assert pool.stats().over_limit_events == 0
