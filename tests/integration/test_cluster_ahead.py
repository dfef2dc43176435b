"""Read-ahead by swap cluster: pages that left together and come back together, whatever their addresses."""

import random

from _support.workload import Pages
from conftest import PoolFactory


def test_a_walk_that_repeats_itself_is_read_in_groups(pool_factory: PoolFactory) -> None:
    pool = pool_factory("8MiB", policy=None)
    region = pool.region("64MiB")
    pages = Pages(region)
    pages.fill(1)
    order = list(range(pages.count))
    random.Random(1).shuffle(order)
    for _ in range(3):  # its own order becomes that of the slots: what is touched together leaves together
        for start in range(0, pages.count, 512):
            pages.store(order[start : start + 512], [start + 1] * 512)
    before = pool.stats()
    pages.touch(order)
    after = pool.stats()
    read = after.pages_in - before.pages_in
    assert (after.major_faults - before.major_faults) < read / 2
    assert after.read_ahead_pages > before.read_ahead_pages
    pool.check()


def test_random_touches_are_read_alone(pool_factory: PoolFactory) -> None:
    pool = pool_factory("8MiB", policy=None)
    region = pool.region("256MiB")
    pages = Pages(region)
    pages.fill(1)
    before = pool.stats()
    pages.wrong_at_random(1, 99, 4000)
    after = pool.stats()
    assert after.pages_in - before.pages_in < 1.3 * (after.major_faults - before.major_faults)
    pool.check()
