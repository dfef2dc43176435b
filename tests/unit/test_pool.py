"""Pools: what they tell, and when they end."""

import gc
import inspect
import itertools
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from _support.waiting import await_that
from _support.workload import Pages

import uswap
from uswap._core import ffi

MIB = 1 << 20


def run_program(program: str, swap_directory: Path) -> subprocess.CompletedProcess[str]:
    """program in an interpreter of its own, with SWAP, an area on a disk, at hand."""
    head = f"import uswap\nSWAP = uswap.SwapArea({str(swap_directory)!r}, size='256MiB')\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", head + program], capture_output=True, text=True, timeout=60
    )


# ---- what they tell


def test_stats_have_exactly_the_fields_of_the_core(pool: uswap.Pool) -> None:
    fields = [name for name, _ in ffi.typeof("uswap_stats").fields]
    assert list(uswap.Stats.__dataclass_fields__) == fields
    assert list(pool.stats().as_dict()) == fields


def test_every_field_of_the_stats_is_documented() -> None:
    for kind in (uswap.Stats, uswap.RegionInfo, uswap.SwapAreaInfo):
        for name in kind.__dataclass_fields__:
            assert f"\n    {name}: " in inspect.cleandoc(kind.__doc__ or ""), name


def test_stats_are_frozen(pool: uswap.Pool) -> None:
    with pytest.raises(AttributeError):
        pool.stats().faults = 1  # type: ignore[misc]


def test_stats_count_what_happens(make_pool: Callable[..., uswap.Pool]) -> None:
    pool = make_pool(fault_around=1, read_ahead=0)
    before = pool.stats()
    assert (before.faults, before.regions, before.managed_bytes) == (0, 0, 0)
    r = pool.region(MIB)
    r[0] = 1
    r[4096] = 1
    # A fault is counted under the page lock, just after the program goes on: this waits for both locks.
    r.lock(0, 2 * 4096)
    r.unlock(0, 2 * 4096)
    after = pool.stats()
    assert (after.faults, after.zero_fills, after.regions, after.managed_bytes) == (2, 2, 1, MIB)
    assert after.mapped_bytes == 2 * 4096
    r.close()


def test_evict_says_how_much_it_evicted(pool: uswap.Pool) -> None:
    r = pool.region(MIB)
    r[:] = b"x" * MIB
    with r.resident():  # the last fault has ended for the core too
        pass
    assert pool.evict("256KiB") == MIB // 4
    assert pool.evict("2MiB") == MIB - MIB // 4
    assert pool.evict(4096) == 0
    assert bytes(r) == b"x" * MIB
    r.close()


def test_the_repr_tells_the_state(make_pool: Callable[..., uswap.Pool]) -> None:
    pool = make_pool("32MiB")
    assert "limit=32 MiB" in repr(pool)
    pool.close()
    assert repr(pool) == "<uswap.Pool closed>"


# ---- the end


def test_close_says_what_is_in_use_and_changes_nothing(pool: uswap.Pool) -> None:
    r = pool.region(MIB, name="mine")
    with pytest.raises(BufferError, match=r"mine \(1 MiB\)"):
        pool.close()
    assert not pool.closed
    pool.region(MIB).close()
    r.close()
    pool.close()
    pool.close()


def test_a_closed_pool_says_so(make_pool: Callable[..., uswap.Pool]) -> None:
    pool = make_pool()
    pool.close()
    for action in (
        lambda: pool.region(MIB),
        pool.stats,
        pool.areas,
        lambda: pool.limit,
        lambda: pool.evict(1),
        pool.__enter__,
    ):
        with pytest.raises(uswap.ClosedError):
            action()
    assert pool.regions() == []


def test_memory_outlives_the_block_and_frees_the_pool_at_its_end(
    make_pool: Callable[..., uswap.Pool],
) -> None:
    with make_pool() as pool:
        r = pool.region(64 * MIB)
        view = memoryview(r)
        del r
    with pytest.raises(uswap.ClosedError):
        pool.region(MIB)
    for start in range(0, 64 * MIB, MIB):
        view[start] = start // MIB
    assert [view[start] for start in range(0, 64 * MIB, MIB)] == list(range(64))
    assert not pool._core.freed
    assert pool.stats().regions == 1
    del view
    assert pool.reclaimer is not None
    pool.reclaimer.join(10)
    assert pool._core.freed


def test_a_pool_nobody_refers_to_is_freed_with_its_memory(swap_directory: Path) -> None:
    pool = uswap.Pool("16MiB", swap=uswap.SwapArea(swap_directory, size="64MiB"))
    core, reclaimer, r = pool._core, pool.reclaimer, pool.region(MIB)
    assert reclaimer is not None
    r[0] = 7
    del pool
    gc.collect()
    assert r[0] == 7
    assert not core.freed
    assert reclaimer.running
    del r
    reclaimer.join(10)
    assert core.freed


def test_a_failed_pool_leaves_nothing(tmp_path: Path) -> None:
    before = set(threading.enumerate()), set(os.listdir("/proc/self/task"))
    data = tmp_path / "data"
    data.write_bytes(b"x" * 10000)
    for _ in range(5):
        with pytest.raises(uswap.SwapAreaError):
            uswap.Pool("16MiB", swap=data)
    assert set(threading.enumerate()) <= before[0]  # one of those may have ended meanwhile: an earlier test's
    await_that(lambda: set(os.listdir("/proc/self/task")) <= before[1])  # who was joined may be on its way out


