"""swapoff: an area is emptied while the pool runs; its pages come in or move, and nothing is lost."""

import errno
import fcntl
import gc
import random
import threading
from pathlib import Path

import pytest
from _support.failpoints import Action, armed, await_stopped, release
from _support.program import run_program
from _support.workload import PAGE, Pages, in_threads
from conftest import PoolFactory

import uswap
from uswap import Advice, PageClass
from uswap._core import lib

MIB = 1 << 20

needs_failpoints = pytest.mark.skipif(
    not lib.uswap_failpoints_built(), reason="the core was built without failpoints"
)


def used(pool: uswap.Pool) -> dict[str, int]:
    """Bytes of slots in use, by the name of the file."""
    return {Path(area.path).name: area.used for area in pool.areas()}


def test_pages_move_to_the_other_area(pool_factory: PoolFactory, swap_directory: Path) -> None:
    first, second = swap_directory / "first", swap_directory / "second"
    pool = pool_factory("8MiB", swap=uswap.SwapArea(first, "256MiB"))
    region = pool.region("64MiB")
    pages = Pages(region)
    pages.fill(1)
    region.advise(Advice.PAGEOUT)
    assert used(pool)["first"] >= len(region)
    pool.swapon(second, size="256MiB")
    pool.swapoff(first)
    assert list(used(pool)) == ["second"]
    assert first.stat().st_size == PAGE  # the header
    with first.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it
    pool.check()
    region.verify()
    stats = pool.stats()
    assert stats.peak_resident_bytes <= stats.limit_bytes
    assert stats.swap_total_bytes == 256 * MIB - PAGE
    assert pages.wrong(1) == 0
    pages.fill(2)
    assert pages.wrong(2) == 0


def test_kept_slots_are_given_up(pool_factory: PoolFactory, swap_directory: Path) -> None:
    first = swap_directory / "first"
    pool = pool_factory("64MiB", swap=uswap.SwapArea(first, "256MiB"))
    region = pool.region("16MiB")
    pages = Pages(region)
    pages.fill(1)
    region.advise(Advice.PAGEOUT)
    assert pages.wrong(1) == 0  # in memory, with their slots
    pool.swapon(swap_directory / "second", size="256MiB")
    read = pool.stats().pages_in
    pool.swapoff(first)
    assert set(region.page_classes()) == {PageClass.RESIDENT}
    assert pool.stats().pages_in == read
    region.advise(Advice.PAGEOUT)
    assert used(pool) == {"second": len(region)}
    pool.check()
    assert pages.wrong(1) == 0


def test_an_area_that_is_needed_stays(make_pool: PoolFactory, swap_directory: Path) -> None:
    first = swap_directory / "first"
    pool = make_pool("8MiB", swap=uswap.SwapArea(first, "256MiB"))
    region = pool.region("64MiB")
    pages = Pages(region)
    pages.fill(1)
    with pytest.raises(uswap.OutOfSpaceError, match=r"\d+ bytes of swap space are missing"):
        pool.swapoff(first)
    pool.swapon(swap_directory / "small", size="16MiB")
    before = used(pool)["first"]
    with pytest.raises(uswap.OutOfSpaceError, match="add a swap area first, or close regions"):
        pool.swapoff(first)
    # What was evicted beside that has gone to the other area: no more than what the limit holds.
    assert before - pool.limit <= used(pool)["first"] <= before
    assert pages.wrong(1) == 0
    pages.fill(2)  # there is room for all of it still
    assert pages.wrong(2) == 0
    region.advise(Advice.PAGEOUT)
    assert used(pool)["first"] > 16 * MIB
    del pages
    gc.collect()
    region.close()
    pool.swapoff(first)
    assert list(used(pool)) == ["small"]


def test_the_only_area_of_a_pool_without_promises(make_pool: PoolFactory, swap_directory: Path) -> None:
    first = swap_directory / "first"
    pool = make_pool("32MiB", swap=uswap.SwapArea(first, "256MiB"), overcommit=True)
    region = pool.region("16MiB")
    pages = Pages(region)
    pages.fill(1)
    region.advise(Advice.PAGEOUT)
    pool.swapoff(first)  # what there is fits into memory
    assert pool.areas() == []
    assert set(region.page_classes()) == {PageClass.RESIDENT}
    pool.check()
    region.advise(Advice.PAGEOUT)
    assert pages.wrong(1) == 0
    large = Pages(pool.region("64MiB"))
    pool.swapon(first, size="256MiB")
    large.fill(1)
    with pytest.raises(uswap.OutOfSpaceError):
        pool.swapoff(first)
    assert large.wrong(1) == pages.wrong(1) == 0


