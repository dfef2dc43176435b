"""Policies of users that fail or answer nonsense, on live pools: whatever they do, contents and limit hold."""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from _support.policies import assert_within_limit, eventually, job, reclaimer_of
from _support.workload import PAGE, Pages
from conftest import PoolFactory

import uswap
from uswap import policy as policies
from uswap.policy import Answer, Batch, Need, Policy, View, region_of


@pytest.fixture(params=["thread", "inline"])
def faults(request: pytest.FixtureRequest) -> str:
    return str(request.param)


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
    with caplog.at_level(logging.WARNING, "uswap"):
        pool.close()
    assert not policy.wake.is_set()
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
    while policy.answers < 2 and reclaimer_of(pool).running:  # it runs beside, and may be slow
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


@pytest.mark.parametrize("name", sorted(policies.names.NAMES))
def test_policies_that_ship_are_right_on_all_pools(pool_factory: PoolFactory, faults: str, name: str) -> None:
    pool = pool_factory("4MiB", policy=name)
    job(pool, faults)
    assert reclaimer_of(pool).error is None
    assert_within_limit(pool)
