"""Waiting awake: it is there, can be turned off, leaves no thread behind, and pages are as right as without."""

import contextlib
import os
import threading
import time
from pathlib import Path

import pytest
from _support import failpoints
from _support.workload import Pages, in_threads
from conftest import PoolFactory

import uswap

VIGIL = "uswap-vigil"


def threads_named(name: str) -> list[int]:
    """The ids of this process's threads of that name."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if (task / "comm").read_text().strip() == name:
                found.append(int(task.name))
    return found


def await_vigil() -> int:
    """A thread gives itself its name: it has one when it has begun to run."""
    deadline = time.monotonic() + 30
    while not (found := threads_named(VIGIL)) and time.monotonic() < deadline:
        os.sched_yield()
    (vigil,) = found
    return vigil


pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one processor only")


def test_the_vigil_is_of_the_idle_class(make_pool: PoolFactory) -> None:
    pool = make_pool()
    pages = Pages(pool.region("64MiB"))
    pages.fill(1)
    assert pages.wrong_at_random(1, 7, 500) == 0  # by now it has begun to run
    vigil = await_vigil()
    assert os.sched_getscheduler(vigil) == os.SCHED_IDLE


def test_the_vigil_ends_with_its_pool(make_pool: PoolFactory) -> None:
    pool = make_pool()
    await_vigil()
    pool.close()
    assert threads_named(VIGIL) == []


def test_it_can_be_turned_off(make_pool: PoolFactory) -> None:
    pool = make_pool(awake=False)
    assert Pages(pool.region("32MiB")).wrong(0) == 0  # the threads of the pool have run by now
    assert threads_named(VIGIL) == []


@pytest.mark.parametrize("awake", [True, False])
@pytest.mark.parametrize("faults", ["thread", "inline"])
@pytest.mark.parametrize("threads", [1, 4])
def test_pages_are_right(pool_factory: PoolFactory, faults: str, awake: bool, threads: int) -> None:
    pool = pool_factory("8MiB", awake=awake, faults=faults)
    pages = Pages(pool.region("64MiB"))
    pages.fill(3)
    wrong = [0] * threads

    def work(number: int) -> None:
        wrong[number] = pages.wrong_at_random(3, 11 + number, 1500)

    in_threads(threads, work)
    assert wrong == [0] * threads
    pool.check()


def test_a_failed_read_is_found_awake_too(make_pool: PoolFactory) -> None:
    """The device's word counts, not that the request has ended: the page is read a second time, by itself."""
    pool = make_pool("8MiB", faults="inline")
    pages = Pages(pool.region("64MiB"))
    pages.fill(5)
    assert pages.wrong_at_random(5, 1, 300) == 0  # awake by now, where it pays
    before = failpoints.hits("page_in.one")
    with failpoints.armed("page_in.read", failpoints.Action.ERROR, 5, every=True):
        assert pages.wrong_at_random(5, 2, 50) == 0
    assert failpoints.hits("page_in.one") > before
    pool.check()


def test_a_ring_that_takes_nothing_is_done_without(make_pool: PoolFactory) -> None:
    pool = make_pool("8MiB", faults="inline")
    pages = Pages(pool.region("64MiB"))
    pages.fill(6)
    with failpoints.armed("io.submit", failpoints.Action.ERROR, 5, every=True):
        assert pages.wrong_at_random(6, 3, 500) == 0
    assert pages.wrong_at_random(6, 4, 500) == 0
    pool.check()


def asleep_in_fault(tid: int) -> bool:
    return Path(f"/proc/self/task/{tid}/wchan").read_text() == "handle_userfault"


def test_faults_that_come_together_are_served_together(make_pool: PoolFactory) -> None:
    """Neighbours share a request, whatever their order; two threads on one page are one fault."""
    pool = make_pool("8MiB", reclaimer=False)
    region = pool.region("64MiB")
    pages = Pages(region)
    pages.fill(1)
    region.advise(uswap.Advice.RANDOM)
    touched, started = [8, 14, 13, 12, 11, 10, 10, 9], []
    ids: list[int] = []

    def touch(page: int) -> None:
        ids.append(threading.get_native_id())
        pages.touch([page])

    with failpoints.armed("fault.message", failpoints.Action.STOP):
        for page in touched:
            thread = threading.Thread(target=touch, args=(page,))
            thread.start()
            started.append(thread)
            if page == touched[0]:
                failpoints.await_stopped("fault.message")
        deadline = time.monotonic() + 30
        while len(ids) < len(touched) or not all(asleep_in_fault(tid) for tid in ids):
            assert time.monotonic() < deadline, "/proc/self/task/*/wchan does not tell where threads sleep"
            threading.Event().wait(0.001)
        before = pool.stats()
        failpoints.release("fault.message")
        for thread in started:
            thread.join()
    after = pool.stats()
    assert after.major_faults - before.major_faults == len(set(touched))
    assert after.reads - before.reads == 2  # page 8, whose message had been read, and the others
    pool.check()
