"""uswap.limit: a limit for a block, a function, the whole process."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.random  # keeps arrays of its own: it is not to be imported first inside a block
import pytest
from _support.program import run_program

import uswap
from uswap._heap import _all as all_heaps


def handler_of(array: Any) -> str:
    core = getattr(np, "_core", None) or np.core
    return str(core.multiarray.get_handler_name(array))


def test_a_block_has_a_pool_of_its_own(swap: uswap.SwapArea) -> None:
    before = len(all_heaps)
    limit = uswap.limit("16MiB", swap=swap)
    with limit as pool:
        assert limit.pool is pool
        assert pool.limit == 16 << 20
        a = np.arange(1 << 22)
        assert pool.stats().managed_bytes >= a.nbytes
    with pytest.raises(uswap.ClosedError, match="not in force"):
        _ = limit.pool
    assert int(a[-1]) == (1 << 22) - 1
    assert handler_of(np.ones(1)) == "default_allocator"
    del a, pool
    assert len(all_heaps) == before


def test_limits_nest_and_the_innermost_is_in_force(swap: uswap.SwapArea) -> None:
    with uswap.limit("16MiB", swap=swap) as outer:
        with uswap.limit("12MiB", swap=swap) as inner:
            a = np.zeros(1 << 21)
            assert (outer.stats().managed_bytes, inner.stats().managed_bytes) == (0, a.nbytes)
        b = np.zeros(1 << 21)
        assert outer.stats().managed_bytes == b.nbytes


def test_calls_that_overlap_share_a_pool(swap: uswap.SwapArea) -> None:
    limit = uswap.limit("16MiB", swap=swap)
    both = threading.Barrier(2)
    pools = []

    @limit
    def work(deep: int) -> float:
        pools.append(limit.pool)
        both.wait()
        return float(np.ones(1 << 21).sum()) if deep == 0 else work(deep - 1)

    results: list[float] = []
    threads = [threading.Thread(target=lambda: results.append(work(2))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [2.0**21] * 2
    assert len({id(pool) for pool in pools}) == 1
    with pytest.raises(uswap.ClosedError):
        _ = limit.pool


def test_a_coroutine_function_is_inside_while_it_runs(swap: uswap.SwapArea) -> None:
    limit = uswap.limit("16MiB", swap=swap)

    @limit
    async def work() -> str:
        await asyncio.sleep(0)
        return handler_of(np.ones(5))

    async def other() -> str:
        await asyncio.sleep(0)
        return handler_of(np.ones(5))

    async def all_of_them() -> list[str]:
        return list(await asyncio.gather(work(), other(), work()))

    assert asyncio.run(all_of_them()) == ["NumPy arrays", "default_allocator", "NumPy arrays"]


EVERYWHERE = """
    import threading, warnings
    import numpy as np, numpy.random
    before = np.arange(1000)
    def managed(): return limit.pool.stats().managed_bytes
    limit = uswap.limit("16MiB", swap=SWAP)
    assert managed() == 0
    a = np.arange(1 << 22)
    assert managed() == a.nbytes, managed()
    made = []
    thread = threading.Thread(target=lambda: made.append(np.arange(1 << 22)))
    thread.start(); thread.join()
    assert managed() == 2 * a.nbytes
    before = np.concatenate([before, before]); before.resize(1 << 18, refcheck=False)

    # another one: for a block it is what it is anywhere, as a statement it says that it does nothing
    with uswap.limit("12MiB", swap=SWAP) as inner:
        b = np.zeros(1 << 21)
        assert inner.stats().managed_bytes == b.nbytes and managed() < 3 * a.nbytes
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        uswap.limit("12MiB")
    assert [w.category for w in told] == [uswap.UswapWarning] and "has a limit already" in str(told[0].message)
    limit.pool.limit = "20MiB"
    assert limit.pool.stats().peak_resident_bytes <= 20 << 20

    pool = limit.pool
    limit.end(); limit.end()
    c = np.arange(1 << 22)
    assert pool.stats().managed_bytes < 3 * a.nbytes
    assert int(a[-1]) == int(made[0][-1]) == (1 << 22) - 1
    a.resize(1 << 21, refcheck=False)
    assert int(a[-1]) == (1 << 21) - 1
    del a, before
    made.clear()
    import gc; gc.collect()
    assert pool._core.freed or pool._core.heaps == {}, pool
    again = uswap.limit("16MiB", swap=SWAP)
    d = np.zeros(1 << 22)
    assert again.pool.stats().managed_bytes == d.nbytes
"""


def test_a_statement_is_for_the_whole_process(swap_directory: Path) -> None:
    run_program(EVERYWHERE, swap_directory)


CHILD = """
    import os, warnings, multiprocessing
    import numpy as np, numpy.random
    warnings.simplefilter("ignore", DeprecationWarning)       # of forks beside threads
    from _support.forks import child, end_of
    limit = uswap.limit("16MiB", swap=SWAP)
    a = np.arange(1 << 22)
    small = [np.full(20, i) for i in range(1000)]
    def work():
        assert np.array_equal(np.sort(a)[::4096], np.arange(0, 1 << 22, 4096))
        assert [int(x[3]) for x in small] == list(range(1000))
        small.clear()
        limit.pool.check()
    assert end_of(child(work)) == 0
    with multiprocessing.get_context("fork").Pool(2) as workers:
        parts = [a[:1000], a[1000:300000]]
        assert workers.map(np.sum, parts) == [sum(range(1000)), sum(range(1000, 300000))]
    assert int(a.sum()) == (1 << 22) * ((1 << 22) - 1) // 2
    limit.pool.check()
"""


def test_children_of_a_fork_go_on_under_the_limit(swap_directory: Path) -> None:
    run_program(CHILD, swap_directory)


LOST = """
    import gc, os, warnings
    import numpy as np
    warnings.simplefilter("ignore")
    from _support.forks import child, end_of
    pool = uswap.Pool("16MiB", swap=SWAP, snapshots=False)
    block = pool.numpy()
    with block:
        a = [np.arange(n) for n in (10, 1 << 16, 1 << 22)]
        def work():
            a.clear(); gc.collect()                             # frees what it may not touch
            try:
                np.ones(5)
            except MemoryError:
                pass
            else:
                raise AssertionError("memory of the parent's pool")
        assert end_of(child(work)) == 0
    limit = uswap.limit("16MiB", swap=SWAP, snapshots=False)
    b = np.arange(1 << 20)
    def go_on():
        assert np.arange(1 << 20).sum() == (1 << 19) * ((1 << 20) - 1)      # by NumPy's own
    assert end_of(child(go_on)) == 0
    assert int(a[2][-1]) == (1 << 22) - 1
"""


def test_a_child_without_the_pool_frees_nothing_and_touches_nothing(swap_directory: Path) -> None:
    run_program(LOST, swap_directory)


def test_bad_arguments_are_refused_at_once() -> None:
    for bad, error in (("nonsense", ValueError), (-1, ValueError), (1.5, TypeError), ("1MiB", uswap.LimitError)):
        with pytest.raises(error):
            uswap.limit(bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        uswap.limit("64MiB", nonsense=True)
    with pytest.raises(TypeError, match="generator"):
        uswap.limit("64MiB")(lambda: (yield))
    assert handler_of(np.ones(1)) == "default_allocator"
