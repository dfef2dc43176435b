"""Pages that wait in the swap cache each by itself: who touches them in sequence takes many at a fault, who does
not takes one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest
from _support.policies import Told, assert_within_limit, eventually, pages_of
from _support.workload import PAGE, Pages
from conftest import PoolFactory

import uswap
from uswap.policy import Answer

PAGES = 512
UP = range(PAGES)


@pytest.fixture
def told() -> Iterator[Told]:
    policy = Told()
    yield policy
    policy.end()


def aged(pool: uswap.Pool, told: Told, advice: uswap.Advice = uswap.Advice.NORMAL) -> Pages:
    """Touched page by page in no order, so that there are no blocks, and inactive."""
    region, pages = told.region(pool)
    order = random.Random(1).sample(UP, PAGES)
    pages.store(order, [page + 1 for page in order])
    told.settle()
    stays = dict(zip(pages_of(told.of("faulted", region)), told.of("faulted", region), strict=True))
    told.order(Answer(age=[stays[page] for page in UP]))
    eventually(lambda: pool.stats().inactive_bytes == PAGES * PAGE)
    region.advise(advice)
    return pages


def soft_faults(pool: uswap.Pool, pages: Pages, touched: Sequence[int]) -> int:
    """Of loads of these pages; all are right, and nothing is read."""
    before = pool.stats()
    for page in touched:
        assert pages.touch([page]) == page + 1
    pool.check()  # waits for who is at a fault yet: it counts it when the page is there
    after = pool.stats()
    assert_within_limit(pool)
    assert after.pages_in == before.pages_in
    return after.soft_faults - before.soft_faults


@pytest.mark.parametrize("touched", [UP, UP[::-1]], ids=["up", "down"])
def test_in_sequence_many_come_at_a_fault(make_pool: PoolFactory, told: Told, touched: Sequence[int]) -> None:
    pool = make_pool("16MiB", transport="move", policy=told, read_ahead=0)
    assert 0 < soft_faults(pool, aged(pool, told), touched) < PAGES // 4


def test_at_random_one_comes_at_a_fault(make_pool: PoolFactory, told: Told, transport: str) -> None:
    pool = make_pool("16MiB", transport=transport, policy=told, read_ahead=0)
    pages = aged(pool, told)
    some = random.Random(2).sample(UP[:: PAGES // 32], 32)
    assert soft_faults(pool, pages, some) == len(some)


def test_after_the_advice_random_each_page_faults(make_pool: PoolFactory, told: Told) -> None:
    pool = make_pool("16MiB", transport="move", policy=told, read_ahead=0)
    assert soft_faults(pool, aged(pool, told, uswap.Advice.RANDOM), UP) == PAGES


def test_who_comes_beside_one_that_is_touched_was_not_rescued(make_pool: PoolFactory, told: Told) -> None:
    pool = make_pool("16MiB", transport="move", policy=told, read_ahead=0)
    pages = aged(pool, told)
    before = pool.stats()
    faults = soft_faults(pool, pages, UP)
    after = pool.stats()
    assert after.rescues - before.rescues == faults
    assert after.fault_around_pages - before.fault_around_pages == PAGES - faults


def test_without_fault_around_each_page_faults(make_pool: PoolFactory, told: Told) -> None:
    pool = make_pool("16MiB", transport="move", policy=told, read_ahead=0, fault_around=1)
    assert soft_faults(pool, aged(pool, told), UP) == PAGES
