"""Regions that grow, shrink and move while their pages come and go: contents, counts, and what is refused."""

from __future__ import annotations

import errno
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from _support.addresses import address_of, hem_in
from _support.failpoints import Action, armed
from _support.program import run_program
from _support.workload import PAGE, Pages, in_threads
from conftest import PoolFactory

import uswap
from uswap import Advice, PageClass, Protection
from uswap._core import lib

MIB = 1 << 20
READ, WRITE = Protection.READ, Protection.WRITE
needs_failpoints = pytest.mark.skipif(
    not lib.uswap_failpoints_built(), reason="the core was built without failpoints"
)


@pytest.fixture(params=["thread", "inline"])
def faults(request: pytest.FixtureRequest) -> Any:
    return request.param


def in_use(pool: uswap.Pool) -> int:
    """Bytes of slots that pages or the cache have: those of open clusters are nobody's."""
    pool.check()
    return sum(info.swapped for info in pool.regions())


# ---- in place ---------------------------------------------------------------------------------------------------


def test_growing_by_reserve_stays_where_it_is_under_live_exports(pool_factory: PoolFactory, faults: Any) -> None:
    numpy = pytest.importorskip("numpy")
    pool = pool_factory("4MiB")
    region = pool.region(4 * MIB, reserve=64 * MIB, faults=faults)
    Pages(region).fill(1)
    old_array, old_view, at = numpy.frombuffer(region, "u8"), memoryview(region), address_of(region)
    for size in (5 * MIB, 16 * MIB, 16 * MIB + 1, 64 * MIB):
        region.resize(size)
        assert (len(region), len(memoryview(region)), region.info().size) == (size,) * 3
        assert address_of(region) == at
        pool.check()
    assert len(old_view) == 4 * MIB
    assert old_array.nbytes == 4 * MIB
    assert Pages(old_view).wrong(1) == 0
    assert numpy.frombuffer(region, "u8")[old_array.size :].max() == 0
    Pages(region).fill(2)
    assert old_array[0] == numpy.frombuffer(region, "u8")[0]
    assert Pages(region).wrong(2) == 0
    assert pool.stats().managed_bytes == 64 * MIB


def test_without_room_behind_it_live_exports_refuse_growth(pool: uswap.Pool) -> None:
    region = pool.region(MIB)
    region[:] = b"x" * MIB
    hem_in(region)
    with memoryview(region), pytest.raises(BufferError, match="reserve="):
        region.resize(2 * MIB)
    assert region[:] == b"x" * MIB
    pool.check()
    region.resize(2 * MIB)
    assert region[:] == b"x" * MIB + bytes(MIB)
    region.close()


def test_live_exports_refuse_to_shrink(pool: uswap.Pool) -> None:
    region = pool.region(MIB, reserve=2 * MIB)
    region[:] = b"x" * MIB
    for size in (PAGE, MIB - 1):
        with memoryview(region), pytest.raises(BufferError, match="shrink"):
            region.resize(size)
    assert region[:] == b"x" * MIB
    region.resize(MIB)
    region.close()


