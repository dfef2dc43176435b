"""What policies are told on live pools has happened, and what they order is done."""

from __future__ import annotations

import ctypes
import mmap
import random
import threading
from collections.abc import Iterator

import pytest
from _support.policies import Told, assert_within_limit, eventually, job, pages_of, reclaimer_of
from _support.workload import PAGE, Pages
from conftest import PoolFactory

import uswap
from uswap.policy import NEVER, Answer, Batch, Need, page_of, region_of


def test_a_page_that_is_in_is_not_read_ahead(make_pool: PoolFactory, told: Told) -> None:
    pool = make_pool("8MiB", policy=told, read_ahead=0, fault_around=1)
    region, pages = told.region(pool)
    pages.fill(1, 0, 100)
    told.settle()
    stays = told.of("faulted", region)
    before = pool.stats()
    told.order(Answer(read_ahead=stays))
    assert pool.stats().read_ahead_pages == before.read_ahead_pages
    assert told.of("read_ahead", region) == []
    assert pages.wrong(1, 0, 100) == 0


def test_what_was_read_ahead_and_leaves_by_order_was_read_in_vain(make_pool: PoolFactory, told: Told) -> None:
    pool = make_pool("8MiB", policy=told)
    region, pages = told.region(pool)
    pages.fill(1, 0, 1000)
    region.advise(uswap.Advice.PAGEOUT)
    region.advise(uswap.Advice.SEQUENTIAL)
    told.settle()
    pages.touch(range(50, 950, 150))  # each begins a stream, whose first page waits in the cache
    eventually(lambda: (told.settle(), told.of("read_ahead", region))[1])
    markers = told.of("read_ahead", region)
    told.order(Answer(evict=markers))
    told.region(pool)[1].fill(2, 0, 2000)
    told.settle()
    assert set(pages_of(markers)) <= set(pages_of(told.of("evicted", region)))
    assert pool.stats().read_ahead_waste >= len(markers)
    assert pages.wrong(1, 0, 1000) == 0


def test_the_same_page_cleaned_for_ever_takes_no_more_memory(make_pool: PoolFactory, told: Told) -> None:
    """Sealed pages that are cleaned stay mapped: nothing of them changes, so the same order is good again."""
    pool = make_pool("8MiB", policy=told, read_ahead=0)
    region, pages = told.region(pool)
    pages.fill(1, 0, 2000)
    region.advise(uswap.Advice.PAGEOUT)
    some = list(range(3, 2000, 20))
    pages.touch(some)
    told.settle()
    stays = [stay for stay in told.of("faulted", region) if page_of(stay) in some][-len(some) :]
    capacity = pool.stats().capacity_frames
    for _ in range(60):
        told.order(Answer(clean=stays * 30))
    assert pool.stats().capacity_frames == capacity
    assert told.need.inactive <= 2 * 2048
    assert pages.wrong(1, 0, 2000) == 0
    assert_within_limit(pool)


@pytest.fixture
def told(make_pool: PoolFactory) -> Iterator[Told]:
    """A policy that lets go of its region before make_pool closes the pool."""
    policy = Told()
    yield policy
    policy.end()


def told_pool(make_pool: PoolFactory, told: Told, transport: str = "auto") -> tuple[uswap.Pool, Told]:
    return make_pool("16MiB", transport=transport, policy=told, read_ahead=0, fault_around=1), told


def test_first_touches_and_refaults_are_told_in_order_and_with_their_distances(
    make_pool: PoolFactory, told: Told, transport: str
) -> None:
    pool, told = told_pool(make_pool, told, transport)
    region, pages = told.region(pool)
    order = random.Random(1).sample(range(pages.count), 500)
    pages.store(order, order)
    told.settle()
    assert pages_of(told.of("faulted", region)) == order
    assert set(told.beside("distances", "faulted", region)) == {NEVER}
    region.advise(uswap.Advice.PAGEOUT)
    told.settle()
    evicted = pages_of(told.of("evicted", region))
    assert sorted(evicted) == sorted(set(order) - {0})  # page 0 holds a zero: it is zeroes
    told.forget()
    again = random.Random(2).sample(evicted, 200)
    pages.touch(again)
    told.settle()
    assert pages_of(told.of("faulted", region)) == again
    assert set(told.beside("marks", "faulted", region)) == {0}
    for page, distance in zip(again, told.beside("distances", "faulted", region), strict=True):
        exact = len(evicted) - 1 - evicted.index(page)
        assert abs(distance - exact) <= exact / 4 + 1


def test_aged_pages_are_told_and_their_rescue_with_its_mark(
    make_pool: PoolFactory, told: Told, transport: str
) -> None:
    pool, told = told_pool(make_pool, told, transport)
    region, pages = told.region(pool)
    pages.fill(1, 0, 100)
    told.settle()
    stays = told.of("faulted", region)
    plain, marked = stays[:30], stays[50:90]
    told.forget()
    told.order(Answer(age=plain, age_marked=marked))
    assert told.of("aged", region) == plain + marked
    assert sorted(told.of("written", region)) == sorted(plain + marked)
    assert told.of("evicted", region) == told.of("kept", region) == []
    touched = pages_of(marked[:10] + plain[:10] + marked[10:])
    assert pages.touch(touched) != 0
    told.settle()
    assert pages_of(told.of("rescued", region)) == touched
    assert told.beside("rescued_marks", "rescued", region) == [1] * 10 + [0] * 10 + [1] * 30
    assert told.of("faulted", region) == []
    assert pages.wrong(1, 0, 100) == 0


