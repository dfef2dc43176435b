"""A lowered limit: what it may evict, what it must not wait for, and what it leaves."""

import threading

import pytest
from _support.failpoints import Action, armed, await_stopped, release
from _support.workload import Pages
from conftest import PoolFactory

import uswap
from uswap._core import lib

MIB = 1 << 20


def test_frames_that_only_circulate_are_given_up_first(pool_factory: PoolFactory) -> None:
    pool = pool_factory("32MiB", recycle=True, background=False)
    region = pool.region("24MiB")
    pages = Pages(region)
    pages.fill(1)
    pool.evict("20MiB")
    before = pool.stats()
    limit = before.mapped_bytes + MIB // 2
    assert before.resident_bytes > limit, "the frames are idle, not gone"
    pool.limit = limit
    after = pool.stats()
    assert after.resident_bytes <= limit
    assert after.mapped_bytes == before.mapped_bytes, "pages had to leave although idle frames were enough"
    assert pages.wrong(1) == 0


@pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")
def test_a_lowered_limit_waits_for_the_writes_of_others(pool_factory: PoolFactory) -> None:
    pool = pool_factory("8MiB", background=False)
    region = pool.region("4MiB")
    pages = Pages(region)
    pages.fill(1)
    set_to: list[int] = []

    def lower() -> None:
        pool.limit = 4 * MIB
        set_to.append(pool.limit)

    with armed("page_out.written", Action.STOP):
        evictor = threading.Thread(target=pool.evict, args=("4MiB",), daemon=True)
        evictor.start()
        await_stopped("page_out.written")
        lowering = threading.Thread(target=lower, daemon=True)
        lowering.start()
        lowering.join(timeout=0.3)  # long enough to have tried; it must neither end nor fail
        still_waiting = lowering.is_alive()
        met_already = pool.stats().resident_bytes <= 4 * MIB - 64 * 4096
        release("page_out.written")
        evictor.join(timeout=60)
        lowering.join(timeout=60)
    assert still_waiting or met_already
    assert set_to == [4 * MIB]
    assert pool.stats().resident_bytes <= 4 * MIB
    assert pages.wrong(1) == 0


def test_a_lowered_limit_is_met_beside_threads_that_take_every_frame(pool_factory: PoolFactory) -> None:
    """With loans of the reserve out at almost any moment, there may be no moment with all of it free."""
    pool = pool_factory("8MiB", background=False)
    region = pool.region("16MiB")
    pages = Pages(region)
    pages.fill(1)
    stop = threading.Event()
    wrong: list[int] = []

    def read(number: int) -> None:
        seed = number
        while not stop.is_set():
            seed += 4
            wrong.append(pages.wrong_at_random(1, seed, 200))

    threads = [threading.Thread(target=read, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for limit in range(8 * MIB, 5 * MIB, -128 * 1024):
            pool.limit = limit
            assert pool.stats().limit_bytes == limit
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert sum(wrong) == 0
    assert pool.stats().over_limit_events == 0
    with pytest.raises(uswap.LimitError):
        pool.limit = MIB


def test_rings_are_as_large_as_the_limit_needs(pool_factory: PoolFactory) -> None:
    """What the pool needs to know of its pages is of the limit: of a higher one it would take much of the lower."""
    pool = pool_factory("4GiB")
    region = pool.region("64MiB")
    pages = Pages(region)
    pages.fill(1)
    high = pool.stats().metadata_charged_bytes
    pool.limit = "16MiB"
    low = pool.stats()
    assert high > 8 * MIB > MIB > low.metadata_charged_bytes
    assert low.capacity_frames * 4096 > 12 * MIB
    assert pages.wrong(1) == 0
    pool.limit = "64MiB"
    assert pages.wrong(1) == 0
    pool.check()


def test_rings_full_of_pages_that_have_left_become_smaller_too(pool_factory: PoolFactory) -> None:
    pool = pool_factory("1GiB", background=False, write_ahead=False)
    region = pool.region("96MiB")
    for seed in range(15):  # discarded pages leave their entries: many more than there will be frames
        Pages(region).fill(seed)
        region.advise(uswap.Advice.DONTNEED)
    Pages(region).fill(99)
    high = pool.stats().metadata_charged_bytes
    pool.limit = "112MiB"
    assert pool.stats().metadata_charged_bytes < high // 4
    assert pool.stats().evictions == 0
    assert Pages(region).wrong(99) == 0
    pool.check()
