"""Auto limit on real pools: coarse, whatever the machine's speed. For exact rules: unit/test_auto_rules.py."""

import gc
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from _support.workload import PAGE, Pages
from conftest import PoolFactory

import uswap
from uswap import auto_limit

MIB = 1 << 20
HOT_PAGES = 48 * MIB // PAGE


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five times as many samples a second."""
    monkeypatch.setattr(auto_limit, "PERIOD_SECONDS", 0.05)


def touch_until(pages: Pages, first: int, count: int, reached: Callable[[], bool], seconds: float = 60) -> bool:
    """Reads count pages from first on, at random, until reached or for so many seconds; => whether reached."""
    draw = random.Random(1)
    orders = [[first + draw.randrange(count) for _ in range(50000)] for _ in range(4)]
    deadline = time.monotonic() + seconds
    while not reached() and time.monotonic() < deadline:
        for order in orders:
            pages.touch(order)
    return reached()


@pytest.mark.usefixtures("hurried")
def test_it_finds_the_hot_set_and_follows_a_change_of_phase(make_pool: PoolFactory) -> None:
    pool = make_pool("auto", stall=0.1, limit_max="1GiB")
    auto = pool.auto_limit
    assert auto is not None
    region = pool.region("256MiB")
    pages = Pages(region)
    pages.fill(1)
    assert pool.limit == auto.limit_max == 1024 * MIB
    before, began = pool.stats(), time.monotonic()

    assert touch_until(pages, 0, HOT_PAGES, lambda: pool.limit < 128 * MIB), auto.history
    touch_until(pages, 0, HOT_PAGES, lambda: False, seconds=3)
    low = pool.limit
    assert 40 * MIB < low < 160 * MIB
    stall = (pool.stats().stall_ns - before.stall_ns) / 1e9 / (time.monotonic() - began)
    assert stall < 0.3, "three times the target"
    assert low <= auto.recommended < 1024 * MIB

    wider = 160 * MIB // PAGE
    assert touch_until(pages, HOT_PAGES, wider, lambda: pool.limit > low * 1.3), auto.history
    assert touch_until(pages, HOT_PAGES, wider, lambda: auto.history[-1].stall < 0.1), auto.history
    assert auto.error is None
    assert pages.wrong(1) == 0


def test_it_starts_at_the_default_limit_and_stops_with_the_pool(
    make_pool: PoolFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USWAP_LIMIT", "64MiB")
    pool = make_pool("auto")
    auto = pool.auto_limit
    assert auto is not None
    assert (pool.limit, auto.limit_max, auto.stall) == (64 * MIB, 64 * MIB, 0.02)
    assert auto.running
    assert "stall=0.02 running" in repr(auto)
    assert 0 < auto.recommended < 1024 * MIB
    pool.close()
    assert not auto.running
    assert "stopped" in repr(auto)
    assert auto.error is None


def test_setting_the_limit_by_hand_ends_it(make_pool: PoolFactory) -> None:
    pool = make_pool("auto", limit_max="64MiB")
    auto = pool.auto_limit
    assert auto is not None
    with pytest.raises(uswap.LimitError):
        pool.limit = 1
    assert pool.auto_limit is auto
    assert auto.running
    pool.limit = "48MiB"
    assert pool.auto_limit is None
    assert not auto.running
    assert pool.limit == 48 * MIB


def test_a_fixed_limit_has_none(pool: uswap.Pool) -> None:
    assert pool.auto_limit is None


@pytest.mark.parametrize("stall", [0, 1, 1.0, -0.5, float("nan")])
def test_a_stall_that_is_no_share_is_a_value_error(stall: float) -> None:
    with pytest.raises(ValueError, match="stall must be a share"):
        uswap.Pool("auto", stall=stall)


@pytest.mark.parametrize("stall", ["0.02", True])
def test_a_stall_that_is_no_number_is_a_type_error(stall: object) -> None:
    with pytest.raises(TypeError, match="stall must be a number"):
        uswap.Pool("auto", stall=stall)  # type: ignore[arg-type]


def test_what_only_auto_has_is_refused_without_it() -> None:
    with pytest.raises(ValueError, match="stall needs limit='auto'"):
        uswap.Pool("64MiB", stall=0.02)
    with pytest.raises(ValueError, match="limit_max needs limit='auto'"):
        uswap.Pool(limit_max="64MiB")
    with pytest.raises(uswap.LimitError):
        uswap.Pool("auto", limit_max=4096)


@pytest.mark.usefixtures("hurried")
def test_a_pool_nobody_refers_to_ends_with_its_auto_limit(swap_directory: Path) -> None:
    before = set(threading.enumerate())
    pool = uswap.Pool("auto", limit_max="64MiB", swap=uswap.SwapArea(swap_directory, size="64MiB"))
    core, auto, reclaimer, region = pool._core, pool.auto_limit, pool.reclaimer, pool.region(MIB)
    assert auto is not None
    assert reclaimer is not None
    del pool
    gc.collect()
    assert auto.running
    del region
    auto.join(10)
    reclaimer.join(10)
    assert core.freed
    assert set(threading.enumerate()) <= before  # one of those may have ended meanwhile: an earlier test's


@pytest.mark.usefixtures("hurried")
def test_if_it_fails_it_says_so_and_the_limit_is_the_largest(
    make_pool: PoolFactory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make_pool("auto", limit_max="64MiB")
    auto = pool.auto_limit
    assert auto is not None
    pool._core.call(auto_limit.lib.uswap_pool_set_limit, 32 * MIB)

    def fail(*_: object) -> None:
        raise RuntimeError("for the test")

    monkeypatch.setattr(auto_limit, "_counters", fail)
    auto.join(10)
    assert str(auto.error) == "for the test"
    assert "failed: for the test" in repr(auto)
    assert pool.limit == 64 * MIB
    assert "the auto limit has failed" in caplog.text


@pytest.mark.usefixtures("hurried")
def test_swap_that_is_full_does_not_end_it(swap_directory: Path, make_pool: PoolFactory) -> None:
    area = uswap.SwapArea(swap_directory, size="48MiB")
    pool = make_pool("auto", limit_max="256MiB", overcommit=True, swap=area)
    auto = pool.auto_limit
    assert auto is not None
    region = pool.region("160MiB")
    pages = Pages(region)
    pages.fill(1)
    touch_until(pages, 0, HOT_PAGES, lambda: pool.stats().swap_full_events > 0, seconds=20)
    assert auto.error is None
    assert auto.running
    assert pages.wrong(1) == 0


def test_fork_and_exit_with_it_on(swap_directory: Path) -> None:
    program = f"""
import os, sys, uswap, warnings
from uswap import auto_limit
auto_limit.PERIOD_SECONDS = 0.01
warnings.simplefilter("ignore")
pool = uswap.Pool("auto", limit_max="64MiB", swap=uswap.SwapArea({str(swap_directory)!r}, size="256MiB"))
region = pool.region("32MiB")
for start in range(0, len(region), 4096):
    region[start] = 1
child = os.fork()
if child == 0:
    pool.auto_limit.request_stop()
    assert pool.auto_limit.recommended > 0 and not pool.auto_limit.running
    pool.limit = "32MiB"
    assert sum(region[::4096]) == len(region) // 4096
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert pool.auto_limit.running
sys.kept_for_ever = [pool, region]
print("ok")
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "ok\n", "")
