"""Reclaim runs in the background: a sweep that lets go of the GIL has its pages evicted by the Python reclaimer;
when the GIL is held throughout, the native one keeps the limit."""

from _support.workload import Pages
from conftest import PoolFactory


def test_a_sweep_is_evicted_by_the_python_reclaimer(pool_factory: PoolFactory) -> None:
    pool = pool_factory("32MiB")
    pages = Pages(pool.region("128MiB"))
    pages.fill(1)
    for _ in range(2):
        assert pages.wrong(1) == 0
    stats = pool.stats()
    assert stats.evictions > 2 * pages.count
    assert stats.evictions_steered >= 0.9 * stats.evictions, stats
    assert stats.peak_resident_bytes <= pool.limit


def test_with_the_gil_held_throughout_limit_and_data_hold(pool_factory: PoolFactory) -> None:
    pool = pool_factory("16MiB")
    pages = Pages(pool.region("64MiB"), hold_gil=True)
    pages.fill(1)
    assert pages.wrong(1) == 0
    stats = pool.stats()
    assert stats.peak_resident_bytes <= pool.limit
    assert stats.over_limit_events == 0
    assert stats.evictions > pages.count
    assert stats.evictions_native + stats.evictions_direct > 0


def test_without_any_reclaimer_the_faults_evict(pool_factory: PoolFactory) -> None:
    pool = pool_factory("16MiB", background=False)
    pages = Pages(pool.region("64MiB"))
    pages.fill(1)
    assert pages.wrong(1) == 0
    stats = pool.stats()
    assert stats.evictions_direct == stats.evictions > pages.count
    assert stats.peak_resident_bytes <= pool.limit


def test_a_dead_steering_thread_is_replaced(pool_factory: PoolFactory) -> None:
    pool = pool_factory("16MiB")
    assert pool.reclaimer is not None
    pool.reclaimer.request_stop()
    pool.reclaimer.join()
    before = pool.stats().evictions_steered
    pages = Pages(pool.region("64MiB"))
    pages.fill(1)
    assert pages.wrong(1) == 0
    stats = pool.stats()
    assert stats.evictions_steered == before
    assert stats.evictions_native > 0
    assert stats.peak_resident_bytes <= pool.limit
