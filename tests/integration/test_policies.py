"""Policies of users on live pools: whatever they do, contents and limit hold; what they are told has happened."""

from __future__ import annotations

import ctypes
import itertools
import logging
import mmap
import queue
import random
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from _support.workload import PAGE, Pages
from conftest import PoolFactory

import uswap
from uswap import policy as policies
from uswap.policy import NEVER, Answer, Batch, Need, Policy, View, page_of, region_of


@pytest.fixture(params=["thread", "inline"])
def faults(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def eventually(condition: Callable[[], object], seconds: float = 20) -> None:
    """Returns when the condition is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.002)


def job(pool: uswap.Pool, faults: str = "thread", mib: int = 8) -> None:
    """Writes and reads all over a region that is larger than the limit, and checks every word."""
    region = pool.region(mib << 20, faults=faults)
    pages = Pages(region)
    pages.fill(1)
    assert pages.wrong(1) == 0
    assert pages.wrong_at_random(1, 5, 500) == 0
    pages.fill(2, 0, pages.count // 2)
    assert pages.wrong(2, 0, pages.count // 2) + pages.wrong(1, pages.count // 2) == 0
    del pages
    region.close()


def assert_within_limit(pool: uswap.Pool) -> None:
    stats = pool.stats()
    assert stats.peak_resident_bytes <= pool.limit
    assert stats.over_limit_events == 0
    pool.check()


def reclaimer_of(pool: uswap.Pool) -> Any:
    assert pool.reclaimer is not None
    return pool.reclaimer


# ---- policies that fail ------------------------------------------------------------------------------------


class Fails(Policy):
    """Raises in one of its methods, the second time if it is decide."""

    def __init__(self, where: str) -> None:
        self.error = RuntimeError("as it was told to")
        self._where, self._calls = where, itertools.count()

    def start(self, view: View) -> None:
        if self._where == "start":
            raise self.error

    def decide(self, seen: Batch, need: Need) -> Answer | None:
        if next(self._calls) > 0:
            raise self.error
        return Answer(clean=seen.faulted)


@pytest.mark.parametrize("where", ["start", "decide"])
def test_a_policy_that_raises_is_done_without(
    make_pool: PoolFactory, transport: str, faults: str, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    policy = Fails(where)
    with caplog.at_level(logging.ERROR, "uswap"):
        pool = make_pool("4MiB", transport=transport, policy=policy)
        job(pool, faults)
        eventually(lambda: not reclaimer_of(pool).running)
        job(pool, faults)
    assert reclaimer_of(pool).error is policy.error
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [policy.error]
    assert pool.stats().policy_errors == 1
    assert pool.stats().evictions_native > 0
    assert_within_limit(pool)


class Sleeps(Policy):
    """Does not come back before the test lets it go."""

    def __init__(self, where: str) -> None:
        self.asleep, self.wake = threading.Event(), threading.Event()
        self._where = where

    def start(self, view: View) -> None:
        if self._where == "start":
            self._sleep()

    def decide(self, seen: Batch, need: Need) -> Answer | None:
        self._sleep()
        return Answer(evict=seen.faulted)

    def _sleep(self) -> None:
        self.asleep.set()
        self.wake.wait()


@pytest.fixture
def sleeper() -> Iterator[Callable[[str], Sleeps]]:
    made: list[Sleeps] = []

    def make(where: str) -> Sleeps:
        made.append(Sleeps(where))
        return made[-1]

    yield make
    for policy in made:
        policy.wake.set()


@pytest.mark.parametrize("where", ["start", "decide"])
def test_a_policy_that_sleeps_for_ever_is_done_without(
    make_pool: PoolFactory, transport: str, faults: str, where: str, sleeper: Callable[[str], Sleeps]
) -> None:
    policy = sleeper(where)
    pool = make_pool("4MiB", transport=transport, policy=policy)
    job(pool, faults)
    assert policy.asleep.wait(timeout=20)
    job(pool, faults)
    assert reclaimer_of(pool).error is None
    assert pool.stats().evictions_native > 0
    assert_within_limit(pool)


def test_what_a_policy_that_sleeps_for_ever_would_have_written_ahead_the_core_does(
    make_pool: PoolFactory, sleeper: Callable[[str], Sleeps]
) -> None:
    policy = sleeper("decide")
    pool = make_pool("4MiB", policy=policy)
    job(pool)
    assert policy.asleep.wait(timeout=20)
    time.sleep(3.2)
    before = pool.stats().write_ahead_pages
    job(pool)
    assert pool.stats().write_ahead_pages > before


@pytest.mark.parametrize("where", ["start", "decide"])
def test_a_pool_closes_while_its_policy_sleeps(
    make_pool: PoolFactory, where: str, sleeper: Callable[[str], Sleeps], caplog: pytest.LogCaptureFixture
) -> None:
    policy = sleeper(where)
    pool = make_pool("4MiB", policy=policy)
    job(pool)
    assert policy.asleep.wait(timeout=20)
    begin = time.monotonic()
    with caplog.at_level(logging.WARNING, "uswap"):
        pool.close()
    assert time.monotonic() - begin < 10
    assert pool.closed
    assert "policy" in caplog.text
    policy.wake.set()
    eventually(lambda: pool._core.freed)  # by the thread, when it leaves
    assert reclaimer_of(pool).error is None


# ---- policies that answer nonsense -------------------------------------------------------------------------


class Answers(Policy):
    """Answers with what a function makes of the stays that it has seen."""

    every = 64

    def __init__(self, answer: Callable[[list[int]], Any]) -> None:
        self._answer = answer
        self.stays: list[int] = []
        self.answers = 0

    def decide(self, seen: Batch, need: Need) -> Answer | None:
        self.stays += seen.faulted
        self.stays += seen.rescued
        self.stays = self.stays[-5000:]
        answer: Answer | None = self._answer(self.stays)
        self.answers += 1
        return answer


_RANDOM = random.Random(11)


def _all_ways(stays: Any) -> Answer:
    return Answer(stays, stays, stays, stays, stays)


def _few_ways(stays: Any) -> Answer:
    """Without evict: what is prepared to go waits until frames are needed, and there are bounds to that."""
    return Answer((), stays, stays, stays, stays)


def _random_ids(_: list[int]) -> Answer:
    return _all_ways(array("Q", [_RANDOM.getrandbits(64) for _ in range(300)]))


def _random_pages(stays: list[int]) -> Answer:
    """Of the region there is, but anywhere in it and beyond, of any stay."""
    key = region_of(stays[-1]) if stays else 0
    return _all_ways([_RANDOM.randrange(6000) << 28 | key << 10 | _RANDOM.getrandbits(10) for _ in range(300)])


def _duplicates(stays: list[int]) -> Answer:
    return _all_ways(stays[-20:] * 15)


def _one_way(name: str) -> Callable[[list[int]], Answer]:
    return lambda stays: Answer(**{name: [_RANDOM.choice(stays) for _ in range(300)] if stays else ()})


def _extremes(_: list[int]) -> Answer:
    return _all_ways([0, 1, (1 << 64) - 1, 1 << 63, (1 << 28) - 1, ((1 << 36) - 1) << 28] * 20)


def _strided(stays: list[int]) -> Answer:
    numpy = pytest.importorskip("numpy")
    return Answer(age=numpy.array(stays, dtype="u8")[::-2])


NONSENSE: dict[str, Callable[[list[int]], Any]] = {
    "random ids": _random_ids,
    "random pages": _random_pages,
    "duplicates": _duplicates,
    "extremes": _extremes,
    "an array with strides": _strided,
    **{f"any of them to {name}": _one_way(name) for name in Answer._fields},
}


@pytest.mark.parametrize("kind", sorted(NONSENSE))
def test_nonsense_is_passed_over(make_pool: PoolFactory, transport: str, kind: str) -> None:
    policy = Answers(NONSENSE[kind])
    pool = make_pool("4MiB", transport=transport, policy=policy)
    job(pool)
    assert policy.answers > 1
    error = reclaimer_of(pool).error  # all may be named, but not again and again while none is needed
    assert error is None or "pages at once" in str(error)
    assert_within_limit(pool)


def _of_wrong_type(_: list[int]) -> Any:
    return pytest.importorskip("numpy").arange(100, dtype="i4")


def _of_two_dimensions(_: list[int]) -> Any:
    return pytest.importorskip("numpy").ones((10, 10), dtype="u8")


NO_STAYS: dict[str, tuple[Callable[[list[int]], Any], type[Exception]]] = {
    "negative": (lambda _: [5, -1], OverflowError),
    "too large": (lambda _: [1 << 64], OverflowError),
    "float": (lambda _: [1.5], TypeError),
    "text": (lambda _: "all of them", TypeError),
    "bytes": (lambda _: b"12345678", TypeError),
    "nothing": (lambda _: None, TypeError),
    "of a wrong type": (_of_wrong_type, TypeError),
    "of two dimensions": (_of_two_dimensions, TypeError),
    "ten million": (lambda _: array("Q", [7]) * 10**7, ValueError),
}


@pytest.mark.parametrize("field", Answer._fields)
@pytest.mark.parametrize("kind", sorted(NO_STAYS))
def test_what_is_no_stay_ends_the_policy_and_nothing_else(make_pool: PoolFactory, kind: str, field: str) -> None:
    make, expected = NO_STAYS[kind]
    pool = make_pool("4MiB", policy=Answers(lambda stays: Answer(**{field: make(stays)})))
    job(pool)
    eventually(lambda: not reclaimer_of(pool).running)
    assert isinstance(reclaimer_of(pool).error, expected)
    assert pool.stats().policy_errors == 1
    assert_within_limit(pool)


@pytest.mark.parametrize("answer", [7, [1, 2, 3], (), "evict", {"evict": []}])
def test_what_is_no_answer_ends_the_policy_and_nothing_else(make_pool: PoolFactory, answer: object) -> None:
    pool = make_pool("4MiB", policy=Answers(lambda _: answer))
    job(pool)
    eventually(lambda: not reclaimer_of(pool).running)
    assert isinstance(reclaimer_of(pool).error, TypeError)
    assert_within_limit(pool)


def test_locked_and_pinned_pages_stay_whatever_a_policy_orders(pool_factory: PoolFactory) -> None:
    pool = pool_factory("4MiB", policy=Answers(lambda stays: _few_ways(stays[:50] + stays[-50:])))
    region = pool.region("1MiB")
    pages = Pages(region)
    pages.fill(3)
    region.lock(0, 64 * PAGE)
    with region.resident(64 * PAGE, 64 * PAGE):
        job(pool)
        classes = region.page_classes(0, 128 * PAGE)
        assert set(classes) == {uswap.PageClass.RESIDENT}
    region.unlock(0, 64 * PAGE)
    job(pool)
    assert pages.wrong(3) == 0
    assert reclaimer_of(pool).error is None
    assert_within_limit(pool)


def test_stays_of_closed_regions_and_of_other_pools_are_passed_over(pool_factory: PoolFactory) -> None:
    others = Answers(lambda _: None)
    other = pool_factory("4MiB", policy=others)
    elsewhere = other.region("8MiB")
    Pages(elsewhere).fill(1)
    policy = Answers(lambda stays: _few_ways(stays[:60] + others.stays[:60]))
    pool = pool_factory("4MiB", policy=policy)
    for _ in range(4):
        job(pool)  # each is closed at its end; its key comes again
    assert Pages(elsewhere).wrong(1) == 0
    assert reclaimer_of(pool).error is None
    assert_within_limit(pool)
    assert_within_limit(other)


@pytest.mark.parametrize("faults_of_answer", ["thread", "inline"])
def test_an_answer_may_lie_in_managed_memory_that_is_swapped_out(
    make_pool: PoolFactory, transport: str, faults_of_answer: str
) -> None:
    numpy = pytest.importorskip("numpy")
    policy = Answers(lambda _: None)
    pool = make_pool("4MiB", transport=transport, policy=policy, faults=faults_of_answer)
    stays = pool.zeros(1 << 16, dtype="u8")
    region = pool.region("16MiB")
    pages = Pages(region)
    pages.fill(1)
    eventually(lambda: policy.answers > 0)
    stays[:] = numpy.resize(numpy.array(policy.stays, dtype="u8"), len(stays))

    def answer(_: list[int]) -> Answer:
        part = stays[:: max(1, len(stays) // 2000)]
        return Answer(age=stays[:1000], clean=part, read_ahead=stays[-100:])

    policy._answer = answer
    for turn in range(2, 5):
        pages.fill(turn)
        assert pages.wrong(turn) == 0
    assert reclaimer_of(pool).error is None
    assert_within_limit(pool)
    policy._answer = lambda _: None
    reclaimer_of(pool).request_stop()
    reclaimer_of(pool).join()  # the array is in nobody's hands then


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


# ---- what a policy is told ---------------------------------------------------------------------------------


class Told(Policy):
    """Notes all it is told, and does what the test says."""

    wants = frozenset({"aged", "written", "evicted"})
    every = 1

    def __init__(self) -> None:
        self.seen: dict[str, list[int]] = {name: [] for name in Batch._fields if name != "lost"}
        self.need = Need(0, 0, 0, 0, 0, 0, 0)
        self.view: View | None = None
        self._orders: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._rounds = 0
        self._poke: tuple[Pages, Iterator[int]] | None = None

    def start(self, view: View) -> None:
        self.view = view

    def decide(self, seen: Batch, need: Need) -> Answer | None:
        for name, noted in self.seen.items():
            noted += getattr(seen, name)
        self.need = need
        self._rounds += 1
        return None if self._orders.empty() else self._orders.get()

    def region(self, pool: uswap.Pool, mib: int = 8) -> tuple[uswap.Region, Pages]:
        """A region for the test; and one beside it, whose only use is that a touch of it brings a batch about."""
        poke = pool.region("32MiB", name="poke")
        poke.advise(uswap.Advice.RANDOM)
        self._poke = Pages(poke), iter(range(0, 8192, 2))
        region = pool.region(mib << 20)
        region.advise(uswap.Advice.RANDOM)
        return region, Pages(region)

    def settle(self) -> None:
        """Returns when all that has happened so far has been told, and what was ordered is done."""
        assert self._poke is not None
        pages, numbers = self._poke
        for _ in range(2):
            before = self._rounds
            pages.touch([next(numbers)])
            eventually(lambda before=before: self._rounds > before)

    def order(self, answer: Answer) -> None:
        self._orders.put(answer)
        self.settle()
        self.settle()

    def of(self, name: str, region: uswap.Region) -> list[int]:
        """The stays of this region."""
        return [stay for stay in self.seen[name] if region_of(stay) == region.key]

    def beside(self, name: str, others: str, region: uswap.Region) -> list[int]:
        """What was told beside the stays of this region."""
        pairs = zip(self.seen[others], self.seen[name], strict=True)
        return [value for stay, value in pairs if region_of(stay) == region.key]

    def end(self) -> None:
        self._poke = None

    def forget(self) -> None:
        for noted in self.seen.values():
            noted.clear()


def pages_of(stays: list[int]) -> list[int]:
    return [page_of(stay) for stay in stays]


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


@pytest.mark.parametrize("name", sorted(policies.names.NAMES))
def test_policies_that_ship_are_right_on_all_pools(pool_factory: PoolFactory, faults: str, name: str) -> None:
    pool = pool_factory("4MiB", policy=name)
    job(pool, faults)
    assert reclaimer_of(pool).error is None
    assert_within_limit(pool)
