"""Blocks: 512 pages that are read, moved in and taken out together, and what happens when they cannot be."""

import errno
import threading
from pathlib import Path

import pytest
from _support.failpoints import Action, armed, await_stopped, release
from _support.program import run_program
from _support.workload import PAGE, Pages, in_threads
from conftest import PoolFactory

import uswap
from uswap._core import lib

BLOCK = 512
MIB = 1 << 20

needs_failpoints = pytest.mark.skipif(
    not lib.uswap_failpoints_built(), reason="the core was built without failpoints"
)


def filled(pool: uswap.Pool, size: str = "128MiB") -> tuple[uswap.Region, Pages]:
    """A region larger than the limit, every word written."""
    region = pool.region(size)
    pages = Pages(region)
    pages.fill(1)
    return region, pages


@pytest.mark.parametrize("recycle", [False, True])
@pytest.mark.parametrize("backward", [False, True])
def test_streams_are_read_in_large_requests(pool_factory: PoolFactory, recycle: bool, backward: bool) -> None:
    pool = pool_factory("64MiB", recycle=recycle)
    region, pages = filled(pool, "32MiB")
    region.advise(uswap.Advice.PAGEOUT)
    before = pool.stats()
    order = list(range(pages.count))
    pages.touch(order[::-1] if backward else order)
    after = pool.stats()
    assert after.pages_in - before.pages_in == pages.count
    if after.transport == "move":
        assert (after.reads - before.reads) < pages.count / 32
        assert after.major_faults + after.soft_faults - before.major_faults - before.soft_faults < pages.count / 32
    assert pages.wrong(1) == 0
    pool.check()


