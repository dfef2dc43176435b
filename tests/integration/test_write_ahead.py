"""Write-ahead: the oldest pages are taken out and cleaned before they must leave; a touch brings them back."""

from collections.abc import Callable

from _support.workload import PAGE, Pages
from conftest import PoolFactory

import uswap
from uswap._core import ffi

BLOCK_PAGES = 512


def cached_pages(region: uswap.Region) -> list[int]:
    """Pages that are out of the region and in memory."""
    classes = region.page_classes()
    return [page for page, kind in enumerate(classes) if kind == uswap.PageClass.CACHED]


def waiting_pages(
    pool: uswap.Pool, region: uswap.Region, enough: Callable[[list[int]], object] = bool
) -> tuple[int, list[int]]:
    """The version all pages have, and pages that wait in memory, with nobody at work on them any more: enough of
    them."""
    pages = Pages(region)
    for version in range(1, 100):
        pages.fill(version)
        pool.limit = "96MiB"  # no pressure from here on
        pool.check()  # returns when nobody is in the core
        if enough(waiting := cached_pages(region)):
            return version, waiting
        pool.limit = "32MiB"
    raise AssertionError("too few pages were ever taken out ahead of need")


def test_a_page_taken_out_ahead_comes_back_without_a_read(pool_factory: PoolFactory) -> None:
    pool = pool_factory("32MiB", read_ahead=0)
    region = pool.region("64MiB")
    pages = Pages(region)
    version, waiting = waiting_pages(pool, region)
    assert pool.stats().write_ahead_pages > 0
    before = pool.stats()
    assert pages.wrong(version, waiting[-1], 1) == 0
    with region.resident(waiting[-1] * PAGE, PAGE):  # the fault has been counted by now
        after = pool.stats()
    assert after.pages_in == before.pages_in
    assert after.soft_faults > before.soft_faults
    pool.check()


def inactive_blocks(region: uswap.Region, waiting: list[int]) -> list[int]:
    """First pages of the blocks of 2 MiB of which all pages wait."""
    base = int(ffi.cast("uintptr_t", ffi.from_buffer(region)))
    there = set(waiting)
    first = -base // PAGE % BLOCK_PAGES
    return [
        block
        for block in range(first, len(region) // PAGE - BLOCK_PAGES + 1, BLOCK_PAGES)
        if there.issuperset(range(block, block + BLOCK_PAGES))
    ]


def pool_with_block(make_pool: PoolFactory) -> tuple[uswap.Pool, uswap.Region, int, list[int], int]:
    """A pool, its region, the version of its pages, those that wait, and the first page of a block that waits."""
    pool = make_pool("32MiB", transport="move", policy=None)
    region = pool.region("64MiB")
    version, waiting = waiting_pages(pool, region, lambda waiting: inactive_blocks(region, waiting))
    return pool, region, version, waiting, inactive_blocks(region, waiting)[-1]


def test_a_touch_inside_an_inactive_block_brings_back_one_page(make_pool: PoolFactory) -> None:
    pool, region, version, waiting, block = pool_with_block(make_pool)
    pages = Pages(region)
    region.advise(uswap.Advice.RANDOM)  # so that no stream of the filling leads there
    before = pool.stats()
    touched = [block + 200, block + 77, block, block + BLOCK_PAGES - 1]
    assert [pages.wrong(version, page, 1) for page in touched] == [0, 0, 0, 0]
    pool.check()  # returns when nobody is in the core
    assert set(waiting) - set(cached_pages(region)) == set(touched)
    assert pool.stats().pages_in == before.pages_in
    pages.fill(1000, block + 77, 1)
    region.advise(uswap.Advice.PAGEOUT)
    for page in (block + 76, block + 77, block + 78, *touched):
        assert pages.wrong(1000 if page == block + 77 else version, page, 1) == 0
    pool.check()


def test_who_enters_an_inactive_block_at_its_end_gets_all_of_it(make_pool: PoolFactory) -> None:
    pool, region, version, _, block = pool_with_block(make_pool)
    assert Pages(region).wrong(version, block, 1) == 0
    pool.check()
    assert not set(range(block, block + BLOCK_PAGES)) & set(cached_pages(region))


def test_what_is_written_to_a_page_that_came_back_is_not_lost(pool_factory: PoolFactory) -> None:
    pool = pool_factory("32MiB")
    region = pool.region("64MiB")
    pages = Pages(region)
    version, waiting = waiting_pages(pool, region)
    changed = set(waiting[::3])
    for page in changed:
        pages.fill(1000, page, 1)
    region.advise(uswap.Advice.PAGEOUT)
    for page in range(pages.count):
        assert pages.wrong(1000 if page in changed else version, page, 1) == 0
    pool.check()


def test_inactive_frames_count_and_are_the_first_to_go(pool_factory: PoolFactory) -> None:
    pool = pool_factory("32MiB")
    region = pool.region("64MiB")
    Pages(region).fill(1)
    stats = pool.stats()
    assert stats.inactive_bytes <= stats.cached_bytes <= stats.resident_bytes <= stats.limit_bytes
    pool.limit = "8MiB"
    stats = pool.stats()
    assert stats.resident_bytes <= 8 << 20
    assert stats.inactive_bytes <= 8 << 20
    assert Pages(region).wrong(1) == 0
    pool.check()


def test_without_write_ahead_nothing_is_taken_out_ahead(pool_factory: PoolFactory) -> None:
    pool = pool_factory("32MiB", write_ahead=False)
    region = pool.region("64MiB")
    pages = Pages(region)
    pages.fill(1)
    assert pages.wrong(1) == 0
    assert pool.stats().write_ahead_pages == 0
    assert pool.stats().inactive_bytes == 0


def test_a_discard_takes_the_frame_of_an_inactive_page(pool_factory: PoolFactory) -> None:
    pool = pool_factory("32MiB")
    region = pool.region("64MiB")
    pages = Pages(region)
    _, gone = waiting_pages(pool, region)
    for page in gone:
        region.advise(uswap.Advice.DONTNEED, page * PAGE, PAGE)
    assert sum(pages.wrong(0, page, 1) for page in gone) == 0
    pool.check()