def test_sealed_pages_that_are_aged_are_told_and_rescued(
    make_pool: PoolFactory, told: Told, transport: str
) -> None:
    pool, told = told_pool(make_pool, told, transport)
    region, pages = told.region(pool)
    pages.fill(1, 0, 2000)
    region.advise(uswap.Advice.PAGEOUT)
    told.settle()
    told.forget()
    some = list(range(3, 2000, 50))
    pages.touch(some)
    told.settle()
    stays = told.of("faulted", region)
    assert pages_of(stays) == some
    written = pool.stats().pages_out
    told.order(Answer(age_marked=stays))
    assert told.of("aged", region) == stays
    assert pool.stats().pages_out == written, "they are in their slots"
    pages.touch(some)
    told.settle()
    assert pages_of(told.of("rescued", region)) == some
    assert set(told.beside("rescued_marks", "rescued", region)) == {1}
    assert pages.wrong(1, 0, 2000) == 0


def test_sealed_pages_thrown_away_behind_our_back_are_zeroes_when_aged(
    make_pool: PoolFactory, told: Told, transport: str
) -> None:
    """To read them where they are must not wait for the fault thread, which waits for their locks."""
    pool, told = told_pool(make_pool, told, transport)
    region, pages = told.region(pool)
    pages.fill(1, 0, 2000)
    region.advise(uswap.Advice.PAGEOUT)
    some = list(range(3, 2000, 50))
    told.settle()
    told.forget()
    pages.touch(some)
    told.settle()
    libc = ctypes.CDLL(None, use_errno=True)
    for page in some[::2]:
        address = ctypes.c_void_p(pages.address + page * PAGE)
        assert libc.madvise(address, ctypes.c_size_t(PAGE), mmap.MADV_DONTNEED) == 0
    told.order(Answer(age=told.of("faulted", region)))
    assert pages.touch(some[::2]) == 0
    assert sum(pages.wrong(1, page, 1) for page in some[1::2]) == 0


def test_the_mark_of_an_evicted_page_comes_back_with_it(make_pool: PoolFactory, told: Told, transport: str) -> None:
    pool, told = told_pool(make_pool, told, transport)
    region, pages = told.region(pool)
    pages.fill(1, 0, 60)
    told.settle()
    stays = told.of("faulted", region)
    told.order(Answer(age=stays[:20], age_marked=stays[20:]))
    pool.evict(60 * PAGE)
    told.settle()
    assert sorted(told.of("evicted", region)) == sorted(stays)
    told.forget()
    pages.touch(list(range(60)))
    told.settle()
    assert told.beside("marks", "faulted", region) == [0] * 20 + [1] * 40
    assert told.of("rescued", region) == []


@pytest.mark.parametrize("touched", [False, True])
def test_what_a_policy_has_marked_leaves_last_when_pages_leave_by_age(
    make_pool: PoolFactory, told: Told, transport: str, touched: bool
) -> None:
    """It says nothing about what is to leave, as if it were late."""
    pool, told = told_pool(make_pool, told, transport)
    region, pages = told.region(pool)
    pages.fill(1, 0, 1000)
    told.settle()
    stays = told.of("faulted", region)
    told.order(Answer(age_marked=stays[:200]))  # the oldest, and the first on the list
    told.order(Answer(age=stays[200:400]))
    if touched:
        pages.touch(pages_of(stays[:200]))
        told.settle()
        assert told.beside("rescued_marks", "rescued", region) == [1] * 200
    filler = pool.region("16MiB")
    filler.advise(uswap.Advice.RANDOM)
    others, filled = Pages(filler), 2600
    others.fill(2, 0, filled)
    while not told.of("evicted", region):
        others.fill(2, filled, 64)
        filled += 64
        told.settle()
    ordinary = set(pages_of(stays[200:]))
    assert set(pages_of(told.of("evicted", region))) <= ordinary
    assert pages.wrong(1, 0, 1000) + others.wrong(2, 0, filled) == 0
    assert_within_limit(pool)


def test_pages_that_were_locked_are_kept_when_they_are_unlocked(make_pool: PoolFactory, told: Told) -> None:
    pool, told = told_pool(make_pool, told)
    region, pages = told.region(pool)
    pages.fill(1, 0, 40)
    region.lock(10 * PAGE, 5 * PAGE)
    told.settle()
    told.order(Answer(age=told.of("faulted", region)))
    assert not set(pages_of(told.of("aged", region))) & set(range(10, 15))
    assert told.of("kept", region) == []
    region.unlock(10 * PAGE, 5 * PAGE)
    told.settle()
    kept = told.of("kept", region)
    assert pages_of(kept) == list(range(10, 15))
    told.order(Answer(age=kept))
    assert pages_of(told.of("aged", region))[-5:] == list(range(10, 15))