@pytest.mark.parametrize("backward", [False, True])
def test_sweep_after_sweep_is_a_stream(make_pool: PoolFactory, backward: bool) -> None:
    # What earlier sweeps leave behind (streams half forgotten, clusters read as groups) must not hide the next.
    pool = make_pool("64MiB", transport="move")
    _, pages = filled(pool, "256MiB")
    order = list(range(pages.count))
    if backward:
        order.reverse()
    sweeps, faults = 4, 0
    for _ in range(sweeps):
        assert pages.wrong(1, pages.count // 2) == 0
        assert pages.wrong(1, 0, pages.count // 2) == 0
        before = pool.stats().faults
        pages.touch(order)
        faults += pool.stats().faults - before
    # Without its stream a sweep faults twice for every 64 pages that lie together in the swap area. All sweeps
    # together: one may find the reclaimers late, because something else had the processors, and go page by page.
    assert faults < sweeps * pages.count / 64
    pool.check()


def test_a_region_larger_than_the_limit_streams_within_it(pool_factory: PoolFactory) -> None:
    pool = pool_factory("32MiB")
    _, pages = filled(pool)
    for _ in range(2):
        assert pages.wrong(1) == 0
        pages.touch(range(pages.count)[::-1])
    stats = pool.stats()
    assert stats.peak_resident_bytes <= stats.limit_bytes
    pool.check()


def test_first_touches_in_sequence_are_served_in_batches(pool_factory: PoolFactory) -> None:
    pool = pool_factory("64MiB")
    region, pages = filled(pool, "32MiB")
    with region.resident(len(region) - BLOCK * PAGE, BLOCK * PAGE):  # the last fault has been counted by now
        stats = pool.stats()
    assert stats.zero_fills + stats.fault_around_pages == pages.count
    assert stats.zero_fills < pages.count / 16
    assert pages.wrong(1) == 0
    pool.check()


def test_a_block_of_which_pages_are_in_or_gone_is_read_page_by_page(pool_factory: PoolFactory) -> None:
    pool = pool_factory("32MiB")
    region, pages = filled(pool)
    scattered = list(range(0, pages.count, 97))
    for page in scattered:
        region.advise(uswap.Advice.DONTNEED, page * PAGE, PAGE)
    region.advise(uswap.Advice.PAGEOUT)
    pages.touch([page + 1 for page in scattered if page + 1 < pages.count])
    for page in range(pages.count):
        assert pages.wrong(0 if page % 97 == 0 else 1, page, 1) == 0
    pool.check()


def test_threads_scan_write_and_discard_the_same_blocks(pool_factory: PoolFactory) -> None:
    pool = pool_factory("32MiB")
    region, pages = filled(pool, "96MiB")
    half = pages.count // 2
    done = threading.Event()

    def work(number: int) -> None:
        if number == 0:  # scans what nobody changes
            try:
                for _ in range(4):
                    assert pages.wrong(1, 0, half) == 0
            finally:
                done.set()
        elif number == 1:  # throws pages of the same blocks' neighbours away, and fills them again
            while not done.is_set():
                for page in range(half, pages.count, 700):
                    region.advise(uswap.Advice.DONTNEED, page * PAGE, 3 * PAGE)
                    pages.fill(2, page, 3)
        elif number == 2:
            while not done.is_set():
                region.advise(uswap.Advice.PAGEOUT, 0, 8 * MIB)
        else:
            while not done.is_set():
                assert pages.wrong_at_random(1, 7, 0) == 0
                pages.touch(list(range(3, half, 511)))

    in_threads(4, work)
    for page in range(half, pages.count):
        assert pages.wrong(2 if (page - half) % 700 < 3 else 1, page, 1) == 0
    pool.check()


def test_where_the_kernel_gives_no_huge_pages_all_is_the_same(swap_directory: Path) -> None:
    run_program(
        """
        import ctypes
        from _support.workload import Pages
        PR_SET_THP_DISABLE = 41
        assert ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0
        with uswap.Pool("32MiB", swap=SWAP) as pool:
            pages = Pages(region := pool.region("128MiB"))
            pages.fill(1)
            assert pages.wrong(1) == 0
            pool.check()
            assert pool.stats().peak_resident_bytes <= 32 << 20
            del pages
        """,
        swap_directory,
    )


@needs_failpoints
def test_no_memory_for_a_block(pool_factory: PoolFactory) -> None:
    pool = pool_factory("32MiB")
    with armed("block.populate", Action.ERROR, errno.ENOMEM, every=True):
        _, pages = filled(pool)
        assert pages.wrong(1) == 0
    assert pages.wrong(1) == 0
    pool.check()


@needs_failpoints
@pytest.mark.parametrize("name", ["page_in.read", "page_in.map", "uffd.move"])
def test_a_step_of_a_block_that_fails_loses_nothing(pool_factory: PoolFactory, name: str) -> None:
    pool = pool_factory("32MiB")
    _, pages = filled(pool)
    failure = errno.EIO if name == "page_in.read" else errno.EBUSY
    for nth in range(1, 40, 3):
        with armed(name, Action.ERROR, failure, nth=nth):
            assert pages.wrong(1, 0, pages.count // 4) == 0
    assert pages.wrong(1) == 0
    pool.check()


@needs_failpoints
@pytest.mark.filterwarnings("ignore::uswap.UswapWarning")
def test_one_damaged_page_of_a_block_is_the_only_one_lost(pool_factory: PoolFactory) -> None:
    pool = pool_factory("32MiB")
    region, pages = filled(pool)
    region.advise(uswap.Advice.PAGEOUT)
    start = 3 * BLOCK * PAGE
    with armed("page_in.hash", Action.FLIP, nth=101), armed("page_in.one", Action.ERROR, errno.EIO):
        region.advise(uswap.Advice.WILLNEED, start, BLOCK * PAGE)
        with pytest.raises(uswap.SwapError) as caught, region.resident(start, BLOCK * PAGE):
            pass
    assert caught.value.offset is not None
    bad = caught.value.offset // PAGE
    assert pool.stats().poisoned_pages == 1
    assert pages.wrong(1, 0, bad) == 0
    assert pages.wrong(1, bad + 1) == 0
    region.advise(uswap.Advice.DONTNEED, bad * PAGE, PAGE)
    assert pages.wrong(0, bad, 1) == 0
    pool.check()


@needs_failpoints
def test_pages_thrown_away_while_their_block_is_read(pool_factory: PoolFactory) -> None:
    pool = pool_factory("32MiB")
    region, pages = filled(pool)
    region.advise(uswap.Advice.PAGEOUT)
    with armed("page_in.read", Action.STOP):
        region.advise(uswap.Advice.WILLNEED, 0, 2 * BLOCK * PAGE)
        await_stopped("page_in.read")
        region.advise(uswap.Advice.DONTNEED, 10 * PAGE, 20 * PAGE)
        release("page_in.read")
    assert pages.wrong(0, 10, 20) == 0
    assert pages.wrong(1, 0, 10) == 0
    assert pages.wrong(1, 30) == 0
    pool.check()
