"""Read-ahead by address: strides, the lanes beside them, and what earlier sweeps leave behind."""

import random

import pytest
from _support.workload import Pages
from conftest import PoolFactory

import uswap

STRIDE = 16


def lane(pages: Pages, number: int) -> list[int]:
    """The pages that a reader with the stride visits in its pass of that number."""
    return list(range(number, pages.count, STRIDE))


def filled(pool_factory: PoolFactory) -> tuple[Pages, uswap.Pool]:
    """A region four times the limit, and its pool; what is read ahead leaves in its order."""
    pool = pool_factory("32MiB", policy=None)
    pages = Pages(pool.region("128MiB"))
    pages.fill(1)
    return pages, pool


def test_a_stride_reads_its_own_pages(pool_factory: PoolFactory) -> None:
    pages, pool = filled(pool_factory)
    before = pool.stats()
    pages.touch(lane(pages, 0))
    after = pool.stats()
    assert after.pages_in - before.pages_in < 1.2 * pages.count / STRIDE
    # How far ahead depends on who is faster; that most come by reading ahead does not.
    assert after.read_ahead_pages - before.read_ahead_pages > 0.3 * pages.count / STRIDE
    assert after.read_ahead_misses - before.read_ahead_misses < 0.7 * pages.count / STRIDE


def test_a_stride_is_not_taken_for_an_earlier_sweep(pool_factory: PoolFactory) -> None:
    pages, pool = filled(pool_factory)
    half = pages.count // 2
    assert pages.wrong(1, 0, half) == 0  # a sweep that expects the second half to follow
    elsewhere = list(range(0, half // 3, 80))
    random.Random(1).shuffle(elsewhere)
    pages.touch(elsewhere)  # many faults of others later
    strided = list(range(half, pages.count, STRIDE))  # begins where the sweep has ended
    before = pool.stats()
    pages.touch(strided)
    after = pool.stats()
    assert after.pages_in - before.pages_in < 1.3 * len(strided)


def test_lanes_that_fit_are_read_together(pool_factory: PoolFactory) -> None:
    pages, pool = filled(pool_factory)  # 2048 pages a lane; half of 8192 frames holds one beside the present one
    pages.touch(lane(pages, 0))
    before = pool.stats()
    for number in range(1, 7):
        pages.touch(lane(pages, number))
    after = pool.stats()
    visits = 6 * len(lane(pages, 1))
    assert after.pages_in - before.pages_in < 1.4 * visits
    # Each request brings two of them, but for the few before the stride is known.
    assert after.reads - before.reads < 0.75 * visits


def test_lanes_that_do_not_fit_are_read_one_by_one(pool_factory: PoolFactory) -> None:
    pool = pool_factory("8MiB", policy=None)  # 2048 frames
    pages = Pages(pool.region("128MiB"))
    pages.fill(1)
    pages.touch(lane(pages, 0))
    before = pool.stats()
    pages.touch(lane(pages, 1))
    after = pool.stats()
    assert after.pages_in - before.pages_in < 1.2 * pages.count / STRIDE


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 6, 8])
def test_records_at_random_are_read_as_they_are(pool_factory: PoolFactory, length: int) -> None:
    """Each as a whole, once it is known how long they are, and nothing of what lies behind them. 4000 records, of
    which three in four are out."""
    pages, pool = filled(pool_factory)
    numbers = random.Random(1)
    count = pages.count // length
    firsts = [length * numbers.randrange(count) for _ in range(4000)]
    before = pool.stats()
    for some in range(0, len(firsts), 50):
        pool.evict("2MiB")  # nothing is read ahead that frames would have to be made for: there are enough
        pages.touch([first + i for first in firsts[some : some + 50] for i in range(length)])
    after = pool.stats()
    assert after.pages_in - before.pages_in < 1.1 * length * len(firsts)
    # Of a record all but the first page are read ahead; of single pages none is.
    ahead = length * (after.read_ahead_pages - before.read_ahead_pages) / (after.pages_in - before.pages_in)
    assert 0.6 * (length - 1) <= ahead < 1.1 * (length - 1) + 0.1
    half = pages.count // 2
    before = pool.stats()
    assert pages.wrong(1, 0, half) == 0  # a stream is read ahead all the same
    after = pool.stats()
    read = after.pages_in - before.pages_in
    assert after.major_faults - before.major_faults < 0.3 * read  # how far ahead depends on who is faster
    pool.check()
