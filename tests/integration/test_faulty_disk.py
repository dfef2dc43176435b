"""A disk that fails: with errors, on all slots or on one, full, with less than was asked for, late, or not
answering at all. The disk is a file system of our own (_support/faulty_disk.py)."""

from __future__ import annotations

import errno
import functools
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from _support.faulty_disk import FALLOCATE, READ, WRITE, FaultyDisk, faulty_disk
from _support.waiting import DEADLINE_SECONDS, await_that
from _support.workload import PAGE, Pages
from conftest import PoolFactory

import uswap
from uswap import Advice, PageClass

MIB = 1 << 20
STALL_SECONDS = 5.0


@pytest.fixture
def disk(swap_directory: Path) -> Iterator[FaultyDisk]:
    with faulty_disk(swap_directory) as made:
        yield made


@pytest.fixture
def pool(make_pool: PoolFactory, disk: FaultyDisk, io: str) -> uswap.Pool:
    """On the faulty disk, with each I/O backend."""
    return make_pool("4MiB", swap=uswap.SwapArea(disk.path / "swap", size="1GiB"), io=io)


def swapped_out(pool: uswap.Pool, size: int = MIB) -> tuple[uswap.Region, Pages]:
    """A region full of version 1, out."""
    region = pool.region(size, name="data")
    pages = Pages(region)
    pages.fill(1)
    region.advise(Advice.PAGEOUT)
    assert region.info().swapped == size
    return region, pages


def lost_pages(region: uswap.Region) -> list[int]:
    return [page for page, one in enumerate(region.page_classes()) if one == PageClass.POISONED]


# ---- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"error": errno.EIO}, {"short_bytes": 512}, {"short_bytes": PAGE}])
@pytest.mark.parametrize("operation", [READ, WRITE])
def test_what_fails_once_is_tried_again(
    pool: uswap.Pool, disk: FaultyDisk, operation: str, how: dict[str, int]
) -> None:
    region, pages = swapped_out(pool)
    for version in range(1, 4):
        with disk.failing(operation, times=1, **how):
            assert pages.wrong(version) == 0
            pages.fill(version + 1)
            region.advise(Advice.PAGEOUT)
            assert disk.met() == 1
        assert pages.wrong(version + 1) == 0
        region.advise(Advice.PAGEOUT)
    stats = pool.stats()
    assert (stats.read_errors, stats.write_errors, stats.bad_slots, stats.poisoned_pages) == (0, 0, 0, 0)


@pytest.mark.parametrize("how", [{"error": errno.EIO}, {"short_bytes": 512}])
def test_of_one_slot_that_cannot_be_read_one_page_is_lost(
    pool: uswap.Pool, disk: FaultyDisk, how: dict[str, int]
) -> None:
    region, pages = swapped_out(pool)
    slot = disk.written()[0] + 17 * PAGE
    with disk.failing(READ, offsets=(slot + 100, slot + 200), **how):
        # A touch of another page reads ahead: what is lost then is found without a touch of it.
        with pytest.raises(uswap.SwapError) as found:
            region.verify()
        assert found.value.offset is not None
        lost = found.value.offset // PAGE
        assert pages.wrong(1, 0, lost) + pages.wrong(1, lost + 1) == 0
        with pytest.raises(uswap.SwapError) as asked, region.resident(lost * PAGE, PAGE):
            pass
        assert asked.value.offset == lost * PAGE
    assert lost_pages(region) == [lost]
    assert pool.stats().poisoned_pages == 1
    region.advise(Advice.DONTNEED, lost * PAGE, PAGE)
    assert pages.wrong(0, lost, 1) == 0


def test_of_one_slot_that_cannot_be_written_the_page_stays(pool: uswap.Pool, disk: FaultyDisk) -> None:
    region, pages = swapped_out(pool)
    slot = disk.written()[1] + 17 * PAGE  # slots are taken in turn
    with disk.failing(WRITE, error=errno.EIO, offsets=(slot, slot + PAGE)):
        for version in range(2, 6):
            pages.fill(version)
            region.advise(Advice.PAGEOUT)
            assert pages.wrong(version) == 0
        assert disk.met() == 2  # the request, and the page by itself
    stats = pool.stats()
    assert (stats.bad_slots, stats.write_errors, stats.poisoned_pages) == (1, 1, 0)


@pytest.mark.parametrize(("after", "number"), [(0, errno.ENOSPC), (2, errno.EIO), (5, errno.ENOSPC)])
def test_a_disk_that_takes_nothing_any_more_keeps_pages_in_memory(
    pool: uswap.Pool, disk: FaultyDisk, after: int, number: int
) -> None:
    pages = Pages(pool.region("12MiB"))
    with disk.failing(WRITE, error=number, after=after):
        pages.fill(1)
        stats = pool.stats()
        assert stats.over_limit_events > 0
        assert 0 < stats.bad_slots <= stats.write_errors  # some have been tried again
        assert pages.wrong(1) == 0
    pages.fill(2)
    assert pages.wrong(2) == 0
    assert pool.stats().poisoned_pages == 0
    # It writes again: by and by all that it has refused is tried anew, and the limit holds.
    for version in range(3, 12):
        pages.fill(version)
        assert pages.wrong(version) == 0
        if pool.stats().bad_slots == 0:
            break
    await_that(lambda: pool.stats().resident_bytes <= pool.limit)
    assert pool.stats().bad_slots == 0
    pool.check()