def test_threads_fault_write_and_evict_while_another_grows_it(pool_factory: PoolFactory, faults: Any) -> None:
    pool = pool_factory("4MiB")
    region = pool.region(8 * MIB, reserve=1 << 30, faults=faults)
    pages = Pages(region)
    done = threading.Event()

    def grow() -> None:
        for size in range(8 * MIB + PAGE, 40 * MIB, MIB // 2 + 3 * PAGE):
            region.resize(size)
            region[size - 5 :] = b"grown"
            assert region[size - 5 :] == b"grown"
            time.sleep(0.005)
        done.set()

    def work(number: int) -> None:
        if number == 0:
            grow()
        while not done.is_set():
            if number == 1:
                pool.evict(MIB)
                region.advise(Advice.PAGEOUT, 0, 2 * MIB)
            else:
                assert pages.stress(number, 200) == 0

    in_threads(4, work)
    assert pages.wrong_after_stress() == 0
    pool.check()


def test_more_page_words_than_there_is_room_for_are_found_beside_threads_at_work(
    pool_factory: PoolFactory, faults: Any
) -> None:
    """In place without a reserve: the metadata is moved, with the region still for that moment."""
    pool = pool_factory("4MiB")
    done, regions = threading.Event(), []
    region = pool.region(8 * MIB, faults=faults)
    pages = Pages(region)

    def work(number: int) -> None:
        while not done.is_set():
            assert pages.stress(number + 1, 200) == 0
            region.verify(0, MIB)

    def grow() -> None:
        for size in range(9 * MIB, 33 * MIB, MIB):
            try:
                region.resize(size)
            except BufferError:
                regions.append(size)
        done.set()

    in_threads(4, lambda number: grow() if number == 3 else work(number))
    assert pages.wrong_after_stress() == 0
    assert len(region) in (8 * MIB, 32 * MIB) or regions
    pool.check()


# ---- moving -----------------------------------------------------------------------------------------------------


def test_what_moves_has_every_byte_at_four_times_the_limit(pool_factory: PoolFactory, faults: Any) -> None:
    pool = pool_factory("8MiB")
    region = pool.region(32 * MIB, faults=faults)
    Pages(region).fill(1)
    for size in (33 * MIB, 40 * MIB, 64 * MIB + 5):
        hem_in(region)
        before, reads = address_of(region), pool.stats().pages_in
        region.resize(size)
        assert address_of(region) != before
        assert (address_of(region) - before) % (2 * MIB) == 0
        assert pool.stats().pages_in == reads, "what is swapped out stays there"
        pool.check()
    assert Pages(region).wrong(1, 0, 32 * MIB // PAGE) == 0
    assert region[32 * MIB :] == bytes(32 * MIB + 5)
    pool.check()
    region.close()
    assert pool.stats().managed_bytes == 0


def test_huge_blocks_and_reads_in_flight_survive_moves(make_pool: PoolFactory) -> None:
    pool = make_pool("16MiB")
    region = pool.region(64 * MIB)
    Pages(region).fill(1)
    for turn in range(12):
        region.advise(Advice.WILLNEED, (turn * 5 % 64) * MIB, 4 * MIB)
        hem_in(region)
        region.resize(64 * MIB + (turn + 1) * PAGE)
        assert Pages(region).wrong(1, (turn * 7 % 60) * 256, 1024) == 0
    pool.check()
    assert Pages(region).wrong(1, 0, 64 * 256) == 0


def test_sealed_pages_can_be_written_after_a_move(make_pool: PoolFactory) -> None:
    pool = make_pool("4MiB")
    region = pool.region(16 * MIB)
    pages = Pages(region)
    pages.fill(1)
    order = random.Random(1).sample(range(pages.count), 700)
    pages.touch(order)
    del pages
    hem_in(region)
    region.resize(17 * MIB)
    pool.check()
    pages = Pages(region)
    assert pages.wrong(1, 0, 4096) == 0
    pages.fill(2)
    assert pages.wrong(2) == 0
    pool.check()


def test_what_is_stored_to_sealed_pages_right_after_a_move_is_kept(make_pool: PoolFactory) -> None:
    pool = make_pool("4MiB")
    region = pool.region(16 * MIB)
    pages = Pages(region)
    pages.fill(1)
    order = random.Random(1).sample(range(pages.count), 300)
    pages.touch(order)
    del pages
    hem_in(region)
    region.resize(17 * MIB)
    pages = Pages(region)
    pages.store(order, [7] * len(order))
    region.advise(Advice.PAGEOUT)
    assert pages.touch(order) == 7 * len(order)


def test_locked_pages_move_and_stay_locked(pool_factory: PoolFactory) -> None:
    pool = pool_factory("8MiB")
    region = pool.region(16 * MIB)
    Pages(region).fill(1)
    region.lock(MIB, MIB)
    hem_in(region)
    region.resize(17 * MIB)
    region.advise(Advice.PAGEOUT)
    assert set(region.page_classes(MIB, MIB)) == {PageClass.RESIDENT}
    assert pool.stats().locked_bytes == MIB
    pool.check()
    region.unlock()
    assert Pages(region).wrong(1, 0, 4096) == 0


def test_what_resident_holds_in_place_does_not_move(pool: uswap.Pool) -> None:
    region = pool.region(MIB)
    region[:] = b"y" * MIB
    hem_in(region)
    at = address_of(region)
    with region.resident(0, PAGE):
        with pytest.raises(uswap.BusyError, match="resident"):
            region.resize(2 * MIB)
        assert address_of(region) == at
        pool.check()
    region.resize(2 * MIB)
    assert region[:MIB] == b"y" * MIB
    region.close()


@needs_failpoints
@pytest.mark.parametrize("nth", [1, 3])
def test_a_move_that_cannot_be_finished_is_taken_back(pool_factory: PoolFactory, nth: int) -> None:
    pool = pool_factory("8MiB")
    region = pool.region(16 * MIB)
    pages = Pages(region)
    pages.fill(1)
    pages.touch(range(0, pages.count, 17))  # in many runs
    del pages
    region.protect(READ, 2 * MIB, MIB)
    hem_in(region)
    at = address_of(region)
    with armed("resize.move", Action.ERROR, errno.EBUSY, nth=nth, every=True), pytest.raises(uswap.BusyError):
        region.resize(17 * MIB)
    assert (address_of(region), len(region)) == (at, 16 * MIB)
    info = region.info()
    assert info.resident + info.swapped == 16 * MIB
    pool.check()
    assert Pages(region).wrong(1) == 0
    region.resize(17 * MIB)
    assert Pages(region).wrong(1, 0, 4096) == 0
    pool.check()


# ---- shrinking --------------------------------------------------------------------------------------------------


def test_shrinking_gives_back_exactly_what_was_behind_the_new_end(pool_factory: PoolFactory, faults: Any) -> None:
    pool = pool_factory("4MiB")
    region = pool.region(16 * MIB, faults=faults)
    Pages(region).fill(1)
    region.advise(Advice.PAGEOUT)
    assert in_use(pool) == 16 * MIB
    for size in (12 * MIB, 5 * MIB + 3 * PAGE, 3 * PAGE + 1):
        region.resize(size)
        assert in_use(pool) == -(-size // PAGE) * PAGE
        assert pool.stats().managed_bytes == -(-size // PAGE) * PAGE
    assert len(region) == 3 * PAGE + 1
    assert Pages(region).wrong(1) == 0
    with pytest.raises(IndexError):
        region[3 * PAGE + 1]
    region.close()


def test_what_has_been_cut_off_does_not_come_back(pool_factory: PoolFactory, faults: Any) -> None:
    pool = pool_factory("4MiB")
    for reserve in (None, 16 * MIB):
        region = pool.region(8 * MIB, reserve=reserve, faults=faults)
        for size in (3 * MIB, 3 * MIB + 77, 1, 5 * PAGE - 1):
            region.resize(8 * MIB)
            region[:] = b"o" * (8 * MIB)
            if size % 2:
                region.advise(Advice.PAGEOUT)
            region.resize(size)
            region.resize(8 * MIB)
            assert region[:] == b"o" * size + bytes(8 * MIB - size)
            pool.check()
        region.close()


def test_a_protected_last_page_is_filled_up_with_zeroes(pool: uswap.Pool) -> None:
    region = pool.region(2 * PAGE, reserve=MIB)
    region[:] = b"p" * (2 * PAGE)
    region.protect(READ)
    region.resize(PAGE + 5)
    region.advise(Advice.PAGEOUT)
    region.resize(3 * PAGE)
    assert region[:] == b"p" * (PAGE + 5) + bytes(2 * PAGE - 5)
    region[2 * PAGE] = 1  # what is new may be written
    region.close()


def test_what_is_held_cannot_be_cut_off(pool: uswap.Pool) -> None:
    region = pool.region(MIB)
    region[:] = b"z" * MIB
    region.lock(MIB - PAGE, PAGE)
    with pytest.raises(uswap.BusyError, match="locked"):
        region.resize(PAGE)
    assert region[:] == b"z" * MIB
    pool.check()
    region.unlock()
    with region.resident(MIB - PAGE, PAGE), pytest.raises(uswap.BusyError):
        region.resize(PAGE)
    region.resize(PAGE)
    assert region[:] == b"z" * PAGE
    region.close()


def test_addresses_of_a_reserve_go_with_the_region(pool: uswap.Pool) -> None:
    def mapped() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0]) * PAGE

    pool.region(PAGE, reserve=1 << 30).close()
    before = mapped()
    for _ in range(8):
        region = pool.region(MIB, reserve=4 << 30)
        assert mapped() >= before + (4 << 30)
        region.resize(2 * MIB)
        region.resize(PAGE)
        region.close()
    assert mapped() < before + (1 << 30)


# ---- with others at work ----------------------------------------------------------------------------------------


def test_resizes_beside_calls_on_the_region_and_faults_of_others(pool_factory: PoolFactory, faults: Any) -> None:
    pool = pool_factory("4MiB")
    region, other = pool.region(8 * MIB, faults=faults), Pages(pool.region(12 * MIB, faults=faults))
    done = threading.Event()
    marks = {page: page.to_bytes(8, "little") for page in range(0, 256, 7)}

    def resize() -> None:
        rng = random.Random(5)
        for page, mark in marks.items():
            region[page * PAGE : page * PAGE + 8] = mark
        for _ in range(40):
            if rng.random() < 0.5:
                hem_in(region)
            region.resize(rng.randrange(MIB, 24 * MIB))
            region[MIB:] = b"\x07" * (len(region) - MIB)
        done.set()

    def work(number: int) -> None:
        if number == 0:
            resize()
        while not done.is_set():
            if number == 1:
                region.advise(random.choice([Advice.PAGEOUT, Advice.COLD, Advice.WILLNEED]), 0, MIB)
                region.verify(0, MIB)
            elif number == 2:
                assert other.stress(3, 200) == 0
            else:
                for page, mark in marks.items():
                    assert region[page * PAGE : page * PAGE + 8] in (mark, bytes(8))
                region.info()

    try:
        in_threads(4, work)
    finally:
        done.set()
    for page, mark in marks.items():
        assert region[page * PAGE : page * PAGE + 8] == mark
    assert other.wrong_after_stress() == 0
    pool.check()


def test_protection_of_parts_stays_through_moves_and_cuts(pool_factory: PoolFactory) -> None:
    pool = pool_factory("4MiB")
    region = pool.region(16 * MIB)
    Pages(region).fill(1)
    region.protect(READ, 0, MIB)
    region.protect(READ, 5 * MIB, 3 * PAGE)
    region.protect(Protection.NONE, 9 * MIB, MIB)
    region.advise(Advice.PAGEOUT, 0, 4 * MIB)
    for size in (20 * MIB, 12 * MIB, 18 * MIB):
        hem_in(region)
        region.resize(size)
        pool.check()
        found = protections(region)
        assert found[:256] == ["r--"] * 256
        assert found[5 * 256 : 5 * 256 + 4] == ["r--", "r--", "r--", "rw-"]
        assert found[9 * 256 : 10 * 256] == ["---"] * 256
        assert set(found[10 * 256 :]) == {"rw-"}
        region.advise(Advice.PAGEOUT)
        pool.check()
    region.protect(READ | WRITE)
    assert Pages(region).wrong(1, 0, 12 * 256) == 0
    region.close()


def protections(region: uswap.Region) -> list[str]:
    """Of each page, what /proc/self/maps says."""
    start = address_of(region)
    found = ["?"] * (-(-len(region) // PAGE))
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights = line.split()[:2]
        low, high = (int(part, 16) for part in span.split("-"))
        for page in range(max((low - start) // PAGE, 0), min((high - start) // PAGE, len(found))):
            found[page] = rights[:3]
    return found


# ---- what is refused --------------------------------------------------------------------------------------------


def test_no_swap_space_for_more_changes_nothing(make_pool: PoolFactory, swap_directory: Path) -> None:
    pool = make_pool("4MiB", swap=uswap.SwapArea(swap_directory, size="24MiB"))
    region = pool.region(8 * MIB, reserve=1 << 30)
    Pages(region).fill(1)
    with pytest.raises(uswap.OutOfSpaceError):
        region.resize(64 * MIB)
    assert len(region) == 8 * MIB
    assert pool.stats().managed_bytes == 8 * MIB
    region.resize(12 * MIB)  # what was promised in vain is free again
    region.resize(MIB)
    other = pool.region(11 * MIB)  # and so is what the end had
    pool.check()
    assert Pages(region).wrong(1) == 0
    other.close()


def test_a_forked_child_resizes_its_own(swap_directory: Path) -> None:
    result = run_program(
        """
        import os, warnings
        warnings.simplefilter("ignore")
        pool = uswap.Pool("16MiB", swap=SWAP)
        region = pool.region("1MiB", reserve="1GiB")
        region.resize("3MiB")
        region[-5:] = b"there"
        pid = os.fork()
        if pid == 0:
            region.resize("4MiB")
            region[-4:] = b"here"
            right = region[(3 << 20) - 5 : 3 << 20] == b"there" and region[-4:] == b"here"
            region.resize("2MiB")
            pool.check()
            os._exit(7 if right and len(region) == 2 << 20 else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), region[-5:], len(region) == 3 << 20)
        pool.check()
        """,
        swap_directory,
    )
    assert result.stdout == "7 b'there' True\n"


# ---- against a model --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_random_resizes_are_what_a_bytearray_does(pool_factory: PoolFactory, faults: Any, seed: int) -> None:
    rng = random.Random(seed)
    pool = pool_factory("3MiB")
    region = pool.region(4 * MIB, reserve=rng.choice([None, 8 * MIB]), faults=faults)
    model = bytearray(4 * MIB)
    for _ in range(60):
        start = rng.randrange(len(model))
        data = rng.randbytes(min(rng.randrange(1, MIB), len(model) - start))
        region[start : start + len(data)] = data
        model[start : start + len(data)] = data
        size = rng.randrange(1, 12 * MIB)
        if rng.random() < 0.3:
            hem_in(region)
        if rng.random() < 0.3:
            pool.evict(rng.randrange(1, 3 * MIB))
        region.resize(size)
        model = model[:size] + bytes(max(0, size - len(model)))
        if rng.random() < 0.5:
            assert region[:] == model
        pool.check()
    assert region[:] == model
    region.close()