def test_an_index_is_never_used_again(make_pool: PoolFactory, swap_directory: Path) -> None:
    pool = make_pool("8MiB", swap=uswap.SwapArea(swap_directory / "base", "256MiB"))
    pages = Pages(pool.region("32MiB"))
    pages.fill(1)
    for number in range(1, 32):
        added = pool.swapon(swap_directory / "other", size="16MiB", priority=1)
        assert added.index == number
        pages.fill(number + 1, 0, 64)
        pool.swapoff(added)
        assert pages.wrong(number + 1, 0, 64) == 0
    with pytest.raises(ValueError, match="32 swap areas in its life"):
        pool.swapon(swap_directory / "other", size="16MiB")
    assert pages.wrong(1, 64) == 0
    pool.check()


def test_areas_are_named_by_path_or_by_what_swapon_said(make_pool: PoolFactory, swap_directory: Path) -> None:
    pool = make_pool("8MiB", swap=[uswap.SwapArea(swap_directory, "64MiB")] * 2)
    with pytest.raises(ValueError, match="2 swap areas lie in"):
        pool.swapoff(swap_directory)
    info = pool.areas()[1]
    pool.swapoff(info)
    with pytest.raises(ValueError, match="any more"):
        pool.swapoff(info)
    pool.swapoff(swap_directory)
    with pytest.raises(ValueError, match="no swap area of the pool"):
        pool.swapoff(swap_directory)


def test_a_busy_pool_changes_its_areas(pool_factory: PoolFactory, swap_directory: Path) -> None:
    pool = pool_factory("8MiB", swap=uswap.SwapArea(swap_directory / "0", "256MiB"))
    pages = Pages(pool.region("32MiB"))
    stop = threading.Event()
    wrong: list[int] = []

    def work(number: int) -> None:
        if number == 0:
            try:
                for turn in range(6):
                    pool.swapon(swap_directory / str((turn + 1) % 2), size="256MiB")
                    pool.swapoff(swap_directory / str(turn % 2))
                    pool.check()
            finally:
                stop.set()
        elif number == 1:
            draw = random.Random(7)
            while not stop.is_set():
                other = pool.region("4MiB")
                Pages(other).fill(3)
                other.advise(draw.choice([Advice.PAGEOUT, Advice.DONTNEED, Advice.COLD]))
                gc.collect()
                other.close()
        else:
            seed = number
            while not stop.is_set():
                wrong.append(pages.stress(seed, 200))
                seed += 4

    in_threads(4, work)
    assert sum(wrong) == 0
    assert pages.wrong_after_stress() == 0
    assert len(pool.areas()) == 1
    pool.check()


@needs_failpoints
def test_a_slot_that_cannot_be_read_is_a_lost_page(pool_factory: PoolFactory, swap_directory: Path) -> None:
    first = swap_directory / "first"
    pool = pool_factory("8MiB", swap=uswap.SwapArea(first, "64MiB"), read_ahead=0)
    region = pool.region(8 * PAGE)
    pages = Pages(region)
    pages.fill(1)
    region.advise(Advice.PAGEOUT)
    pool.swapon(swap_directory / "second", size="64MiB")
    with (
        armed("page_in.read", Action.ERROR, errno.EIO, every=True),
        armed("page_in.one", Action.ERROR, errno.EIO, nth=3),
    ):
        pool.swapoff(first)
    classes = region.page_classes()
    assert classes.count(PageClass.POISONED) == 1
    assert pool.stats().poisoned_pages == 1
    pool.check()
    lost = classes.index(PageClass.POISONED)
    region.advise(Advice.DONTNEED, lost * PAGE, PAGE)
    assert all(pages.wrong(1, page, 1) == 0 for page in range(8) if page != lost)


@needs_failpoints
def test_bad_slots_do_not_keep_an_area(pool_factory: PoolFactory, swap_directory: Path) -> None:
    first = swap_directory / "first"
    pool = pool_factory("8MiB", swap=uswap.SwapArea(first, "64MiB"))
    region = pool.region(64 * PAGE)
    pages = Pages(region)
    pages.fill(1)
    with (
        armed("page_out.written", Action.ERROR, errno.EIO, every=True),
        armed("page_out.one", Action.ERROR, errno.EIO),
    ):
        region.advise(Advice.PAGEOUT)
    assert pool.stats().bad_slots == 1
    pool.check()
    pool.swapon(swap_directory / "second", size="64MiB")
    pool.swapoff(first)
    assert pool.stats().bad_slots == 0
    pool.check()
    assert pages.wrong(1) == 0


