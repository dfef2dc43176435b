"""Faults served by the threads that have them: contents, the limit, waiting for each other, system calls."""

import ctypes
import errno
import mmap
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from _support.failpoints import Action, armed, await_stopped, hits, release
from _support.program import run_program
from _support.signals import native
from _support.workload import PAGE, Pages, in_threads
from conftest import PoolFactory

import uswap
from uswap._core import ffi, lib, new_error

LIMIT = 4 << 20
needs_failpoints = pytest.mark.skipif(
    not lib.uswap_failpoints_built(), reason="the core was built without failpoints"
)


def none_wrong(wrong: int) -> None:
    assert wrong == 0


@pytest.fixture
def swapped_out(pool_factory: PoolFactory) -> Callable[[], tuple[uswap.Region, Pages]]:
    """Makes an inline region of 1 MiB in version 1, all of it out, without read-ahead."""

    def make() -> tuple[uswap.Region, Pages]:
        region = pool_factory(LIMIT, read_ahead=0).region("1MiB", faults="inline")
        pages = Pages(region)
        pages.fill(1)
        region.advise(uswap.Advice.PAGEOUT)
        return region, pages

    return make


# ---- contents and the limit ------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 4, 8])
def test_contents_are_right_under_eviction(pool_factory: PoolFactory, threads: int) -> None:
    pool = pool_factory(LIMIT)
    pages = Pages(pool.region("16MiB", faults="inline"))
    in_threads(threads, lambda number: none_wrong(pages.stress(number + 1, 6000 // threads)))
    assert pages.wrong_after_stress() == 0
    stats = pool.stats()
    assert stats.inline_faults > 0
    assert stats.peak_resident_bytes <= LIMIT
    assert stats.over_limit_events == 0


@pytest.mark.parametrize(
    "reclaim", [{"background": False}, {"background": False, "reclaim_batch": 1}, {"recycle": True}]
)
def test_contents_are_right_whoever_makes_the_frames(pool_factory: PoolFactory, reclaim: dict[str, int]) -> None:
    pool = pool_factory(LIMIT, **reclaim)
    pages = Pages(pool.region("8MiB", faults="inline"))
    in_threads(4, lambda number: none_wrong(pages.stress(number + 1, 700)))
    assert pages.wrong_after_stress() == 0
    stats = pool.stats()
    assert stats.peak_resident_bytes <= LIMIT
    if "background" in reclaim:
        assert stats.evictions_direct > 0


def test_regions_of_both_kinds_in_one_pool(pool_factory: PoolFactory) -> None:
    pool = pool_factory(LIMIT)
    ways = ["inline", "thread", "inline", "thread"]
    regions = [Pages(pool.region("4MiB", faults=way)) for way in ways]  # type: ignore[arg-type]
    in_threads(4, lambda number: none_wrong(regions[number].stress(number + 1, 1500)))
    assert [pages.wrong_after_stress() for pages in regions] == [0] * 4
    assert [info.fault_mode for info in pool.regions()] == ways
    stats = pool.stats()
    assert 0 < stats.inline_faults < stats.faults


def test_more_threads_than_contexts(pool_factory: PoolFactory) -> None:
    pages = Pages(pool_factory(LIMIT).region("8MiB", faults="inline"))
    pages.fill(1)
    in_threads(40, lambda number: none_wrong(pages.wrong_at_random(1, number + 1, 100)))


def test_a_pool_of_inline_arrays(pool_factory: PoolFactory, tmp_path: Path) -> None:
    pool = pool_factory(LIMIT, faults="inline")
    assert pool.stats().fault_mode == "inline"
    array = pool.zeros(1 << 20)
    array[:] = np.arange(1 << 20)
    small = pool.full(10, 3.0)
    pool.evict("16MiB")
    assert array.sum() == np.arange(1 << 20, dtype="f8").sum()
    assert small.sum() == 30.0
    assert {info.fault_mode for info in pool.regions()} == {"inline"}
    np.save(tmp_path / "a.npy", np.arange(1 << 20))
    np.arange(1 << 20).tofile(tmp_path / "a.bin")
    assert (pool.load(tmp_path / "a.npy") == np.arange(1 << 20)).all()
    assert (pool.fromfile(tmp_path / "a.bin", dtype="i8") == np.arange(1 << 20)).all()


def test_the_reader_of_a_stream_has_its_pages_read_ahead(pool_factory: PoolFactory) -> None:
    pool = pool_factory(LIMIT)
    region = pool.region("16MiB", faults="inline")
    pages = Pages(region)
    pages.fill(1)
    region.advise(uswap.Advice.PAGEOUT)
    before = pool.stats()
    assert pages.wrong(1) == 0
    after = pool.stats()
    ahead = after.read_ahead_pages - before.read_ahead_pages
    assert ahead > pages.count // 2
    assert after.inline_faults - before.inline_faults < pages.count // 2


def test_what_is_announced_is_read(pool_factory: PoolFactory) -> None:
    pool = pool_factory("8MiB")
    region = pool.region("1MiB", faults="inline")
    pages = Pages(region)
    pages.fill(1)
    region.advise(uswap.Advice.PAGEOUT)
    region.advise(uswap.Advice.WILLNEED)
    with region.resident():
        assert pages.wrong(1) == 0
    assert pool.stats().read_ahead_pages > 0


def test_discards_locks_and_a_lowered_limit(pool_factory: PoolFactory) -> None:
    pool = pool_factory("8MiB")
    region = pool.region("16MiB", faults="inline")
    pages = Pages(region)
    pages.fill(1)
    region.lock(0, 1 << 20)
    pool.limit = "4MiB"
    assert pool.stats().resident_bytes <= 4 << 20
    assert set(region.page_classes(0, 1 << 20)) == {uswap.PageClass.RESIDENT}
    region.advise(uswap.Advice.DONTNEED, 1 << 20, 1 << 20)
    assert pages.wrong(0, 256, 256) == 0
    assert pages.wrong(1, 0, 256) + pages.wrong(1, 512) == 0
    region.unlock()
    region.protect(uswap.Protection.READ)
    region.advise(uswap.Advice.PAGEOUT)
    assert pages.wrong(1, 0, 256) == 0


def test_direct_reclaim_fits_on_a_small_stack(transport: str, swap_directory: Path) -> None:
    """In a thread with little stack, on an alternate signal stack of the usual size, with every fault evicting."""
    run_program(
        f"""
        from _support.signals import native
        from _support.workload import Pages
        pool = uswap.Pool("4MiB", swap=SWAP, transport={transport!r}, background=False)
        pages = Pages(pool.region("16MiB", faults="inline"))
        assert native().add_from_small_stack(pages.address, pages.count, 5) == 0
        assert native().add_from_small_stack(pages.address, pages.count, 6) == 0
        assert pages.touch(range(pages.count)) == 11 * pages.count
        assert pool.stats().evictions_direct > 0
        """,
        swap_directory,
    )


# ---- threads that meet on a page -------------------------------------------------------------------------


@needs_failpoints
def test_a_read_of_one_thread_serves_the_other(
    swapped_out: Callable[[], tuple[uswap.Region, Pages]],
) -> None:
    """The second one decides to sleep while the read ends: its wake-up is not lost."""
    _, pages = swapped_out()
    wrong: list[int] = []
    threads = [threading.Thread(target=lambda: wrong.append(pages.wrong(1, 7, 1)), daemon=True) for _ in range(2)]
    with armed("page_in.read", Action.STOP), armed("bring_in.wait", Action.STOP):
        threads[0].start()
        await_stopped("page_in.read")
        threads[1].start()
        await_stopped("bring_in.wait")
        release("page_in.read")
        threads[0].join(60)
        release("bring_in.wait")
        threads[1].join(60)
    assert wrong == [0, 0]


@needs_failpoints
def test_a_sleeper_is_woken_by_the_end_of_the_read(
    swapped_out: Callable[[], tuple[uswap.Region, Pages]],
) -> None:
    _, pages = swapped_out()
    wrong: list[int] = []
    threads = [threading.Thread(target=lambda: wrong.append(pages.wrong(1, 7, 1)), daemon=True) for _ in range(4)]
    with armed("page_in.read", Action.STOP):
        threads[0].start()
        await_stopped("page_in.read")
        with armed("bring_in.wait", Action.STOP, nth=3):
            for thread in threads[1:]:
                thread.start()
            await_stopped("bring_in.wait")
            release("bring_in.wait")
        release("page_in.read")
        for thread in threads:
            thread.join(60)
    assert wrong == [0, 0, 0, 0]


@needs_failpoints
def test_a_discard_wakes_a_sleeper(swapped_out: Callable[[], tuple[uswap.Region, Pages]]) -> None:
    region, pages = swapped_out()
    wrong: list[int] = []
    threads = [threading.Thread(target=lambda: wrong.append(pages.wrong(0, 7, 1)), daemon=True) for _ in range(2)]
    with armed("page_in.read", Action.STOP):
        threads[0].start()
        await_stopped("page_in.read")
        with armed("bring_in.wait", Action.STOP):
            threads[1].start()
            await_stopped("bring_in.wait")
            region.advise(uswap.Advice.DONTNEED, 7 * PAGE, PAGE)
            release("bring_in.wait")
        threads[1].join(60)
        assert wrong == [0], "the second one sleeps although the page it waits for is gone"
        release("page_in.read")
        threads[0].join(60)
    assert wrong == [0, 0]


@needs_failpoints
@pytest.mark.parametrize(
    "name", ["uffd.move", "uffd.copy", "uffd.zeropage", "page_in.map", "page_in.read", "page_out.slot"]
)
@pytest.mark.parametrize("nth", [1, 7])
def test_a_step_that_fails_once_loses_nothing(make_pool: PoolFactory, transport: str, name: str, nth: int) -> None:
    number = {"page_in.read": errno.EIO, "page_out.slot": errno.ENOSPC, "uffd.move": errno.EBUSY}
    pool = make_pool(LIMIT, transport=transport)
    region = pool.region("16MiB", faults="inline")
    pages = Pages(region)
    with armed(name, Action.ERROR, number.get(name, errno.EAGAIN), nth=nth):
        in_threads(4, lambda thread: none_wrong(pages.stress(thread + 1, 1500)))
        assert pages.wrong_after_stress() == 0
        if {"uffd.move": "move", "uffd.copy": "copy"}.get(name) in (None, transport):
            assert hits(name) >= nth


@needs_failpoints
def test_a_disk_that_refuses_writes_takes_inline_faults_over_the_limit(pool_factory: PoolFactory) -> None:
    pool = pool_factory(LIMIT)
    pages = Pages(pool.region("6MiB", faults="inline"))
    share = pages.count // 4
    with (
        armed("page_out.written", Action.ERROR, errno.EIO, every=True),
        armed("page_out.one", Action.ERROR, errno.EIO, every=True),
    ):
        in_threads(4, lambda number: pages.fill(1, number * share, share))
        assert pages.wrong(1) == 0
        stats = pool.stats()
        assert stats.over_limit_events > 0
        assert stats.write_errors > 0
    assert pages.wrong(1) == 0


@needs_failpoints
def test_a_region_is_destroyed_with_a_fault_in_flight(make_pool: PoolFactory) -> None:
    """Through the core's own calls, which leave ordinary memory: the thread goes on with zeroes or old words."""
    core = make_pool(LIMIT)._core
    memory = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages = Pages(memory)
    identity = ffi.new("uint64_t *")
    address = ffi.cast("void *", pages.address)
    core.call(lib.uswap_region_create, address, 1 << 20, b"", lib.USWAP_FAULTS_INLINE, identity)
    pages.fill(1)
    core.call(lib.uswap_region_advise, identity[0], 0, 1 << 20, int(uswap.Advice.PAGEOUT))
    values: list[int] = []
    reader = threading.Thread(target=lambda: values.append(pages.touch([7])), daemon=True)
    closer = threading.Thread(target=core.call, args=(lib.uswap_region_destroy, identity[0]), daemon=True)
    with armed("fault.inline", Action.STOP), armed("region.destroy", Action.STOP):
        reader.start()
        await_stopped("fault.inline")
        closer.start()
        await_stopped("region.destroy")
        release("region.destroy")
        release("fault.inline")
        reader.join(60)
        closer.join(60)
    expected = Pages(bytearray(1 << 20))
    expected.fill(1)
    assert values in ([0], [expected.touch([7])])
    assert pages.touch([8]) == 0


@needs_failpoints
def test_a_pin_that_waits_for_a_read_gives_up_when_the_region_goes(make_pool: PoolFactory) -> None:
    core = make_pool(LIMIT, read_ahead=0)._core
    memory = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages = Pages(memory)
    identity = ffi.new("uint64_t *")
    address = ffi.cast("void *", pages.address)
    core.call(lib.uswap_region_create, address, 1 << 20, b"", lib.USWAP_FAULTS_INLINE, identity)
    pages.fill(1)
    core.call(lib.uswap_region_advise, identity[0], 0, 1 << 20, int(uswap.Advice.PAGEOUT))
    error = new_error()
    status: list[int] = []
    threads = [
        threading.Thread(target=lambda: pages.touch([7]), daemon=True),
        threading.Thread(
            target=lambda: status.append(
                lib.uswap_region_pin(core.pointer, identity[0], 7 * PAGE, PAGE, ffi.new("uint8_t *"), error)
            ),
            daemon=True,
        ),
        threading.Thread(target=core.call, args=(lib.uswap_region_destroy, identity[0]), daemon=True),
    ]
    with armed("page_in.read", Action.STOP):
        threads[0].start()
        await_stopped("page_in.read")
        with armed("bring_in.wait", Action.STOP):
            threads[1].start()
            await_stopped("bring_in.wait")
            release("bring_in.wait")
        threads[2].start()
        threads[1].join(60)
        assert status == [lib.USWAP_E_OS]
        release("page_in.read")
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()


# ---- system calls, and the core's own touches ------------------------------------------------------------


def test_system_calls_get_efault_and_work_inside_resident(
    swapped_out: Callable[[], tuple[uswap.Region, Pages]],
) -> None:
    region, pages = swapped_out()
    ends = os.pipe()
    with memoryview(region) as view:
        with pytest.raises(OSError, match="Bad address") as refused:
            os.write(ends[1], view[:100])
        assert refused.value.errno == errno.EFAULT
        os.write(ends[1], b"new")
        with pytest.raises(OSError, match="Bad address"):
            os.readv(ends[0], [view[5 * PAGE : 5 * PAGE + 3]])
        with region.resident(5 * PAGE, PAGE):
            assert os.readv(ends[0], [view[5 * PAGE : 5 * PAGE + 3]]) == 3
        with region.resident():
            assert os.write(ends[1], view[:100]) == 100
        assert os.read(ends[0], 100) == view[:100]
    assert region[5 * PAGE : 5 * PAGE + 3] == b"new"
    assert pages.wrong(1, 0, 5) + pages.wrong(1, 6) == 0
    for end in ends:
        os.close(end)


def test_the_core_may_be_given_inline_memory_to_write_to(
    swapped_out: Callable[[], tuple[uswap.Region, Pages]],
) -> None:
    region, pages = swapped_out()
    core, error = region._core, new_error()
    for page in (3, 200):
        classes = ffi.cast("uint8_t *", pages.address + page * PAGE)
        assert lib.uswap_region_page_classes(core.pointer, region.id, 0, pages.count, classes, error) == 0
        got = region[page * PAGE : page * PAGE + pages.count]
        assert set(got) <= {uswap.PageClass.SWAPPED, uswap.PageClass.CACHED, uswap.PageClass.RESIDENT}
        region.advise(uswap.Advice.PAGEOUT)
    stats = ffi.cast("uswap_stats *", pages.address + 9 * PAGE)
    assert lib.uswap_pool_stats(core.pointer, stats, error) == 0
    assert stats.limit_bytes == LIMIT


def test_a_cancelled_thread_leaves_nothing_locked(swap_directory: Path) -> None:
    """pread and others are cancellation points; a fault is none."""
    run_program(
        """
        import ctypes, threading
        from _support.workload import Pages
        libc = ctypes.CDLL(None)
        pool = uswap.Pool("4MiB", swap=SWAP, read_ahead=0)
        region = pool.region("8MiB", faults="inline")
        pages = Pages(region)
        pages.fill(1)
        for page in range(0, pages.count, 64):
            region.advise(uswap.Advice.PAGEOUT)
            handle = ctypes.c_ulong()
            # strlen is no cancellation point: only what the handler calls could be one
            assert libc.pthread_create(ctypes.byref(handle), None, libc.strlen,
                                       ctypes.c_void_p(pages.address + page * 4096)) == 0
            libc.pthread_cancel(handle)
            libc.pthread_join(handle, None)
            assert pages.wrong(1, page, 1) == 0
        pool.check()
        """,
        swap_directory,
    )


def test_the_stress_of_a_pool_that_comes_and_goes_beside_another(make_pool: PoolFactory) -> None:
    """Handlers look through the list of pools while pools leave it."""
    pages = Pages(make_pool(LIMIT).region("8MiB", faults="inline"))
    done = threading.Event()
    wrong: list[int] = []

    def work(seed: int) -> None:
        while not done.is_set():
            wrong.append(pages.stress(seed, 50))
            seed += 10

    threads = [threading.Thread(target=work, args=(number + 1,), daemon=True) for number in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        other = make_pool(LIMIT)
        region = other.region("1MiB", faults="inline")
        Pages(region).fill(2)
        region.advise(uswap.Advice.PAGEOUT)
        assert Pages(region).wrong(2) == 0
        region.close()
        other.close()
    done.set()
    for thread in threads:
        thread.join(60)
    assert sum(wrong) == 0


def test_a_signal_handler_that_touches_managed_memory_runs_after_the_fault(
    swapped_out: Callable[[], tuple[uswap.Region, Pages]],
) -> None:
    """Every signal is blocked in the handler, so the program's own comes when the page is in."""
    if not lib.uswap_failpoints_built():
        pytest.skip("the core was built without failpoints")
    _, pages = swapped_out()
    expected = Pages(bytearray(1 << 20))
    expected.fill(1)
    before = native().looks()
    old = signal.getsignal(signal.SIGUSR1)
    native().look_on_signal(signal.SIGUSR1, pages.address + 9 * PAGE)
    found: list[int] = []
    try:
        with armed("fault.inline", Action.STOP):
            reader = threading.Thread(target=lambda: found.append(pages.wrong(1, 7, 1)), daemon=True)
            reader.start()
            await_stopped("fault.inline")
            assert reader.ident is not None
            signal.pthread_kill(reader.ident, signal.SIGUSR1)
            assert native().looks() == before
            release("fault.inline")
            reader.join(60)
    finally:
        signal.signal(signal.SIGUSR1, old if old is not None else signal.SIG_DFL)
    assert found == [0]
    assert native().looks() == before + 1
    assert native().last_look() == expected.touch([9])


def test_the_address_of_a_fault_in_the_last_byte(swapped_out: Callable[[], tuple[uswap.Region, Pages]]) -> None:
    region, pages = swapped_out()
    expected = Pages(bytearray(1 << 20))
    expected.fill(1)
    last = ctypes.c_uint8.from_address(pages.address + len(region) - 1)
    assert last.value == expected.view[-1]
    last.value = 77
    region.advise(uswap.Advice.PAGEOUT)
    assert region[-1] == 77
