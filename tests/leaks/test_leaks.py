"""Whatever is made and closed leaves nothing, and what fails leaves nothing either.

Each use is repeated, in rounds. A leak is there in every round; what an allocator takes for itself is not.
`make test-leaks` repeats each 100 times, and has LeakSanitizer look at what is left at the end.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from _support.addresses import address_of, something_at
from _support.failpoints import Action, armed
from conftest import probe
from variants.unfit import SANITIZED

import uswap
from uswap._core import lib

MIB = 1 << 20
PAGE = 4096
DATA = os.urandom(MIB)
TIMES = int(os.environ.get("USWAP_LEAK_TIMES", "8"))
ROUNDS = 4  # and one before, so that 20 make 100


class Used(NamedTuple):
    """What this process has."""

    threads: int
    files: int
    mapped_bytes: int
    blocks: int  # of Python's allocator


def _mapped_bytes() -> int:
    """Without what is mapped from files of the system: those stay with the modules."""
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = line.split()[0].split("-")
        total += int(end, 16) - int(start, 16)
    return total


def _used() -> Used:
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        sys._clear_type_cache()  # keeps names of attributes that were looked up: opening a file brings a new one
    blocks = sys.getallocatedblocks()
    tasks, files = (len(list(Path("/proc/self", name).iterdir())) for name in ("task", "fd"))
    return Used(tasks, files, _mapped_bytes(), blocks)


def _settled(before: Used) -> Used:
    """A thread that was joined may still be on its way out of the kernel, and nothing tells when it is gone."""
    deadline = time.monotonic() + 10
    while (now := _used()).threads > before.threads and time.monotonic() < deadline:
        time.sleep(0.005)
    return now


def assert_no_growth(use: Callable[[], object]) -> None:
    """Repeats it; what grew by one or more a time in every round is a leak."""
    for _ in range(TIMES):
        use()
    grown = []
    before = _used()
    for _ in range(ROUNDS):
        for _ in range(TIMES):
            use()
        now = _settled(before)
        grown.append(Used(*(after - first for after, first in zip(now, before, strict=True))))
        before = now
    least = Used(*map(min, zip(*grown, strict=True)))
    assert least.threads <= 0, grown
    assert least.files <= 0, grown
    # A sanitizer maps for its threads, and keeps what was freed.
    assert least.mapped_bytes < TIMES * PAGE or os.environ.get("USWAP_VARIANT") in SANITIZED, grown
    assert least.blocks < TIMES, grown


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is logged, pytest would keep."""
    monkeypatch.setattr(logging.getLogger("uswap"), "disabled", True)


# ---- what is made and closed


@pytest.fixture
def area(swap_directory: Path) -> uswap.SwapArea:
    return uswap.SwapArea(swap_directory, size="64MiB")


@pytest.fixture
def pool(area: uswap.SwapArea) -> Iterator[uswap.Pool]:
    """That stays, while what is in it comes and goes."""
    with uswap.Pool("8MiB", swap=area) as made:
        yield made
        gc.collect()
        made.check()


def _swap_some(pool: uswap.Pool) -> None:
    """Pages go out and come back."""
    with contextlib.closing(pool.region("2MiB")) as region:
        region[:] = DATA + DATA
        region.advise(uswap.Advice.PAGEOUT)
        assert region[MIB : MIB + 8] == DATA[:8]


@pytest.mark.parametrize("policy", [None, "default"], ids=["native", "steered"])
def test_pools(area: uswap.SwapArea, transport: str, io: str, policy: str | None) -> None:
    def use() -> None:
        with uswap.Pool("8MiB", swap=area, transport=transport, io=io, policy=policy) as pool:
            _swap_some(pool)

    assert_no_growth(use)


@pytest.mark.skipif(probe().encrypt_errno != 0, reason="swap cannot be encrypted: no libcrypto")
def test_encrypted_pools(area: uswap.SwapArea) -> None:
    def use() -> None:
        with uswap.Pool("8MiB", swap=area, encrypt=True) as pool:
            _swap_some(pool)

    assert_no_growth(use)


def test_named_pools(area: uswap.SwapArea, runtime_folder: Path) -> None:
    def use() -> None:
        with uswap.Pool("32MiB", name="leaks", swap=area) as pool, uswap.attach("leaks", swap=area) as member:
            region = pool.region(MIB, shared=True, name="r")
            region[:] = DATA
            region.advise(uswap.Advice.PAGEOUT)
            other = member.open_region("r")
            assert other[5:9] == DATA[5:9]
            other.close()
            region.close()

    assert_no_growth(use)


def test_shared_regions_that_grow_shrink_and_move(area: uswap.SwapArea, runtime_folder: Path) -> None:
    with uswap.Pool("32MiB", name="leaks", swap=area) as pool, uswap.attach("leaks", swap=area) as member:

        def use() -> None:
            region = pool.region(MIB, shared=True, name="r", reserve="4MiB")
            other = member.open_region("r")
            region.resize("4MiB")
            region[3 * MIB :] = DATA
            at = address_of(region)
            with something_at(at + 4 * MIB):
                with memoryview(region):
                    _fails(BufferError, lambda: region.resize("8MiB"))
                region.resize("8MiB")
            assert address_of(region) != at
            other.refresh()
            _fails(uswap.BusyError, lambda: region.resize(PAGE))
            other.close()
            region.resize(PAGE)
            region.close()

        assert_no_growth(use)


