"""Pool.numpy: what NumPy allocates comes from the pool, stays within its limit, and goes back to it."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.random  # keeps arrays of its own: it is not to be imported first inside a block
import pytest
from _support.program import run_program

import uswap
from uswap._heap import _all as all_heaps

MiB = 1 << 20

WITHIN = """
    import numpy as np, numpy.random
    from uswap._sampler import ResidentPeak
    LIMIT = 16 << 20
    COUNT = 4 * LIMIT // 8
    np.sort(np.random.default_rng(0).random(1000)); np.dot(np.ones(1000), np.ones(1000))
    with ResidentPeak() as peak:
        pool = uswap.Pool(LIMIT, swap=SWAP, transport={transport!r})
        with pool.numpy():
            a = np.random.default_rng(1).random(COUNT)
            total = float(a.sum())
            b = np.sort(a)
            assert abs(float(b.sum()) - total) < 1e-6 * total
            assert bool((b[1:] >= b[:-1]).all())
            del b
            c = np.sqrt(a) * 2 + 1                      # temporaries of 4 times the limit
            assert float(c.min()) >= 1 and float(c.max()) <= 3
            del c
            d = np.concatenate([a[:COUNT // 2], a[COUNT // 2:]])
            assert bool((d == a).all())
        stats = pool.stats()
    assert stats.peak_resident_bytes <= LIMIT, stats
    assert stats.over_limit_events == 0, stats
    assert stats.evictions * 4096 > 4 * LIMIT, stats
    assert peak.samples > 20, peak
    assert peak.growth_bytes <= LIMIT * 1.01 + (16 << 20), (peak, peak.growth_bytes)
    pool.check()
    del a, d
    pool.close()
"""


def test_arrays_of_four_times_the_limit_stay_within_it(transport: str, swap_directory: Path) -> None:
    run_program(WITHIN.format(transport=transport), swap_directory)


def test_the_block_is_in_force_inside_and_nowhere_else(pool: uswap.Pool) -> None:
    before = np.ones(10)
    with pool.numpy() as inside:
        assert inside is pool
        a = np.ones(10)
    after = np.ones(10)
    assert [handler_of(x) for x in (before, a, after)] == ["default_allocator", "NumPy arrays", "default_allocator"]


def handler_of(array: Any) -> str:
    core = getattr(np, "_core", None) or np.core
    return str(core.multiarray.get_handler_name(array))


def evict(pool: uswap.Pool) -> None:
    while pool.evict("16MiB"):
        pass


KINDS = {
    "small": lambda: np.arange(1000) * 3,
    "structured": lambda: np.array([(i, i / 2, b"x" * 20) for i in range(9000)], dtype="i4,f8,S20"),
    "text": lambda: np.array([f"word {i}" for i in range(20000)]),
    "objects": lambda: np.array([str(i) for i in range(200000)], dtype=object),
    "variable text": lambda: np.array(["long text " * 9 + str(i) for i in range(20000)]).astype("O"),
    "view": lambda: np.arange(3_000_000, dtype="i8").reshape(1000, 3000)[::2, ::-3].T,
    "padded": lambda: np.pad(np.ones((700, 700)), 5, mode="reflect"),
    "joined": lambda: np.concatenate([np.arange(50000), np.arange(70000)[::2]]),
    "bits": lambda: np.packbits(np.arange(1_000_000) % 3 == 0),
    "unique": lambda: np.unique(np.arange(400_000) % 1013, return_inverse=True)[1],
    "product": lambda: np.arange(90000.0).reshape(300, 300) @ np.eye(300),
    "fourier": lambda: np.fft.rfft(np.arange(100_000.0)).round(3),
    "zeroes": lambda: np.zeros(3_000_000, dtype="u1"),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_arrays_of_each_kind_are_as_ever(make: Any, pool: uswap.Pool) -> None:
    expected = make()
    with pool.numpy():
        a = make()
    evict(pool)
    assert np.array_equal(a, expected)
    copied = pickle.loads(pickle.dumps(a))
    assert np.array_equal(copied, expected)
    del a
    pool.close()


@pytest.mark.parametrize("size", [100, 1000, 130_000, 1_000_000, 9_000_000])
def test_arrays_are_resized(size: int, pool: uswap.Pool) -> None:
    with pool.numpy():
        a = np.arange(size, dtype="u1")
        for length in (size * 3, size * 3 + 1, size // 2, size * 20, 5, size):
            kept = min(len(a), length)
            expected = a[:kept].tobytes()
            a.resize(length, refcheck=False)
            assert a[:kept].tobytes() == expected
            assert not a[kept:].any()
    del a
    pool.close()


def test_a_large_array_grows_without_a_read(pool: uswap.Pool) -> None:
    with pool.numpy():
        a = np.arange(8 * MiB, dtype="i8")
        evict(pool)
        before = pool.stats().pages_in
        a.resize(12 * MiB, refcheck=False)
        assert pool.stats().pages_in - before < 1024
    assert int(a[:: 1 << 12].sum()) == sum(range(0, 8 * MiB, 1 << 12))


def test_files_are_saved_and_loaded(pool: uswap.Pool, tmp_path: Path) -> None:
    with pool.numpy():
        a = np.arange(4 * MiB, dtype="i8")
        np.save(tmp_path / "a.npy", a)
        np.savez_compressed(tmp_path / "a.npz", a=a[: MiB // 4])
        b = np.load(tmp_path / "a.npy")
        c = np.load(tmp_path / "a.npz")["a"]
        assert handler_of(b if b.base is None else b.base) == "NumPy arrays"
    assert np.array_equal(a, b)
    assert np.array_equal(c, a[: MiB // 4])


def test_freed_memory_gives_frames_and_slots_back(pool: uswap.Pool) -> None:
    with pool.numpy():
        large = np.arange(8 * MiB, dtype="i8")
        middle = [np.arange(256 * 1024, dtype="i8") for _ in range(16)]
    evict(pool)
    used = pool.stats().swap_used_bytes
    assert used > 90 * MiB
    del large
    assert pool.stats().swap_used_bytes < used - 60 * MiB
    del middle
    assert pool.stats().swap_used_bytes < 4 * MiB


def test_a_temporary_of_one_size_takes_the_memory_of_the_last(pool: uswap.Pool) -> None:
    with pool.numpy():
        a = np.ones(30_000)
        a + 1
        before = pool.stats().faults
        for _ in range(100):
            a + 1
        assert pool.stats().faults - before < 100
        assert not np.zeros(30_000).any()


def test_arrays_outlive_the_block_and_the_pool(make_pool: Any) -> None:
    with make_pool(reclaimer=False) as pool, pool.numpy():
        a = np.arange(4 * MiB)
        small = [np.full(10, i) for i in range(1000)]
    core = pool._core
    assert not core.freed
    assert int(a[-1]) == 4 * MiB - 1
    assert [int(x[9]) for x in small] == list(range(1000))
    del a
    assert not core.freed
    del small
    assert core.freed


def test_a_pool_in_use_by_arrays_does_not_close(pool: uswap.Pool) -> None:
    with pool.numpy():
        a = np.ones(5)
        with pytest.raises(BufferError, match="NumPy arrays"):
            pool.close()
        del a
        pool.close()
        with pytest.raises(MemoryError):
            np.ones(5)
    assert np.ones(5).sum() == 5
    with pytest.raises(uswap.ClosedError), pool.numpy():
        pass


def test_heaps_are_freed(make_pool: Any) -> None:
    before = len(all_heaps)
    for _ in range(30):
        with make_pool(reclaimer=False) as pool, pool.numpy():
            np.ones(10)
    assert len(all_heaps) == before


def test_too_little_swap_is_a_memory_error(make_pool: Any, swap_directory: Path) -> None:
    pool = make_pool(swap=uswap.SwapArea(swap_directory, size="64MiB"))
    with pool.numpy():
        kept = np.arange(1000)
        with pytest.raises(MemoryError):
            np.ones(32 * MiB)
        with pytest.raises(MemoryError):
            _ = [np.ones(MiB // 4) for _ in range(64)]
        with pytest.raises(MemoryError):
            kept.resize(64 * MiB, refcheck=False)
        assert np.array_equal(kept, np.arange(1000))
        assert np.ones(MiB // 4).sum() == MiB // 4


def test_regions_of_arrays_are_named(pool: uswap.Pool) -> None:
    with pool.numpy():
        a = np.ones(2 * MiB)
        assert any(info.name == "NumPy arrays" and info.size == a.nbytes for info in pool.regions())
    del a
    pool.close()


def test_a_policy_sees_the_regions_of_arrays(make_pool: Any) -> None:
    pool = make_pool(policy="by-region")
    with pool.numpy():
        a = np.arange(4 * MiB)
        for _ in range(3):
            assert int(a.sum()) == 4 * MiB * (4 * MiB - 1) // 2
    assert pool.stats().policy_orders > 0
    assert pool.reclaimer.error is None


def test_faults_are_served_inline_if_the_pool_does(make_pool: Any) -> None:
    pool = make_pool(faults="inline")
    with pool.numpy():
        a = np.arange(4 * MiB)
        a.sort()
        assert int(a[::4096].sum()) == sum(range(0, 4 * MiB, 4096))
        small = [np.full(100, i) for i in range(30_000)]
        assert all(int(x[50]) == i for i, x in enumerate(small))
    assert pool.stats().inline_faults > 0


OPTIONS: dict[str, dict[str, Any]] = {
    "encrypted": {"encrypt": True},
    "recycled": {"recycle": True},
    "overcommitted": {"overcommit": True},
    "synchronous": {"io": "sync"},
    "native": {"reclaimer": False},
    "foreground": {"background": False},
    "s3-fifo": {"policy": "s3-fifo"},
    "named": {"name": "arrays"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.usefixtures("runtime_folder")
def test_pools_of_each_kind_have_arrays(options: dict[str, Any], make_pool: Any) -> None:
    pool = make_pool(**options)
    with pool.numpy():
        a = np.arange(3 * MiB)[::-1].copy()
        a.sort()
        small = [np.full(30, i) for i in range(20_000)]
        assert int(a[::4096].sum()) == sum(range(0, 3 * MiB, 4096))
        assert all(int(x[20]) == i for i, x in enumerate(small))
    stats = pool.stats()
    assert stats.peak_resident_bytes <= stats.limit_bytes
    assert stats.pages_out > 0
    pool.check()
    del a, small
    pool.close()


# ---- threads, tasks, generators ----------------------------------------------------------------------------------


def in_thread(function: Any) -> Any:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def test_other_threads_enter_it_themselves_and_free_what_others_made(pool: uswap.Pool) -> None:
    with pool.numpy():
        assert handler_of(in_thread(lambda: np.ones(5))) == "default_allocator"
        mine = [np.ones(size) for size in (5, 500, 50_000, 2_000_000)]

    def make() -> list[Any]:
        with pool.numpy():
            return [np.ones(size) for size in (5, 500, 50_000, 2_000_000)]

    theirs = in_thread(make)
    assert {handler_of(a) for a in theirs} == {"NumPy arrays"}
    in_thread(mine.clear)
    theirs.clear()
    pool.close()


def test_tasks_have_it_from_where_they_are_made(pool: uswap.Pool) -> None:
    async def name() -> str:
        await asyncio.sleep(0)
        return handler_of(np.ones(5))

    @pool.numpy()
    async def inside() -> str:
        await asyncio.sleep(0)
        return await asyncio.create_task(name())

    async def both() -> list[str]:
        return list(await asyncio.gather(inside(), name(), inside(), name()))

    assert asyncio.run(both()) == ["NumPy arrays", "default_allocator"] * 2


def test_blocks_nest(make_pool: Any) -> None:
    outer, inner = make_pool(), make_pool()
    with outer.numpy():
        with inner.numpy(), inner.numpy():
            a = np.ones(2 * MiB)
        b = np.ones(3 * MiB)
    assert inner.stats().managed_bytes < outer.stats().managed_bytes
    del a
    inner.close()
    assert b.sum() == 3 * MiB


def test_a_block_is_left_where_it_was_entered(make_pool: Any) -> None:
    pool = make_pool()
    first, second = pool.numpy(), pool.numpy()
    first.__enter__()
    second.__enter__()
    with pytest.raises(RuntimeError, match="entered"):
        first.__exit__(None, None, None)

    def leave() -> None:
        with pytest.raises(RuntimeError, match="entered"):
            second.__exit__()

    in_thread(leave)
    second.__exit__()
    first.__exit__()
    assert handler_of(np.ones(3)) == "default_allocator"


def test_functions_are_decorated_and_generators_refused(pool: uswap.Pool) -> None:
    @pool.numpy()
    def fibonacci(n: int) -> Any:
        """A name and a text."""
        return np.ones(1) if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert handler_of(fibonacci(8)) == "NumPy arrays"
    assert (fibonacci.__name__, fibonacci.__doc__) == ("fibonacci", "A name and a text.")
    with pytest.raises(TypeError, match="generator"):

        @pool.numpy()
        def pieces() -> Any:
            yield np.ones(1)


def test_an_error_inside_ends_the_block(pool: uswap.Pool) -> None:
    with pytest.raises(ZeroDivisionError), pool.numpy():
        _ = 1 // 0
    assert handler_of(np.ones(3)) == "default_allocator"


# ---- without what it needs ---------------------------------------------------------------------------------------


def test_without_the_small_allocator_it_says_what_to_install(swap_directory: Path) -> None:
    program = """
        import numpy
        pool = uswap.Pool("16MiB", swap=SWAP)
        try:
            with pool.numpy(): pass
        except uswap.UnsupportedError as error:
            print(error)
    """
    result = run_program(program, swap_directory, USWAP_TBBMALLOC="/nowhere/libtbbmalloc.so.2")
    assert "pip install tbb" in result.stdout
    assert "/nowhere/libtbbmalloc.so.2" in result.stdout


def test_importing_uswap_imports_neither_numpy_nor_tbb() -> None:
    program = "import uswap, sys; assert 'numpy' not in sys.modules; print(open('/proc/self/maps').read())"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "tbbmalloc" not in result.stdout


def test_the_interpreter_ends_with_arrays_alive(swap_directory: Path) -> None:
    program = """
        import numpy as np, sys
        pool = uswap.Pool("16MiB", swap=SWAP)
        with pool.numpy():
            sys.kept = [np.ones(n) for n in (3, 30_000, 3_000_000)]
            class Late:
                def __del__(self): assert sys.kept[2][-1] == 1
            cycle = [Late(), np.ones(2_000_000)]; cycle.append(cycle)
        with uswap.Pool("16MiB", swap=SWAP) as other, other.numpy():
            sys.other = np.ones(2_000_000)
        print("end")
    """
    result = run_program(program, swap_directory)
    assert (result.stdout, result.stderr) == ("end\n", "")
