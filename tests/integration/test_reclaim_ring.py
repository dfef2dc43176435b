"""The reclaim ring: what is left there of pages that went by another way is swept out, and the others keep their
order."""

from _support.workload import Pages
from conftest import PoolFactory

import uswap

PAGE = 4096
# Of the ring of the smallest limits: RING_ENTRIES_LEAST.
CAPACITY = 4096


def evicted(region: uswap.Region, count: int) -> list[bool]:
    """Which of the first pages are out."""
    return [kind == uswap.PageClass.SWAPPED for kind in region.page_classes(0, count * PAGE)]


def test_a_ring_full_of_discarded_pages_is_swept_in_order(pool_factory: PoolFactory) -> None:
    pool = pool_factory("4MiB", background=False, write_ahead=False, fault_around=1, read_ahead=0, reclaimer=False)
    region = pool.region("4MiB")
    pages = Pages(region)
    pages.store(list(range(64)), list(range(1, 65)))
    churned = 64
    for turn in range(CAPACITY // 4 * 5):  # each leaves an entry of a stay that has ended
        pages.store([churned], [turn + 1])
        region.advise(uswap.Advice.DONTNEED, churned * PAGE, PAGE)
        if turn % 1024 == 0:
            pool.check()
    pages.store([65], [7])
    for _ in range(4):  # the oldest 16 of what is left, each time
        pool.evict(16 * PAGE)
    pool.check()
    assert evicted(region, 66) == [True] * 64 + [False] * 2
    assert [pages.touch([page]) for page in (0, 63, 65)] == [1, 64, 7]


def test_pages_leave_in_their_order_while_the_ring_is_being_swept(pool_factory: PoolFactory) -> None:
    pool = pool_factory("4MiB", background=False, write_ahead=False, fault_around=1, read_ahead=0, reclaimer=False)
    region = pool.region("4MiB")
    pages = Pages(region)
    count = 256
    pages.store(list(range(count)), list(range(1, count + 1)))
    turn, next_out = 0, 0
    # A sweep begins at three quarters, and takes a quarter of that many pushes.
    while next_out < count:
        for _ in range(19):
            turn += 1
            pages.store([count], [turn])
            region.advise(uswap.Advice.DONTNEED, count * PAGE, PAGE)
        if turn > CAPACITY // 8 * 5:
            next_out += pool.evict(PAGE) // PAGE
            assert evicted(region, count) == [page < next_out for page in range(count)]
    assert turn > CAPACITY // 4 * 5
    pool.check()