def test_threads_and_files_of_closed_pools_are_gone(make_pool: Callable[..., uswap.Pool]) -> None:
    def used() -> tuple[int, int]:
        return len(list(Path("/proc/self/task").iterdir())), len(list(Path("/proc/self/fd").iterdir()))

    make_pool().close()
    before = used()
    for _ in range(10):
        pool = make_pool()
        pool.region(MIB)[:] = b"x" * MIB
        gc.collect()
        pool.close()
    # A thread that was joined may still be on its way out of the kernel, and nothing tells when it is gone. That is
    # as true of the first look, which may have seen one thread too many; but of ten pools, not one may have left
    # a thing.
    deadline = time.monotonic() + 10
    while not all(now <= then for now, then in zip(used(), before, strict=True)) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert all(now <= then for now, then in zip(used(), before, strict=True))


# ---- the reclaimer


def test_the_python_reclaimer_steers(make_pool: Callable[..., uswap.Pool]) -> None:
    pool = make_pool()
    assert pool.reclaimer is not None
    assert pool.reclaimer.running
    assert "running" in repr(pool.reclaimer)
    r = pool.region(64 * MIB)
    pages, versions = Pages(r), itertools.count(1)
    while pool.stats().evictions_steered == 0:  # it runs beside, and may be slow
        pages.fill(next(versions))  # without the GIL
        assert pool.reclaimer.error is None
    del pages
    r.close()
    pool.close()
    assert not pool.reclaimer.running


def test_without_a_python_reclaimer_the_native_one_works(make_pool: Callable[..., uswap.Pool]) -> None:
    pool = make_pool(reclaimer=False)
    assert pool.reclaimer is None
    r = pool.region(64 * MIB)
    for start in range(0, 64 * MIB, MIB):
        r[start : start + MIB] = b"x" * MIB
    stats = pool.stats()
    assert stats.evictions_steered == 0
    assert stats.evictions_native > 0
    r.close()


def test_without_any_reclaimer_faults_evict(make_pool: Callable[..., uswap.Pool]) -> None:
    pool = make_pool(background=False)
    assert pool.reclaimer is None
    r = pool.region(64 * MIB)
    for start in range(0, 64 * MIB, MIB):
        r[start : start + MIB] = b"x" * MIB
    stats = pool.stats()
    assert stats.evictions_direct == stats.evictions > 0
    r.close()


# ---- processes


def test_import_needs_no_core() -> None:
    program = """
import sys
sys.modules["uswap._uswap"] = None
import uswap
try:
    uswap.Pool("1GiB")
except uswap.UnsupportedError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "cannot be loaded" in result.stdout


def test_fork_warns_and_the_child_cannot_use_the_pool(swap_directory: Path) -> None:
    program = """
import os, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python's own about fork and threads
pool = uswap.Pool("16MiB", swap=SWAP, snapshots=False)
r = pool.region("1MiB")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    child = os.fork()
if child == 0:
    for action in (pool.stats, lambda: pool.region(4096), r.info, r.close, pool.close):
        try:
            action()
        except uswap.ForkError:
            continue
        os._exit(1)
    del r, pool
    os._exit(0)
assert [w.category for w in caught if w.category is uswap.UswapWarning] == [uswap.UswapWarning]
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
r[0] = 1
r.close()
pool.close()
with warnings.catch_warnings():
    warnings.simplefilter("error", uswap.UswapWarning)  # in a hook an error becomes a line on stderr
    child = os.fork()
    if child == 0:
        os._exit(0)
print("ok")
"""
    result = run_program(program, swap_directory)
    assert (result.returncode, result.stdout, result.stderr) == (0, "ok\n", "")


def test_a_child_that_touches_a_region_dies_with_one_clear_line(swap_directory: Path) -> None:
    program = """
import os, warnings
pool = uswap.Pool("16MiB", swap=SWAP, snapshots=False)
r = pool.region("1MiB")
r[0] = 1
warnings.simplefilter("ignore")
child = os.fork()
if child == 0:
    os._exit(r[0])
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) < 0)
r.close()
pool.close()
"""
    result = run_program(program, swap_directory)
    assert (result.returncode, result.stdout) == (0, "True\n")
    assert len(result.stderr.splitlines()) == 1
    assert "uswap" in result.stderr


def test_subprocesses_start_without_a_warning(pool: uswap.Pool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert subprocess.run(["true"], timeout=30).returncode == 0


def test_the_interpreter_exits_with_memory_in_use(swap_directory: Path) -> None:
    program = """
import atexit, sys, threading
pool = uswap.Pool("16MiB", swap=SWAP)
r = pool.region("64MiB", name="used at exit")
for start in range(0, len(r), 4096):
    r[start] = 1

class Last:
    def __del__(self):
        assert sum(self.view[::4096]) == len(self.view) // 4096

last = Last()
last.view = memoryview(r)
last.me = last
sys.kept_for_ever = [pool, r, last]
threading.Thread(target=threading.Event().wait, daemon=True).start()
def at_exit():
    assert sum(r[::4096]) == len(r) // 4096
    pool.region("1MiB")[0] = 1
    print("ok", flush=True)
atexit.register(at_exit)
"""
    result = run_program(program, swap_directory)
    assert (result.returncode, result.stdout, result.stderr) == (0, "ok\n", "")
