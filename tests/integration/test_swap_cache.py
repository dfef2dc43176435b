"""The swap cache is real: N threads on one swapped page cost one read, and a fault on a page whose write is in
flight costs none."""

import threading

import pytest
from _support.failpoints import Action, armed, await_stopped, release
from _support.workload import Pages, in_threads
from conftest import PoolFactory

import uswap


@pytest.mark.parametrize("threads", [2, 8])
def test_threads_on_one_swapped_page_cost_one_read(pool_factory: PoolFactory, threads: int) -> None:
    pool = pool_factory(read_ahead=0)
    region = pool.region("1MiB")
    pages = Pages(region)
    pages.fill(1)
    region.advise(uswap.Advice.PAGEOUT)
    before = pool.stats()
    with armed("page_in.read", Action.STOP):
        workers = [threading.Thread(target=pages.wrong, args=(1, 7, 1)) for _ in range(threads)]
        for worker in workers:
            worker.start()
        await_stopped("page_in.read")
        release("page_in.read")
        for worker in workers:
            worker.join()
    after = pool.stats()
    assert pages.wrong(1, 7, 1) == 0
    assert after.pages_in - before.pages_in == 1
    assert after.reads - before.reads == 1


def test_a_fault_on_a_page_being_written_costs_no_read(pool_factory: PoolFactory) -> None:
    pool = pool_factory(read_ahead=0, background=False)
    region = pool.region("1MiB")
    pages = Pages(region)
    pages.fill(1)
    before = pool.stats()
    with armed("page_out.written", Action.STOP):
        evictor = threading.Thread(target=region.advise, args=(uswap.Advice.PAGEOUT, 0, 16 * 4096))
        evictor.start()
        await_stopped("page_out.written")
        # The pages are out of the region, their write has not ended for the core.
        assert region.page_classes(0, 16 * 4096) == bytes([uswap.PageClass.CACHED] * 16)
        in_threads(4, lambda number: pages.fill(2, 4 * number, 4))
        assert pages.wrong(2, 0, 16) == 0
        release("page_out.written")
        evictor.join()
    pool.check()  # returns when nobody is in the core: the last fault has been counted by now
    after = pool.stats()
    assert pages.wrong(2, 0, 16) == 0
    assert pages.wrong(1, 16) == 0
    assert after.pages_in == before.pages_in
    assert after.soft_faults - before.soft_faults >= 16
    pool.check()
    # The slots that were being written hold the first version, and must not be taken for the second.
    region.advise(uswap.Advice.PAGEOUT)
    assert pages.wrong(2, 0, 16) == 0


def test_clean_pages_are_not_written_again(pool_factory: PoolFactory) -> None:
    pool = pool_factory()
    region = pool.region("4MiB")
    pages = Pages(region)
    pages.fill(1)
    region.advise(uswap.Advice.PAGEOUT)
    written = pool.stats().pages_out
    assert pages.wrong(1) == 0
    region.advise(uswap.Advice.PAGEOUT)
    stats = pool.stats()
    assert stats.pages_out == written == pages.count
    assert stats.clean_drops == pages.count
    assert pages.wrong(1) == 0


def test_zero_pages_take_no_slot(pool_factory: PoolFactory) -> None:
    pool = pool_factory()
    region = pool.region("4MiB")
    region[:] = bytes(len(region))
    region.advise(uswap.Advice.PAGEOUT)
    stats = pool.stats()
    assert stats.pages_out == 0
    assert stats.zero_drops == len(region) // 4096
    assert region[:] == bytes(len(region))