@pytest.mark.parametrize("aged", [True, False])
def test_what_is_prepared_is_dropped_in_its_order(
    make_pool: PoolFactory, told: Told, transport: str, aged: bool
) -> None:
    pool, told = told_pool(make_pool, told, transport)
    region, pages = told.region(pool)
    pages.fill(1, 0, 300)
    told.settle()
    stays = told.of("faulted", region)
    order = random.Random(3).sample(stays, 200)
    if aged:
        told.order(Answer(age=stays))
    told.order(Answer(evict=order))
    if aged:
        assert told.need.prepared == 200
        assert told.of("evicted", region) == []
        pool.evict(64 * PAGE)
        told.settle()
        assert told.of("evicted", region) == order[:64]
    pool.evict(200 * PAGE)
    told.settle()
    gone = told.of("evicted", region)
    assert gone[:200] == order if aged else set(gone[:200]) == set(order)
    assert pages.wrong(1, 0, 300) == 0


def test_pages_that_a_policy_names_are_read_before_they_are_wanted(
    make_pool: PoolFactory, told: Told, transport: str
) -> None:
    pool, told = told_pool(make_pool, told, transport)
    region, pages = told.region(pool)
    pages.fill(1, 0, 100)
    told.settle()
    stays = told.of("faulted", region)
    region.advise(uswap.Advice.PAGEOUT)
    told.settle()
    told.forget()
    told.order(Answer(read_ahead=stays[40:60]))
    arrived = told.of("read_ahead", region) + told.of("faulted", region)
    assert sorted(pages_of(arrived)) == list(range(40, 60))
    before = pool.stats()
    pages.touch(list(range(40, 60)))
    with region.resident(59 * PAGE, PAGE):
        assert pool.stats().major_faults == before.major_faults
    assert pages.wrong(1, 0, 100) == 0


class Falls(Told):
    """Behind: it stands still as long as the test wants."""

    every = 16384

    def __init__(self) -> None:
        super().__init__()
        self.go, self.stands = threading.Event(), threading.Event()
        self.go.set()
        self.known: set[int] = set()
        self.losses = 0

    def decide(self, seen: Batch, need: Need) -> Answer | None:
        if not self.go.is_set():
            self.stands.set()
            self.go.wait()
        if seen.lost:
            self.losses += 1
        for came in (seen.faulted, seen.rescued, seen.kept, seen.read_ahead):
            self.known.update(came)
        super().decide(seen, need)
        return Answer(clean=seen.faulted[: need.frames])


@pytest.fixture
def falls(make_pool: PoolFactory) -> Iterator[Falls]:
    policy = Falls()
    yield policy
    policy.end()


def test_a_policy_that_has_missed_events_is_told_of_all_pages(
    make_pool: PoolFactory, falls: Falls, transport: str
) -> None:
    policy = falls
    pool = make_pool("16MiB", transport=transport, policy=policy)
    region, pages = policy.region(pool, 192)
    pages.fill(1, 0, 8192)
    policy.settle()
    policy.go.clear()
    try:
        pages.touch([8192])
        assert policy.stands.wait(timeout=20)
        losses = policy.losses
        pages.touch(range(8192, pages.count))
        policy.known.clear()
    finally:
        policy.go.set()
    policy.settle()
    policy.settle()
    assert policy.losses > losses
    with region.resident(0, PAGE):
        pass
    policy.settle()
    resident = {page for page, kind in enumerate(region.page_classes()) if kind == uswap.PageClass.RESIDENT}
    assert len(resident) > 1000
    assert resident <= {page_of(stay) for stay in policy.known if region_of(stay) == region.key} | {0}
    assert pages.wrong(1, 0, 8192) + pages.wrong(0, 8192, 2000) == 0
    job(pool)
    assert reclaimer_of(pool).error is None
    assert_within_limit(pool)


def test_a_policy_sees_regions_apart(make_pool: PoolFactory, told: Told) -> None:
    pool, told = told_pool(make_pool, told)
    first, pages = told.region(pool)
    second = pool.region("1MiB", name="second", priority=3)
    pages.store([1, 2], [1, 1])
    Pages(second).store([5], [1])
    told.settle()
    assert pages_of(told.of("faulted", first)) == [1, 2]
    assert page_of(told.of("faulted", second)[0]) == 5
    assert told.view is not None
    known = told.view.regions()
    assert (known[second.key].name, known[second.key].priority) == ("second", 3)
    assert known.keys() == {info.key for info in pool.regions()}
    assert told.view.capacity == pool.stats().capacity_frames
    stays = told.of("faulted", first) + told.of("faulted", second)
    assert list(told.view.current(stays)) == stays
    first.advise(uswap.Advice.PAGEOUT)
    assert list(told.view.current(stays)) == told.of("faulted", second)
    pages.touch([1])
    assert list(told.view.current([*stays, 1 << 63, 0])) == told.of("faulted", second), "another stay"
    told.settle()
    assert len(told.view.current(told.of("faulted", first))) == 1
    key = second.key
    second.close()
    assert list(told.view.current(stays)) == []
    assert key not in told.view.regions()