def test_a_disk_that_is_full_refuses_regions_and_keeps_what_is_there(pool: uswap.Pool, disk: FaultyDisk) -> None:
    _, pages = swapped_out(pool)
    with disk.failing(FALLOCATE, error=errno.ENOSPC), pytest.raises(MemoryError):
        pool.region("512MiB")
    assert pages.wrong(1) == 0
    assert Pages(pool.region("8MiB")).wrong(0) == 0


@pytest.mark.parametrize("operation", [READ, WRITE])
def test_a_disk_that_takes_seconds_is_waited_for(
    pool: uswap.Pool, disk: FaultyDisk, operation: str, capfd: pytest.CaptureFixture[str]
) -> None:
    _, pages = swapped_out(pool)
    with disk.failing(operation, delay_seconds=1.0, times=2):
        pages.fill(2)
        pages.fill(3, 0, 10)
        assert pages.wrong(3, 0, 10) + pages.wrong(2, 10) == 0
    assert pool.stats().disk_stalls == 0
    assert "uswap:" not in capfd.readouterr().err


# ---- no answer at all --------------------------------------------------------------------------------------


class Stopped:
    """Threads that work on pages of a disk that does not answer."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self.wrong: list[int] = []

    def begin(self, work: Callable[[], int]) -> None:
        """work in a thread; what it returns is counted as wrong words."""
        thread = threading.Thread(target=lambda: self.wrong.append(work()), daemon=True)
        self._threads.append(thread)
        thread.start()

    def end(self) -> int:
        """Waits for all. => wrong words."""
        for thread in self._threads:
            thread.join(DEADLINE_SECONDS)
            assert not thread.is_alive()
        assert len(self.wrong) == len(self._threads)
        return sum(self.wrong)


@pytest.mark.parametrize("faults", ["thread", "inline"])
def test_who_needs_a_page_waits_and_all_others_go_on(
    make_pool: PoolFactory, disk: FaultyDisk, faults: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pool = make_pool("4MiB", swap=uswap.SwapArea(disk.path / "swap", size="64MiB"), faults=faults, read_ahead=0)
    if pool.stats().io_kind == "sync" and faults == "thread":
        pytest.skip("io_uring is not there: the fault thread itself waits for the disk")
    region, pages = swapped_out(pool)
    assert pages.wrong(1, 200, 10) == 0
    stopped = Stopped()
    with disk.failing(READ, hold=True):
        for page in range(0, 80, 20):  # apart, so that each is read by itself
            stopped.begin(lambda page=page: pages.wrong(1, page, 1))
        await_that(lambda: disk.met() == 4)
        # Pages in memory, fresh ones, and those that can be written and dropped.
        assert pages.wrong(1, 200, 10) == 0
        fresh = Pages(pool.region("1MiB"))
        fresh.fill(3)
        region.advise(Advice.PAGEOUT, 200 * PAGE, PAGE)
        pool.limit = "6MiB"
        pool.limit = "4MiB"
        await_that(lambda: pool.stats().disk_stalls == 1)
        assert pool.stats().unanswered_ns >= STALL_SECONDS * 1e9
        assert not stopped.wrong
    assert stopped.end() == 0
    assert pages.wrong(1) + fresh.wrong(3) == 0
    stats = pool.stats()
    assert (stats.unanswered_ns, stats.disk_stalls, stats.read_errors, stats.poisoned_pages) == (0, 1, 0, 0)
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("uswap:")]
    assert len(said) == 1
    assert "has not answered for 5 s" in said[0]


def test_stores_that_wait_for_a_disk_that_takes_nothing_lose_nothing(
    make_pool: PoolFactory, disk: FaultyDisk, io: str
) -> None:
    pool = make_pool("4MiB", swap=uswap.SwapArea(disk.path / "swap", size="64MiB"), io=io)
    pages, stopped = Pages(pool.region("12MiB")), Stopped()

    def store() -> int:
        pages.fill(1)
        return pages.wrong(1)

    def lower() -> int:
        pool.limit = "3MiB"
        return 0

    with disk.failing(WRITE, hold=True):
        stopped.begin(store)
        await_that(lambda: disk.met() > 0)
        stopped.begin(lower)
        await_that(lambda: pool.stats().unanswered_ns > 1e9)
        with pytest.raises(BufferError):
            pool.close()
        assert not stopped.wrong
    assert stopped.end() == 0
    assert pool.limit == 3 * MIB
    stats = pool.stats()
    assert (stats.write_errors, stats.bad_slots, stats.over_limit_events) == (0, 0, 0)
    assert stats.resident_bytes <= pool.limit


@pytest.mark.parametrize("shared", [False, True])
def test_a_signal_while_the_disk_does_not_answer_is_handled_when_it_does(
    request: pytest.FixtureRequest, disk: FaultyDisk, shared: bool
) -> None:
    """The call that was waiting has done what it should, and what it began is ended: no page stays pinned."""
    if shared:
        pool = request.getfixturevalue("shared_pool")
        region, pages = shared_out(pool)
    else:
        make_pool = request.getfixturevalue("make_pool")
        pool = make_pool("4MiB", swap=uswap.SwapArea(disk.path / "swap", size="64MiB"))
        region, pages = swapped_out(pool)
    main, begun, ended, waited = threading.main_thread().ident, threading.Event(), threading.Event(), []
    assert main is not None

    def interrupt() -> None:
        with disk.failing(READ, hold=True):
            begun.set()
            await_that(lambda: disk.met() > 0)
            signal.pthread_kill(main, signal.SIGINT)
            await_that(lambda: pool.stats().unanswered_ns > 1e9)
            waited.append(not ended.is_set())

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in a shell's background
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        begun.wait(DEADLINE_SECONDS)
        with pytest.raises(KeyboardInterrupt), region.resident(0, 8 * PAGE):
            raise AssertionError("the signal is handled before the block begins")
    finally:
        ended.set()
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert waited == [True]
    assert pages.wrong(1) == 0
    region.advise(Advice.PAGEOUT, 0, 8 * PAGE)
    assert set(region.page_classes(0, 8 * PAGE)) == {PageClass.SWAPPED}
    pool.check()


def test_a_region_that_is_closed_waits_for_its_reads(pool: uswap.Pool, disk: FaultyDisk) -> None:
    region, pages = swapped_out(pool)
    del pages
    stopped = Stopped()

    def close() -> int:
        region.close()
        return 0

    with disk.failing(READ, hold=True):
        region.advise(Advice.WILLNEED)
        await_that(lambda: disk.met() > 0)
        stopped.begin(close)
    assert stopped.end() == 0
    assert region.closed
    _, others = swapped_out(pool)
    assert others.wrong(1) == 0


# ---- shared regions ----------------------------------------------------------------------------------------


@pytest.fixture
def shared_pool(disk: FaultyDisk, runtime_folder: Path) -> Iterator[uswap.Pool]:
    with uswap.Pool("32MiB", name="faulty", swap=uswap.SwapArea(disk.path, size="64MiB")) as pool:
        yield pool
        pool.check()


def shared_out(pool: uswap.Pool) -> tuple[uswap.Region, Pages]:
    region = pool.region("2MiB", shared=True, name="data")
    pages = Pages(region)
    pages.fill(1)
    region.advise(Advice.PAGEOUT)
    return region, pages


def test_of_shared_pages_the_one_that_cannot_be_read_is_lost(shared_pool: uswap.Pool, disk: FaultyDisk) -> None:
    region, pages = shared_out(shared_pool)
    slot = disk.written()[0] + 3 * PAGE
    with disk.failing(READ, error=errno.EIO, offsets=(slot, slot + PAGE)):
        with pytest.raises(uswap.SwapError) as found:
            region.verify()
        assert found.value.offset is not None
        lost = found.value.offset // PAGE
        assert pages.wrong(1, 0, lost) + pages.wrong(1, lost + 1) == 0
        with pytest.raises(uswap.SwapError), region.resident(lost * PAGE, PAGE):
            pass
    assert lost_pages(region) == [lost]
    assert shared_pool.stats().read_errors == 1
    region.advise(Advice.DONTNEED, lost * PAGE, PAGE)
    assert pages.wrong(0, lost, 1) == 0
    del pages
    region.close()


def test_shared_pages_that_cannot_be_written_stay(shared_pool: uswap.Pool, disk: FaultyDisk) -> None:
    region, pages = shared_out(shared_pool)
    slot = disk.written()[0] + 3 * PAGE
    with disk.failing(WRITE, error=errno.EIO, offsets=(slot, slot + PAGE)):
        for version in range(2, 40):  # slots are taken in turn
            pages.fill(version)
            region.advise(Advice.PAGEOUT)
            assert pages.wrong(version) == 0
            region.advise(Advice.DONTNEED)
    assert shared_pool.stats().write_errors == 1
    del pages
    region.close()


def test_shared_pages_wait_for_a_disk_that_does_not_answer(shared_pool: uswap.Pool, disk: FaultyDisk) -> None:
    region, pages = shared_out(shared_pool)
    assert pages.wrong(1, 400, 8) == 0
    stopped = Stopped()
    with disk.failing(READ, hold=True):
        stopped.begin(functools.partial(pages.wrong, 1, 0, 2))
        await_that(lambda: disk.met() > 0)
        assert pages.wrong(1, 400, 8) == 0
        await_that(lambda: shared_pool.stats().unanswered_ns > 1e9)
        assert not stopped.wrong
    assert stopped.end() == 0
    assert pages.wrong(1) == 0
    del pages, stopped
    region.close()