def _regions(pool: uswap.Pool) -> None:
    _swap_some(pool)


def _inline_regions(pool: uswap.Pool) -> None:
    with contextlib.closing(pool.region(MIB, faults="inline")) as region:
        region[:] = DATA


def _resized_regions(pool: uswap.Pool) -> None:
    with contextlib.closing(pool.region(MIB, reserve="8MiB")) as region:
        region.resize("4MiB")
        region[3 * MIB :] = DATA
        region.resize(PAGE)
        region.resize("16MiB")


def _held_regions(pool: uswap.Pool) -> None:
    with contextlib.closing(pool.region(MIB)) as region:
        region.lock(0, 10 * PAGE)
        with region.resident(0, 20 * PAGE):
            region.protect(uswap.Protection.READ, 0, PAGE)
        region.unlock()
        region.verify()
        region.page_classes()


def _arrays(pool: uswap.Pool) -> None:
    made = pool.zeros((MIB // 8,)), pool.full((100, 100), 3.0), pool.array([1, 2, 3])
    assert all(array.any() for array in made[1:])


def _what_is_told(pool: uswap.Pool) -> None:
    pool.stats(), pool.regions(), pool.areas(), repr(pool)
    pool.limit = "9MiB"
    pool.limit = "8MiB"
    pool.check()


@pytest.mark.parametrize(
    "use", [_regions, _inline_regions, _resized_regions, _held_regions, _arrays, _what_is_told]
)
def test_in_one_pool(pool: uswap.Pool, use: Callable[[uswap.Pool], None]) -> None:
    assert_no_growth(lambda: use(pool))


def test_traces(pool: uswap.Pool, swap_directory: Path) -> None:
    def use() -> None:
        with pool.trace(swap_directory / "leaks.trace", window=MIB):
            _swap_some(pool)

    assert_no_growth(use)


def test_areas(area: uswap.SwapArea, swap_directory: Path) -> None:
    def use() -> None:  # a pool of its own: none has more than 32 areas in its life
        with uswap.Pool("8MiB", swap=area) as pool:
            info = pool.swapon(swap_directory, size="16MiB", priority=5)
            _swap_some(pool)
            pool.swapoff(info)

    assert_no_growth(use)


def test_forked_children(area: uswap.SwapArea) -> None:
    with uswap.Pool("16MiB", swap=area) as pool, contextlib.closing(pool.region(MIB)) as region:
        region[:] = DATA

        def use() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
                pid = os.fork()
            if pid == 0:
                os._exit(region[:5] != DATA[:5])
            assert os.waitpid(pid, 0)[1] == 0

        assert_no_growth(use)


# ---- what fails


def _fails(kind: type[BaseException] | tuple[type[BaseException], ...], use: Callable[[], object]) -> None:
    """Without pytest.raises, which keeps things."""
    try:
        use()
    except kind:
        return
    raise AssertionError("it did not fail")


def test_pools_that_cannot_be_made(area: uswap.SwapArea, tmp_path: Path) -> None:
    def use() -> None:
        _fails(OSError, lambda: uswap.Pool("8MiB", swap=tmp_path / "none" / "swap"))
        _fails(uswap.LimitError, lambda: uswap.Pool("4KiB", swap=area))
        _fails(ValueError, lambda: uswap.Pool("8MiB", swap=area, transport="carrier pigeon"))
        _fails(uswap.PoolNotFoundError, lambda: uswap.attach("nobody-made-this"))

    assert_no_growth(use)


@pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")
@pytest.mark.parametrize("step", ["area.fallocate", "area.direct"])
def test_pools_whose_area_is_refused(area: uswap.SwapArea, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def use() -> None:
        with armed(step, Action.ERROR, errno.EIO, every=True):
            try:
                uswap.Pool("8MiB", swap=area).close()
            except OSError:
                return

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_no_growth(use)


def _refused_calls(pool: uswap.Pool) -> None:
    with contextlib.closing(pool.region(MIB, name="refused")) as region:
        _fails(MemoryError, lambda: pool.region("1GiB"))
        _fails(ValueError, lambda: pool.region(0))
        _fails(ValueError, lambda: region.advise(uswap.Advice.NORMAL, 5 * MIB))
        _fails(ValueError, lambda: region.lock(-1, PAGE))
        _fails(MemoryError, lambda: region.resize("1GiB"))
        _fails((OSError, ValueError, LookupError), lambda: pool.swapoff("/no/such/area"))
        _fails(OSError, lambda: pool.swapon("/no/such/folder/area"))
        _fails(uswap.LimitError, lambda: setattr(pool, "limit", "4KiB"))
        view = memoryview(region)
        _fails(BufferError, lambda: region.resize(PAGE))
        _fails(BufferError, region.close)
        _fails((uswap.BusyError, BufferError), pool.close)
        view.release()


def test_calls_that_are_refused(pool: uswap.Pool) -> None:
    assert_no_growth(lambda: _refused_calls(pool))


@pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")
def test_pages_that_cannot_be_read_back(pool: uswap.Pool) -> None:
    def use() -> None:
        with contextlib.closing(pool.region(MIB)) as region:
            region[:] = DATA
            region.advise(uswap.Advice.PAGEOUT)
            with armed("page_in.hash", Action.FLIP, 5, every=True):
                _fails(uswap.SwapError, region.resident().__enter__)

    assert_no_growth(use)
