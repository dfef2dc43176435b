"""Reclaim runs in the background: a sweep that lets go of the GIL has its pages evicted by the Python reclaimer;
when the GIL is held throughout, the native one keeps the limit."""

from pathlib import Path

from _support.policies import reclaimer_of
from _support.workload import Pages
from conftest import PoolFactory

import uswap

# A steering thread that has done nothing for so long is late, and the native one goes on (reclaimer.c).
LATE_NS = 8_000_000
SWEEPS = 3


def kept_waiting_ns(thread: int) -> int:
    """How long it has waited for a processor in all."""
    return int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[1])


def steered_share(before: uswap.Stats, after: uswap.Stats) -> float:
    return (after.evictions_steered - before.evictions_steered) / (after.evictions - before.evictions)


def test_a_sweep_is_evicted_by_the_python_reclaimer(pool_factory: PoolFactory) -> None:
    """A sweep in which the reclaimer had no processor for as long as makes it late is no sweep to judge it by: then
    there is another one."""
    pool = pool_factory("32MiB")
    pages = Pages(pool.region("128MiB"))
    steering, judged = reclaimer_of(pool)._thread.native_id, 0
    before, waited, version = pool.stats(), kept_waiting_ns(steering), 0
    while judged < SWEEPS:
        version += 1
        pages.fill(version)
        assert pages.wrong(version) == 0
        after, now = pool.stats(), kept_waiting_ns(steering)
        share = steered_share(before, after)
        assert share >= 0.9 or now - waited >= LATE_NS, after
        judged += share >= 0.9
        before, waited = after, now
    assert after.evictions > SWEEPS * pages.count
    assert after.peak_resident_bytes <= pool.limit


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
