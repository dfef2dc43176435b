"""Sealed pages (mapped write-protected, equal to their slots): stores, holds, discards and evictions."""

import ctypes
import errno
import mmap
import os
import random
import threading
from pathlib import Path

import pytest
from _support.failpoints import Action, armed, await_stopped, hits, release
from _support.workload import PAGE, Pages, in_threads
from conftest import PoolFactory

import uswap
from uswap._core import lib

# Pages that no stream and no cluster brings in together.
ALONE = list(range(5, 4000, 331))

needs_failpoints = pytest.mark.skipif(
    not lib.uswap_failpoints_built(), reason="the core was built without failpoints"
)


@pytest.fixture(params=["thread", "inline"])
def faults(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def sealed(pool: uswap.Pool, faults: str = "thread", mib: int = 16) -> tuple[uswap.Region, Pages]:
    """A region that is out, but for the pages ALONE: they have been read from their slots, and are sealed."""
    region = pool.region(mib << 20, faults=faults)
    pages = Pages(region)
    pages.fill(1)
    region.advise(uswap.Advice.PAGEOUT)
    pages.touch(ALONE)
    return region, pages


def test_a_page_that_was_only_read_leaves_without_a_look(pool_factory: PoolFactory, faults: str) -> None:
    pool = pool_factory("8MiB", write_ahead=False, policy=None)
    region, pages = sealed(pool, faults)
    before = pool.stats()
    region.advise(uswap.Advice.PAGEOUT)
    after = pool.stats()
    assert after.clean_drops - before.clean_drops == len(ALONE)
    assert after.pages_out == before.pages_out
    assert pages.wrong(1) == 0
    pool.check()


def test_a_store_breaks_the_seal_and_is_kept(pool_factory: PoolFactory, faults: str) -> None:
    pool = pool_factory("8MiB", write_ahead=False, policy=None)
    region, pages = sealed(pool, faults)
    before = pool.stats()
    pages.store(ALONE, [7] * len(ALONE))
    pages.store(ALONE, [8] * len(ALONE))
    with region.resident(ALONE[-1] * PAGE, PAGE):  # the last fault has been counted by now
        after = pool.stats()
    assert after.write_faults - before.write_faults == len(ALONE)
    assert after.faults == after.zero_fills + after.soft_faults + after.major_faults + after.write_faults
    region.advise(uswap.Advice.PAGEOUT)
    assert pool.stats().pages_out - after.pages_out == len(ALONE)
    assert pages.touch(ALONE) == 8 * len(ALONE)
    pool.check()


def test_a_page_that_is_written_at_once_is_never_sealed(pool_factory: PoolFactory, faults: str) -> None:
    pool = pool_factory("8MiB", write_ahead=False, policy=None)
    region = pool.region("16MiB", faults=faults)
    pages = Pages(region)
    pages.fill(1)
    region.advise(uswap.Advice.PAGEOUT)
    pages.store(ALONE, [7] * len(ALONE))
    assert pool.stats().write_faults == 0
    region.advise(uswap.Advice.PAGEOUT)
    assert pages.touch(ALONE) == 7 * len(ALONE)


def test_pages_that_are_read_and_then_written_cost_one_fault_in_the_long_run(make_pool: PoolFactory) -> None:
    pool = make_pool("8MiB")
    pages = Pages(pool.region("32MiB"))
    pages.fill(1)
    order = random.Random(3).choices(range(pages.count), k=8000)
    for start in range(0, len(order), 16):
        some = sorted(set(order[start : start + 16]))
        pages.touch(some)
        pages.store(some, [start + 1] * len(some))
    stats = pool.stats()
    assert stats.write_faults < 0.2 * stats.major_faults
    pool.check()


def test_a_held_page_is_written_by_system_calls(pool_factory: PoolFactory, faults: str, tmp_path: Path) -> None:
    pool = pool_factory("8MiB", write_ahead=False, policy=None)
    region, pages = sealed(pool, faults)
    data = tmp_path / "data"
    data.write_bytes(b"\x05" * PAGE)
    for number in ALONE[:4]:
        start = number * PAGE
        with region.resident(start, PAGE), data.open("rb", buffering=0) as file:
            assert file.readinto(memoryview(region)[start : start + PAGE]) == PAGE
    region.advise(uswap.Advice.PAGEOUT)
    assert pages.touch(ALONE[:4]) == 4 * int.from_bytes(b"\x05" * 8, "little")
    pool.check()


@pytest.mark.parametrize("direct", [0, os.O_DIRECT])
def test_a_system_call_breaks_the_seal(make_pool: PoolFactory, swap_directory: Path, direct: int) -> None:
    pool = make_pool("8MiB", transport="move", write_ahead=False, policy=None)
    region, pages = sealed(pool)
    path = swap_directory / "data"
    path.write_bytes(b"\x06" * PAGE)
    descriptor = os.open(path, os.O_RDONLY | direct)
    try:
        start = ALONE[0] * PAGE
        assert os.preadv(descriptor, [memoryview(region)[start : start + PAGE]], 0) == PAGE
    finally:
        os.close(descriptor)
        path.unlink()
    region.advise(uswap.Advice.PAGEOUT)
    assert pages.touch(ALONE[:1]) == int.from_bytes(b"\x06" * 8, "little")
    pool.check()


def test_discarded_pages_are_zeroes(pool_factory: PoolFactory, faults: str) -> None:
    pool = pool_factory("8MiB", write_ahead=False, policy=None)
    region, pages = sealed(pool, faults)
    for number in ALONE:
        region.advise(uswap.Advice.DONTNEED, number * PAGE, PAGE)
    region.advise(uswap.Advice.PAGEOUT)
    assert pages.touch(ALONE) == 0
    pool.check()


def test_pages_thrown_away_behind_our_back_are_zeroes(pool_factory: PoolFactory) -> None:
    pool = pool_factory("8MiB", write_ahead=False, policy=None)
    region, pages = sealed(pool)
    libc = ctypes.CDLL(None, use_errno=True)
    for number in ALONE:
        address = ctypes.c_void_p(pages.address + number * PAGE)
        assert libc.madvise(address, ctypes.c_size_t(PAGE), mmap.MADV_DONTNEED) == 0
    region.advise(uswap.Advice.PAGEOUT)
    assert pages.touch(ALONE) == 0
    assert pages.wrong(1, ALONE[0] + 1, 300) == 0


def test_an_area_that_goes_takes_no_contents_with_it(pool_factory: PoolFactory, swap_directory: Path) -> None:
    first, second = swap_directory / "first", swap_directory / "second"
    pool = pool_factory("8MiB", swap=uswap.SwapArea(first, "256MiB"), write_ahead=False, policy=None)
    region, pages = sealed(pool)
    pool.swapon(second, size="256MiB")
    pool.swapoff(first)
    region.advise(uswap.Advice.PAGEOUT)
    assert pages.wrong(1) == 0
    pages.store(ALONE, [9] * len(ALONE))
    region.advise(uswap.Advice.PAGEOUT)
    assert pages.touch(ALONE) == 9 * len(ALONE)
    pool.check()


@needs_failpoints
def test_pages_that_cannot_be_dropped_together_are_dropped_alone(pool_factory: PoolFactory) -> None:
    pool = pool_factory("8MiB", write_ahead=False, policy=None)
    region, pages = sealed(pool)
    before = pool.stats().clean_drops
    with armed("drop.mapped", Action.ERROR, errno.EPERM, every=True):
        region.advise(uswap.Advice.PAGEOUT)
        assert hits("drop.mapped") > 0
    assert pool.stats().clean_drops - before == len(ALONE)
    assert pages.wrong(1) == 0
    pool.check()


def test_pages_the_program_has_locked_stay(pool_factory: PoolFactory) -> None:
    pool = pool_factory("8MiB", write_ahead=False, policy=None)
    region, pages = sealed(pool)
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.c_void_p(pages.address + ALONE[0] * PAGE)
    if libc.mlock(address, ctypes.c_size_t(PAGE)) != 0:
        pytest.fail("mlock of one page is allowed to anybody")
    before = pool.stats()
    region.advise(uswap.Advice.PAGEOUT)
    after = pool.stats()
    assert after.evict_busy > before.evict_busy
    assert libc.munlock(address, ctypes.c_size_t(PAGE)) == 0
    assert pages.wrong(1) == 0
    pool.check()


def test_readers_and_writers_of_the_same_pages(pool_factory: PoolFactory, faults: str) -> None:
    pool = pool_factory("4MiB")
    region = pool.region("16MiB", faults=faults)
    pages = Pages(region)
    half = pages.count // 2
    pages.fill(1, 0, half)

    def work(number: int) -> None:
        chance = random.Random(number)
        if number < 2:  # read what nobody changes, among what the others write
            for _ in range(60):
                picked = [chance.randrange(half) for _ in range(50)]
                assert sum(pages.wrong(1, page, 1) for page in picked) == 0
        elif number == 2:
            for _ in range(20):
                region.advise(uswap.Advice.PAGEOUT, 0, half * PAGE)
        else:
            for turn in range(3000):
                page = half + chance.randrange(half)
                pages.touch([page])
                pages.store([page], [turn + 1])
                assert pages.touch([page]) == turn + 1

    in_threads(4, work)
    assert pages.wrong(1, 0, half) == 0
    pool.check()


def test_warm_frames_are_counted_and_come_back(make_pool: PoolFactory) -> None:
    pool = make_pool("32MiB", write_ahead=False)
    region, pages = sealed(pool)
    stats = pool.stats()
    assert stats.resident_bytes >= stats.mapped_bytes + stats.cached_bytes
    region.advise(uswap.Advice.PAGEOUT)
    kept = pool.stats().resident_bytes - pool.stats().metadata_charged_bytes
    assert kept <= 128 * PAGE  # a few frames that are read into again and again
    pool.limit = "8MiB"
    assert pages.wrong(1) == 0
    pool.check()


@needs_failpoints
def test_a_page_whose_slot_is_given_up_as_it_comes_in_is_not_sealed(
    make_pool: PoolFactory, swap_directory: Path
) -> None:
    """Slots become scarce (three quarters of them in use) between the decision to seal and the arrival."""
    area = uswap.SwapArea(swap_directory, size="32MiB")
    pool = make_pool("8MiB", swap=area, overcommit=True, transport="move", background=False, reclaimer=False)
    region = pool.region("32MiB")
    region.advise(uswap.Advice.RANDOM)
    pages = Pages(region)
    pages.fill(1, 0, 6000)
    region.advise(uswap.Advice.PAGEOUT)
    pages.fill(1, 6000, 400)
    with armed("uffd.copy", Action.STOP):
        thread = threading.Thread(target=pages.touch, args=([5],))
        thread.start()
        await_stopped("uffd.copy")
        region.advise(uswap.Advice.PAGEOUT, 6000 * PAGE, 400 * PAGE)
        assert pool.stats().swap_used_bytes > 0.75 * (32 << 20)
        release("uffd.copy")
        thread.join()
    pool.check()
    region.advise(uswap.Advice.PAGEOUT)
    assert pages.wrong(1, 0, 6400) == 0
