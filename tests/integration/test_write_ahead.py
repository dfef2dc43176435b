"""Write-ahead: the oldest pages are taken out and cleaned before they must leave; a touch brings them back."""

from _support.workload import PAGE, Pages
from conftest import PoolFactory

import uswap


def cached_pages(region: uswap.Region) -> list[int]:
    """Pages that are out of the region and in memory."""
    classes = region.page_classes()
    return [page for page, kind in enumerate(classes) if kind == uswap.PageClass.CACHED]


def test_a_page_taken_out_ahead_comes_back_without_a_read(pool_factory: PoolFactory) -> None:
    pool = pool_factory("32MiB", read_ahead=0)
    region = pool.region("64MiB")
    pages = Pages(region)
    pages.fill(1)
    assert pool.stats().write_ahead_pages > 0
    waiting = cached_pages(region)
    assert waiting
    before = pool.stats()
    assert pages.wrong(1, waiting[-1], 1) == 0
    after = pool.stats()
    assert after.pages_in == before.pages_in
    assert after.soft_faults > before.soft_faults
    pool.check()


def test_what_is_written_to_a_page_that_came_back_is_not_lost(pool_factory: PoolFactory) -> None:
    pool = pool_factory("32MiB")
    region = pool.region("64MiB")
    pages = Pages(region)
    pages.fill(1)
    changed = cached_pages(region)[::3]
    for page in changed:
        pages.fill(2, page, 1)
    region.advise(uswap.Advice.PAGEOUT)
    for page in range(pages.count):
        assert pages.wrong(2 if page in set(changed) else 1, page, 1) == 0
    pool.check()


def test_inactive_frames_count_and_are_the_first_to_go(pool_factory: PoolFactory) -> None:
    pool = pool_factory("32MiB")
    region = pool.region("64MiB")
    Pages(region).fill(1)
    stats = pool.stats()
    assert 0 < stats.inactive_bytes <= stats.cached_bytes <= stats.resident_bytes <= stats.limit_bytes
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
    pages.fill(1)
    gone = cached_pages(region)
    assert gone
    for page in gone:
        region.advise(uswap.Advice.DONTNEED, page * PAGE, PAGE)
    assert sum(pages.wrong(0, page, 1) for page in gone) == 0
    pool.check()
