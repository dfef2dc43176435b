"""Every byte right: 8 threads write and check pages at random at the least limit there can be.

Seconds by default; $USWAP_STRESS_SECONDS (30 under CI) says how many for each of the four ways. What runs as long
as one likes is `make stress` (test_words.py).
"""

import os
import time

import pytest
from _support.workload import Pages, in_threads
from conftest import PoolFactory, probe

SECONDS = float(os.environ.get("USWAP_STRESS_SECONDS", "15" if os.environ.get("CI") else "5"))
THREADS = 8
pytestmark = pytest.mark.timeout(100 + 4 * SECONDS)


def test_every_byte_is_right_at_the_least_limit(pool_factory: PoolFactory) -> None:
    least = pool_factory("16MiB").minimum_limit
    pool = pool_factory(least)
    pages = Pages(pool.region(16 * least))
    deadline = time.monotonic() + SECONDS

    def work(number: int) -> None:
        seed = number + 1
        while time.monotonic() < deadline or pool.stats().evictions <= pages.count // 2:
            assert pages.stress(seed, 200) == 0
            seed += THREADS

    def check() -> None:
        while time.monotonic() < deadline:
            pool.check()

    in_threads(THREADS + 1, lambda number: work(number) if number < THREADS else check())
    assert pages.wrong_after_stress() == 0
    stats = pool.stats()
    assert stats.peak_resident_bytes <= least
    assert stats.over_limit_events == 0
    assert stats.evictions > pages.count // 2


@pytest.mark.skipif(probe().encrypt_errno != 0, reason="swap cannot be encrypted: no libcrypto")
def test_every_byte_is_right_encrypted_with_circulating_frames(make_pool: PoolFactory) -> None:
    pool = make_pool("6MiB", recycle=True, encrypt=True)
    pages = Pages(pool.region("32MiB"))
    in_threads(THREADS, lambda number: _assert_right(pages.stress(number + 1, 1000)))
    assert pages.wrong_after_stress() == 0
    assert pool.stats().peak_resident_bytes <= pool.limit


def test_every_byte_is_right_with_circulating_frames(pool_factory: PoolFactory) -> None:
    pool = pool_factory("4MiB", recycle=True)
    pages = Pages(pool.region("32MiB"))
    in_threads(THREADS, lambda number: _assert_right(pages.stress(number + 1, 1000)))
    assert pages.wrong_after_stress() == 0
    assert pool.stats().peak_resident_bytes <= pool.limit


def _assert_right(wrong: int) -> None:
    assert wrong == 0
