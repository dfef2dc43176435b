"""Pages of one repeated value take no slot and no I/O, and come back as they were."""

import random

import numpy as np
import pytest
from _support.policies import eventually
from _support.workload import PAGE, Pages, in_threads
from conftest import PoolFactory

import uswap
from uswap import Advice, PageClass
from uswap.policy import Answer, Batch, Need, Policy

VALUES_MAX = 65536  # FILL_VALUES_MAX


def words_of(region: uswap.Region) -> "np.ndarray[tuple[int, int], np.dtype[np.uint64]]":
    """The region as one row of 512 words a page."""
    return np.frombuffer(region, dtype=np.uint64).reshape(-1, 512)


def test_pages_of_one_value_take_no_slot(pool_factory: PoolFactory) -> None:
    pool = pool_factory()
    region = pool.region("8MiB")
    words = words_of(region)
    words[:] = np.arange(len(words), dtype=np.uint64)[:, None] // 7 * 3 + 1  # several values, some of them twice
    expected = words.copy()
    region.advise(Advice.PAGEOUT)
    stats = pool.stats()
    assert stats.filled_drops == len(words)
    assert stats.pages_out == stats.pages_in == stats.zero_drops == stats.swap_used_bytes == 0
    assert set(region.page_classes()) == {PageClass.FILLED}
    assert region.info().swapped == 0
    region.verify()
    pool.check()
    assert (words == expected).all()
    pool.check()
    assert set(region.page_classes()) == {PageClass.RESIDENT}
    assert pool.stats().pages_in == 0


@pytest.mark.parametrize("odd_word", [0, 1, 2, 255, 510, 511])
def test_a_page_with_one_odd_word_is_written(pool_factory: PoolFactory, odd_word: int) -> None:
    pool = pool_factory()
    region = pool.region(PAGE)
    words = words_of(region)
    words[:] = 5
    words[0, odd_word] = 4
    region.advise(Advice.PAGEOUT)
    assert pool.stats().filled_drops == 0
    assert pool.stats().pages_out == 1
    assert words[0, odd_word] == 4
    assert words.sum() == 5 * 512 - 1


def test_a_page_that_becomes_filled_gives_its_slot_back(pool_factory: PoolFactory) -> None:
    pool = pool_factory()
    region = pool.region("1MiB")
    pages = Pages(region)
    pages.fill(1)
    region.advise(Advice.PAGEOUT)
    assert pages.wrong(1) == 0  # in again; the slots are kept
    words = words_of(region)
    before = pool.stats().swap_used_bytes
    words[:] = 9
    region.advise(Advice.PAGEOUT)
    assert before - pool.stats().swap_used_bytes == len(region)
    pool.check()
    assert (words == 9).all()
    pages.fill(2)
    region.advise(Advice.PAGEOUT)
    pool.check()
    assert pages.wrong(2) == 0


def test_what_is_done_to_filled_pages(pool_factory: PoolFactory) -> None:
    pool = pool_factory()
    region = pool.region(8 * PAGE)
    words = words_of(region)
    words[:] = 7

    def out() -> None:
        region.advise(Advice.PAGEOUT)

    out()
    region.advise(Advice.DONTNEED, 0, PAGE)
    assert region.page_classes(0, 2 * PAGE) == bytes([PageClass.ZERO, PageClass.FILLED])
    assert words[0].sum() == 0
    with region.resident(PAGE, 2 * PAGE):
        assert set(region.page_classes(PAGE, 2 * PAGE)) == {PageClass.RESIDENT}
        out()
        assert set(region.page_classes(PAGE, 2 * PAGE)) == {PageClass.RESIDENT}
    region.lock(3 * PAGE, PAGE)
    assert region.page_classes(3 * PAGE, PAGE) == bytes([PageClass.RESIDENT])
    region.unlock(3 * PAGE, PAGE)
    out()
    region.advise(Advice.WILLNEED)
    region.advise(Advice.COLD)
    assert (words[1:] == 7).all()
    out()
    pool.check()
    del words
    region.close()
    pool.check()


@pytest.mark.parametrize("backward", [False, True])
def test_streams_over_filled_pages_take_few_faults(pool_factory: PoolFactory, backward: bool) -> None:
    pool = pool_factory("64MiB")
    region = pool.region("32MiB")
    words = words_of(region)
    words[:] = np.arange(len(words), dtype=np.uint64)[:, None] + 1
    region.advise(Advice.PAGEOUT)
    before = pool.stats()
    order = list(range(len(words)))
    Pages(region).touch(order[::-1] if backward else order)
    after = pool.stats()
    assert after.soft_faults - before.soft_faults < len(words) / 16
    assert (words == np.arange(len(words), dtype=np.uint64)[:, None] + 1).all()
    pool.check()


def test_more_values_than_the_table_holds(make_pool: PoolFactory) -> None:
    pool = make_pool("32MiB")
    region = pool.region((VALUES_MAX + 4096) * PAGE)
    words = words_of(region)
    words[:] = (np.arange(len(words), dtype=np.uint64)[:, None] + 1) * np.uint64(0x123456789)
    region.advise(Advice.PAGEOUT)
    stats = pool.stats()
    assert VALUES_MAX * 9 // 10 < stats.filled_drops <= VALUES_MAX
    assert stats.pages_out == len(words) - stats.filled_drops  # the others go the ordinary way
    pool.check()
    for page in random.Random(1).sample(range(len(words)), 4096):
        assert (words[page] == (page + 1) * 0x123456789).all()
    pool.check()


def test_filled_pages_under_pressure(pool_factory: PoolFactory) -> None:
    pool = pool_factory("8MiB")
    region = pool.region("32MiB")
    words = words_of(region)

    def work(number: int) -> None:
        mine, draw = words[number::4], random.Random(number)
        version = [0] * len(mine)
        for _ in range(6000):
            page = draw.randrange(len(mine))
            assert (mine[page] == version[page]).all()
            version[page] = draw.choice([0, 1, number + 2, page + 10])
            mine[page] = version[page]
        assert all((mine[page] == version[page]).all() for page in range(len(mine)))

    in_threads(4, work)
    stats = pool.stats()
    assert stats.filled_drops > 0
    assert stats.peak_resident_bytes <= stats.limit_bytes
    pool.check()


def test_pages_of_one_value_are_not_evicted_beyond_need(make_pool: PoolFactory) -> None:
    """They leave nothing in the cache, however many are taken out ahead of need: that must not go on for ever."""
    pool = make_pool("16MiB")
    words = np.frombuffer(pool.region("64MiB"), dtype="u8")
    for start in range(0, len(words), 1 << 16):
        words[start : start + (1 << 16)] = 7
    pool.check()  # returns when nobody is in the core
    assert pool.stats().mapped_bytes > pool.limit / 2
    del words


class AgesAll(Policy):
    """Orders every page that it hears of to be aged, and hears of those that were not."""

    def __init__(self) -> None:
        self.kept = 0

    def decide(self, seen: Batch, need: Need) -> Answer | None:
        self.kept += len(seen.kept)
        return Answer(age=seen.faulted)


def test_pages_of_one_value_are_not_aged_beyond_need(make_pool: PoolFactory) -> None:
    """However late a policy decides: what it orders while frames are free for no other reason is passed over."""
    policy = AgesAll()
    pool = make_pool("16MiB", policy=policy)
    words = words_of(pool.region("64MiB"))
    for page in range(len(words)):
        words[page] = 7
    eventually(lambda: policy.kept > 0)
    pool.check()
    assert pool.stats().mapped_bytes > pool.limit / 2
    assert pool.stats().policy_passed > 0
    del words
