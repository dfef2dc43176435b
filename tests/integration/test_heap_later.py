"""Small blocks that are freed while they are out: each page comes in once at most, whatever the order."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

import uswap

COUNT, ITEMS = 60_000, 128  # of 1 KiB each


def freed(pool: uswap.Pool, arrays: list[Any]) -> int:
    """=> pages read for it."""
    before = pool.stats().pages_in
    arrays.clear()
    return pool.stats().pages_in - before


def test_freeing_in_any_order_reads_each_page_once_at_most(make_pool: Any) -> None:
    pool = make_pool()
    with pool.numpy():
        arrays = [np.full(ITEMS, i) for i in range(COUNT)]
        pages = COUNT * ITEMS * 8 // 4096
        random.Random(1).shuffle(arrays)
        assert freed(pool, arrays) < 1.2 * pages
        again = [np.full(ITEMS, i) for i in range(COUNT)]
        assert all(int(a[5]) == i for i, a in enumerate(again))
    pool.check()
    del again
    pool.close()


def test_blocks_freed_many_at_a_time_are_used_again(make_pool: Any) -> None:
    pool = make_pool()
    with pool.numpy():
        for _ in range(4):
            arrays = [np.full(16, i) for i in range(200_000)]
            assert all(int(a[7]) == i for i, a in enumerate(arrays))
            freed(pool, arrays)
        # Four times the data would be 100 MiB.
        assert sum(info.size for info in pool.regions()) < 80 << 20
    pool.check()


def test_what_waits_takes_a_bounded_part_of_the_swap_space(make_pool: Any) -> None:
    pool = make_pool()
    with pool.numpy():
        arrays = [np.arange(i, i + 6 * 1024) for i in range(4000)]  # of 48 KiB each, 187 MiB
        assert pool.stats().swap_used_bytes > 150 << 20
        freed(pool, arrays)
        assert pool.stats().swap_used_bytes < 90 << 20  # 128 MiB were freed together, the rest waits
    pool.check()