@needs_failpoints
def test_without_frames_the_area_stays_in_use(make_pool: PoolFactory, swap_directory: Path) -> None:
    first = swap_directory / "first"
    pool = make_pool("8MiB", swap=uswap.SwapArea(first, "256MiB"), background=False)
    pages = Pages(pool.region("32MiB"))
    pages.fill(1)
    pool.swapon(swap_directory / "second", size="256MiB")
    with (
        armed("page_out.slot", Action.ERROR, errno.ENOSPC, every=True),
        pytest.raises(BlockingIOError, match="stays in"),
    ):
        pool.swapoff(first)
    pool.check()
    assert len(pool.areas()) == 2
    assert pages.wrong(1) == 0
    pool.swapoff(first)
    assert pages.wrong(1) == 0


@needs_failpoints
def test_a_write_in_flight_is_waited_for(pool_factory: PoolFactory, swap_directory: Path) -> None:
    first = swap_directory / "first"
    pool = pool_factory("8MiB", swap=uswap.SwapArea(first, "64MiB"))
    region = pool.region("1MiB")
    pages = Pages(region)
    pages.fill(1)
    pool.swapon(swap_directory / "second", size="64MiB", priority=-1)
    with armed("page_out.written", Action.STOP):
        evictor = threading.Thread(target=region.advise, args=(Advice.PAGEOUT, 0, 16 * PAGE))
        evictor.start()
        await_stopped("page_out.written")
        leaver = threading.Thread(target=pool.swapoff, args=(first,))
        leaver.start()
        assert pages.wrong(1, 16) == 0
        release("page_out.written")
        evictor.join()
        leaver.join()
    assert list(used(pool)) == ["second"]
    pool.check()
    assert pages.wrong(1) == 0


@needs_failpoints
def test_a_region_is_closed_meanwhile(make_pool: PoolFactory, swap_directory: Path) -> None:
    first = swap_directory / "first"
    pool = make_pool("8MiB", swap=uswap.SwapArea(first, "256MiB"))
    regions = [pool.region("4MiB") for _ in range(4)]
    for region in regions:
        Pages(region).fill(1)
        region.advise(Advice.PAGEOUT)
    gc.collect()
    pool.swapon(swap_directory / "second", size="256MiB")
    with armed("swapoff.step", Action.STOP):
        leaver = threading.Thread(target=pool.swapoff, args=(first,))
        leaver.start()
        await_stopped("swapoff.step")
        regions.pop(1).close()
        regions[0].advise(Advice.DONTNEED)
        release("swapoff.step")
        leaver.join()
    assert list(used(pool)) == ["second"]
    pool.check()
    assert Pages(regions[0]).wrong(0) == 0
    assert Pages(regions[1]).wrong(1) == 0


@needs_failpoints
def test_an_interrupted_swapoff_leaves_the_area_in_use(swap_directory: Path) -> None:
    run_program(
        """
        import os, signal, threading
        from _support.failpoints import Action, armed, await_stopped, release
        from _support.workload import Pages
        first, second = (os.path.join(SWAP.path, name) for name in ("first", "second"))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        pool = uswap.Pool("8MiB", swap=uswap.SwapArea(first, "256MiB", priority=1))
        region = pool.region("64MiB")
        pages = Pages(region)
        pages.fill(1)
        pool.swapon(second, size="256MiB")
        main = threading.main_thread().ident
        def interrupt():
            await_stopped("swapoff.step")
            signal.pthread_kill(main, signal.SIGINT)
            release("swapoff.step")
        with armed("swapoff.step", Action.STOP):
            sender = threading.Thread(target=interrupt)
            sender.start()
            try:
                pool.swapoff(first)
            except KeyboardInterrupt:
                print("interrupted")
            sender.join()
        pool.check()
        assert len(pool.areas()) == 2
        before = pool.areas()[0].used
        pages.fill(2)
        region.advise(uswap.Advice.PAGEOUT)
        assert pool.areas()[0].used > before
        assert pages.wrong(2) == 0
        pool.swapoff(first)
        assert [area.path for area in pool.areas()] == [second]
        assert pages.wrong(2) == 0
        pool.check()
        os.unlink(first), os.unlink(second)
        """,
        swap_directory,
    )


def test_a_forked_child_does_not_wait_for_a_thread_of_its_parents(swap_directory: Path) -> None:
    """One that takes an area out of use just then: it is not in the child."""
    run_program(
        """
    import os, warnings
    from _support.forks import child, end_of
    warnings.simplefilter("ignore", DeprecationWarning)       # of forks beside threads
    pool = uswap.Pool("16MiB", swap=SWAP)
    region = pool.region("8MiB")
    region[0] = 1
    def swap_elsewhere():
        pool.swapon(os.path.join(SWAP.path, "more"), size="256MiB")
        pool.swapoff(os.path.join(SWAP.path, "more"))
        assert region[0] == 1
    with pool._core.swapoff_lock:                             # as that thread has it
        assert end_of(child(swap_elsewhere)) == 0
    """,
        swap_directory,
    )
